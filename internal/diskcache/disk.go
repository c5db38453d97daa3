package diskcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"larder/internal/bucket/cost"
	"larder/internal/localfs"
	"larder/internal/panics"
)

const (
	// maxStuck is the number of reads beyond their deadline that turn the disk off.
	maxStuck = 16
	// maxTimeouts and maxErrors are how many look-ups in a row may time out, and reads fail.
	maxTimeouts = 16
	maxErrors   = 4
	// maxReads bounds the reads that run at the same time.
	maxReads = 32
	// A disk that is off is tried after minBackoff, then after twice the time, up to maxBackoff. A
	// disk that fails again within wellFor waits twice as long as the last time.
	minBackoff = time.Second
	maxBackoff = time.Minute
	wellFor    = 5 * time.Minute
	// probeTimeout is how long a disk that is well may take for a small file.
	probeTimeout = 5 * time.Second
	probeName    = "probe"
	probeBytes   = 4 << 10
	// closeTimeout bounds how long Close waits for a disk that hangs.
	closeTimeout = 5 * time.Second
)

// What a disk that is unwell is not used for.
const (
	writesOff = 1 << iota
	readsOff
)

// Disk is what the caches on one disk share: whether the disk is well, and how much may be written.
// It is safe for concurrent use. Make it with OpenDisk.
type Disk struct {
	o       DiskOptions
	metrics *metrics
	panics  *panics.Guard
	latency *cost.Meter // sees short reads only
	// bandwidth sees long reads only, without their latency.
	bandwidth *cost.Meter
	budget    *budget

	off      atomic.Uint32
	stuck    atomic.Int64 // reads beyond their deadline
	timeouts atomic.Int64 // look-ups in a row
	errors   atomic.Int64 // reads in a row
	short    atomic.Int64 // reads that latency has seen
	long     atomic.Int64 // reads that bandwidth has seen
	bypasses atomic.Int64 // stretches that the bucket was expected to read sooner
	reads    chan struct{}
	buffers  sync.Pool // of *[]byte, of maxExtent bytes
	// gather is how long a writer waits for neighbours of the first value of a batch, unless
	// batchBytes wait.
	gather time.Duration
	// wrap lets tests make files slow or faulty.
	wrap func(file) file

	closing chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex // guards following
	caches  []*Cache
	closed  bool
	backoff time.Duration
	wellAt  time.Time // when it was last turned on as a whole
	goneAt  time.Time // when files were gone
	probing uint32    // what a probe that runs, or hangs, is for
}

// OpenDisk returns the disk of a directory. It does not access the disk.
func OpenDisk(o DiskOptions) *Disk {
	free := cost.Model{PerRequest: -1} // a read of the disk has no price
	d := &Disk{
		o: o.withDefaults(), latency: cost.NewMeter(free), bandwidth: cost.NewMeter(free),
		reads: make(chan struct{}, maxReads), closing: make(chan struct{}),
		gather: defaultGather, wrap: func(f file) file { return f },
	}
	d.buffers.New = func() any { b := make([]byte, maxExtent); return &b }
	d.panics = panics.New("diskcache", d.o.Logger, d.o.Registerer)
	d.budget = &budget{dir: d.o.Dir, perDay: d.o.WritesPerDay, rate: d.o.WriteRate}
	d.metrics = newMetrics(d)
	return d
}

// readable reports whether the caches may read.
func (d *Disk) readable() bool { return d.off.Load()&readsOff == 0 }

// writable reports whether the caches may write.
func (d *Disk) writable() bool { return d.off.Load() == 0 }

// timeout returns how long a look-up waits for the disk.
func (d *Disk) timeout() time.Duration {
	t := d.o.Timeout
	if d.o.FirstByte != nil {
		if first := d.o.FirstByte(); first > 0 {
			t = min(t, max(first, minTimeout))
		}
	}
	return t
}

// fail turns the disk off until a probe finds it well. A failure that turns more off is counted and
// logged.
func (d *Disk) fail(off uint32, reason string, err error) {
	if !d.turnOff(off) {
		return
	}
	d.metrics.offs.WithLabelValues(reason).Inc()
	d.o.Logger.Warn("disk cache is off until the disk is well",
		"dir", d.o.Dir.String(), "reason", reason, "err", err, "reads_too", off&readsOff != 0)
}

// turnOff turns the disk off, and reports whether some of it was on.
func (d *Disk) turnOff(off uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.off.Load()
	if d.closed || was&off == off {
		return false
	}
	d.off.Store(was | off)
	if was != 0 {
		return true // it is tried already
	}
	if d.backoff == 0 || time.Since(d.wellAt) > wellFor {
		d.backoff = minBackoff
	} else {
		d.backoff = min(2*d.backoff, maxBackoff)
	}
	d.running.Go(func() {
		_ = d.panics.Do(func() error { d.recover(); return nil })
	})
	return true
}

// turnOn ends what turnOff did, and reports whether some of it was off.
func (d *Disk) turnOn(on uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.off.Load()
	if was&on&readsOff != 0 {
		d.timeouts.Store(0)
		d.errors.Store(0)
	}
	d.off.Store(was &^ on)
	if was != 0 && was&^on == 0 {
		d.wellAt = time.Now()
	}
	return was&on != 0
}

// recover tries a disk that is off until it is well. A disk that can be read is read again, even if
// it cannot be written.
func (d *Disk) recover() {
	for {
		d.mu.Lock()
		wait := d.backoff
		d.mu.Unlock()
		select {
		case <-d.closing:
			return
		case <-time.After(wait):
		}
		if err := d.tried(readsOff, d.probeReads); err == nil {
			read := d.turnOn(readsOff)
			if err = d.tried(writesOff, d.probeWrites); err == nil {
				break
			}
			if read {
				d.o.Logger.Info("disk cache is read again, but the disk cannot be written",
					"dir", d.o.Dir.String(), "err", err)
			}
		}
		d.mu.Lock()
		d.backoff = min(2*d.backoff, maxBackoff)
		d.mu.Unlock()
	}
	d.turnOn(readsOff | writesOff)
	d.o.Logger.Info("disk cache is used again", "dir", d.o.Dir.String())
}

// tried probes reads or writes of the disk. A probe that hangs goes on in the background, and is
// the only one of its kind.
func (d *Disk) tried(what uint32, probe func([]*Cache) error) error {
	if n := d.stuck.Load(); n >= maxStuck {
		return fmt.Errorf("%d reads have not returned", n)
	}
	d.mu.Lock()
	if d.probing&what != 0 {
		d.mu.Unlock()
		return errors.New("the last attempt has not returned")
	}
	d.probing |= what
	caches := d.caches
	d.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		err := d.panics.Do(func() error { return probe(caches) })
		d.mu.Lock()
		d.probing &^= what
		d.mu.Unlock()
		done <- err
	}()
	timer := time.NewTimer(probeTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-d.closing:
		return context.Canceled
	case <-timer.C:
		return context.DeadlineExceeded
	}
}

// probeReads reads a record of each cache.
func (d *Disk) probeReads(caches []*Cache) error {
	for _, c := range caches {
		if err := c.probe(); err != nil {
			return err
		}
	}
	return nil
}

// probeWrites writes and reads a small file.
func (d *Disk) probeWrites([]*Cache) error {
	if err := d.o.LockDir(); err != nil {
		return err
	}
	if err := d.o.Dir.Make(); err != nil {
		return err
	}
	if free, err := d.free(); err != nil {
		return err
	} else if free < minSegment {
		return syscall.ENOSPC
	}
	f, err := d.o.Dir.OpenOrCreate(probeName)
	if err != nil {
		return err
	}
	b := make([]byte, probeBytes)
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = readFull(f, b, 0)
	}
	return errors.Join(err, f.Close(), d.o.Dir.Remove(probeName))
}

// free returns how many bytes may be written until only MinFreeBytes are free.
func (d *Disk) free() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.o.Dir.String(), &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", d.o.Dir, err)
	}
	size, free := int64(st.Blocks)*int64(st.Bsize), int64(st.Bavail)*int64(st.Bsize)
	return free - min(d.o.MinFreeBytes, size/maxMinFreeShare), nil
}

// readDone counts a read that returned in time.
func (d *Disk) readDone(took time.Duration, bytes int64, err error) {
	d.metrics.reads.Inc()
	d.metrics.readBytes.Add(float64(bytes))
	d.metrics.readSeconds.Observe(took.Seconds())
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		d.metrics.readErrors.Inc()
		if d.errors.Add(1) >= maxErrors {
			d.fail(readsOff|writesOff, "read_errors", err)
		}
		return
	}
	d.errors.Store(0)
	d.timeouts.Store(0)
	switch {
	case bytes <= smallRead:
		d.latency.Observe(took, 0, bytes)
		d.short.Add(1)
	case bytes >= longRead:
		d.bandwidth.Observe(0, max(took-d.latency.Model().FirstByte, 0), bytes)
		d.long.Add(1)
	}
}

const (
	// smallRead is the largest read whose time counts as latency of the disk.
	smallRead = 64 << 10
	// longRead is the shortest read whose bandwidth cost.Meter measures.
	longRead = 256 << 10
)

// model returns what reads of the disk cost, as it was measured.
func (d *Disk) model() cost.Model {
	m := d.latency.Model()
	m.BytesPerSecond = d.bandwidth.Model().BytesPerSecond
	return m
}

// timedOut counts a look-up that gave up, with the reads that have not returned.
func (d *Disk) timedOut(stuck int) {
	d.metrics.timeouts.Inc()
	if d.stuck.Add(int64(stuck)) >= maxStuck {
		d.fail(readsOff|writesOff, "stuck_reads", errors.New("reads do not return"))
	}
	if d.timeouts.Add(1) >= maxTimeouts {
		d.fail(readsOff|writesOff, "slow_reads", context.DeadlineExceeded)
	}
}

// freed ends a read that timedOut counted.
func (d *Disk) freed() { d.stuck.Add(-1) }

// gone reports that files were removed or replaced. Each cache notices it at its own check, and the
// first one reports it for all.
func (d *Disk) gone() {
	d.mu.Lock()
	known := time.Since(d.goneAt) < 2*checkEvery
	if !known {
		d.goneAt = time.Now()
	}
	d.mu.Unlock()
	if known {
		return
	}
	d.metrics.offs.WithLabelValues("removed").Inc()
	d.o.Logger.Warn(
		"files of the disk cache were removed or replaced, continuing with what is there",
		"dir", d.o.Dir.String(),
	)
}

// writeFailed turns writes off.
func (d *Disk) writeFailed(err error) {
	reason := "write_errors"
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		reason = "full"
	case errors.Is(err, syscall.EROFS):
		reason = "read_only"
	}
	d.fail(writesOff, reason, err)
}

// Close ends the recovery of the disk. Close the caches first.
func (d *Disk) Close() {
	d.mu.Lock()
	was := d.closed
	d.closed = true
	d.mu.Unlock()
	if was {
		return
	}
	close(d.closing)
	d.running.Wait()
	d.metrics.unregister()
}

// sub returns the directory of a cache.
func (d *Disk) sub(kind string) localfs.Dir { return d.o.Dir.Sub(kind) }
