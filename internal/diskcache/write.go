package diskcache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"larder/internal/bytecache"
	"larder/internal/sealed"
)

const (
	defaultGather = 50 * time.Millisecond
	batchBytes    = 1 << 20
	// checkEvery is how often the writer looks after the files and the free space.
	checkEvery = 10 * time.Second
	// movedQuarters is how many quarters of a segment the hot values of removed ones may take. The
	// rest is for new values: if all are hot, a new value costs four writes.
	movedQuarters = 3
	// sweep is how many places of the index are searched under one lock.
	sweep = 1 << 16
)

// writer writes segments. Only the goroutine of Cache.run uses it.
type writer struct {
	c       *Cache
	seq     uint64   // of the last segment
	cur     *segment // nil: the next value starts one
	off     int64    // where the next record goes
	entries []entry  // of cur
	buf     []byte   // records that are not in the file yet
	batch   []*item  // their values
	partial bool     // the disk failed while the index was read
}

// run reads the index, then writes values until the cache is closed.
func (c *Cache) run() {
	defer close(c.stopped)
	_ = c.disk.panics.Do(func() error {
		c.disk.budget.load()
		c.load()
		c.check()
		return nil
	})
	close(c.loaded)
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	for open := true; open; {
		select {
		case <-c.closing:
			open = false
		case <-check.C:
			_ = c.disk.panics.Do(func() error { c.check(); return nil })
			continue
		case <-c.wake:
			open = c.gathered()
		}
		_ = c.disk.panics.Do(func() error { c.drain(); return nil })
	}
	_ = c.disk.panics.Do(func() error {
		if c.disk.writable() && c.writer.cur != nil {
			c.failed(c.writer.rotate())
		}
		return nil
	})
}

// gathered waits for more values, and reports whether the cache is open.
func (c *Cache) gathered() bool {
	c.mu.Lock()
	enough := c.queueBytes >= batchBytes
	c.mu.Unlock()
	if enough {
		return true
	}
	timer := time.NewTimer(c.disk.gather)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.closing:
		return false
	}
}

// drain writes the queue.
func (c *Cache) drain() {
	for batch := c.take(); len(batch) > 0; batch = c.take() {
		c.write(batch)
	}
}

// pace waits until the disk may be written again after a write of so many bytes. If the cache is
// being closed it does not wait.
func (c *Cache) pace(bytes int64) {
	timer := time.NewTimer(c.disk.budget.pace(bytes))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.closing:
	}
}

// take removes up to batchBytes of values from the queue, neighbours next to each other. It drops
// those that were deleted, or found while the index was read.
func (c *Cache) take() []*item {
	c.mu.Lock()
	defer c.mu.Unlock()
	var batch []*item
	var bytes int64
	for len(c.queue) > 0 && bytes < batchBytes {
		it := c.queue[0]
		c.queue[0] = nil
		c.queue = c.queue[1:]
		c.queueBytes -= int64(len(it.value))
		if it.gone {
			continue
		}
		if c.table.find(it.hash) >= 0 {
			c.settle(it)
			c.departed.Add(1)
			continue
		}
		batch = append(batch, it)
		bytes += int64(len(it.value))
	}
	if len(c.queue) == 0 {
		c.queue = nil
	}
	close(c.changed)
	c.changed = make(chan struct{})
	slices.SortFunc(batch, compareItems)
	return batch
}

// compareItems orders values by identity: block, file, page.
func compareItems(a, b *item) int { return bytes.Compare(a.id[:], b.id[:]) }

// write writes values. Those that cannot be written are dropped.
func (c *Cache) write(batch []*item) {
	defer func() { // those that were not written
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, it := range batch {
			if c.pending[it.id] == it {
				c.settle(it)
				c.departed.Add(1)
				c.crowded.Add(1)
				if it.ahead {
					c.lost.Add(1)
				}
			}
		}
	}()
	if c.disk.writable() {
		c.failed(c.writer.write(batch))
	}
}

// failed reports an error of a write. The segment is given up, so that what follows is not written
// behind half a record.
func (c *Cache) failed(err error) {
	if err == nil || errors.Is(err, errOverBudget) {
		return
	}
	w := &c.writer
	w.cur, w.entries = nil, nil
	w.buf, w.batch = w.buf[:0], w.batch[:0]
	c.disk.writeFailed(err)
}

// errOverBudget is the error for values beyond the bytes of a day.
var errOverBudget = errors.New("over the bytes of the day")

// write writes the records of values. It starts segments as they are needed.
func (w *writer) write(items []*item) error {
	for _, it := range items {
		n := recordBytes(int64(len(it.value)))
		if w.cur != nil && !w.fits(n) {
			if err := w.rotate(); err != nil {
				return err
			}
		}
		if w.cur == nil {
			if err := w.start(); err != nil {
				return err
			}
			if err := w.makeRoom(); err != nil {
				return err
			}
		}
		if err := w.add(it); err != nil {
			return err
		}
	}
	return w.flush()
}

// fits reports whether a record and the footer fit in the segment.
func (w *writer) fits(n int64) bool {
	return w.off+n+footerBytes(len(w.entries)+1) <= w.c.o.segmentBytes()
}

// add appends a record to the buffer, which it writes if it is long enough.
func (w *writer) add(it *item) error {
	w.entries = append(w.entries, entry{it.id, uint32(w.off), uint32(len(it.value))})
	w.buf = appendRecord(w.buf, &it.id, it.value)
	w.batch = append(w.batch, it)
	w.off += recordBytes(int64(len(it.value)))
	if len(w.buf) >= batchBytes {
		return w.flush()
	}
	return nil
}

// flush writes the buffer, makes its values readable, and waits as the rate of writes demands.
func (w *writer) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	c, bytes := w.c, int64(len(w.buf))
	start := w.off - bytes
	if !c.disk.budget.spend(bytes, c.o.Priority) {
		w.off = start
		w.entries = w.entries[:len(w.entries)-len(w.batch)]
		w.buf, w.batch = w.buf[:0], w.batch[:0]
		return errOverBudget
	}
	if _, err := w.cur.file.WriteAt(w.buf, start); err != nil {
		return err
	}
	c.disk.metrics.written.Add(float64(bytes))
	w.publish(start)
	c.pace(bytes)
	return nil
}

// publish makes the values of the buffer, which is in the file from start on, readable.
func (w *writer) publish(start int64) {
	c, at := w.c, start
	c.mu.Lock()
	defer c.mu.Unlock()
	w.grow(w.off)
	for _, it := range w.batch {
		loc := location(w.cur.slot, at)
		at += recordBytes(int64(len(it.value)))
		switch {
		case it.gone:
			continue
		case it.moved:
			place := c.table.find(it.hash)
			if place < 0 || c.table.locs[place] != it.from {
				continue // deleted meanwhile
			}
			c.disk.metrics.moved.Add(float64(recordBytes(int64(len(it.value)))))
		default:
			c.settle(it)
		}
		if c.table.put(it.hash, loc) {
			c.evictions.Add(1)
			c.departed.Add(1)
		}
	}
	w.buf, w.batch = w.buf[:0], w.batch[:0]
}

// grow sets the size of the segment that is written. The caller holds c.mu.
func (w *writer) grow(size int64) {
	if w.cur.gone {
		return
	}
	w.c.fileBytes += size - w.cur.size
	w.cur.size = size
}

// rotate seals the segment.
func (w *writer) rotate() error {
	if err := w.seal(); err != nil {
		return err
	}
	return w.c.disk.budget.save()
}

// seal writes the footer of the segment and waits until the disk has it.
func (w *writer) seal() error {
	if w.cur == nil {
		return nil
	}
	if err := w.flush(); err != nil && !errors.Is(err, errOverBudget) {
		return err
	}
	b := appendFooter(nil, w.entries, w.off)
	if _, err := w.cur.file.WriteAt(b, w.off); err != nil {
		return err
	}
	if err := w.cur.file.Sync(); err != nil {
		return err
	}
	if err := w.c.dir.Sync(); err != nil {
		return err
	}
	w.c.mu.Lock()
	w.grow(w.off + int64(len(b)))
	w.c.mu.Unlock()
	w.cur, w.entries = nil, nil
	return nil
}

// start creates a segment.
func (w *writer) start() error {
	c := w.c
	if err := c.disk.o.LockDir(); err != nil {
		return err
	}
	if err := c.inPlace(); err != nil {
		return err
	}
	if err := c.dir.Make(); err != nil {
		return err
	}
	if free, err := c.freeFor(c.o.segmentBytes()); err != nil {
		return err
	} else if !free {
		return fmt.Errorf("create a segment: %w", syscall.ENOSPC)
	}
	name := segmentName(w.seq + 1)
	f, err := c.dir.OpenOrCreate(name)
	if err != nil {
		return err
	}
	w.seq++
	if err := f.Truncate(0); err != nil {
		return errors.Join(err, f.Close())
	}
	if _, err := f.WriteAt(header(c.o.Kind), 0); err != nil {
		return errors.Join(err, f.Close(), c.dir.Remove(name))
	}
	s := &segment{name: name, seq: w.seq, file: c.disk.wrap(f)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.addLocked(s, false) {
		return errors.Join(errors.New("no slot for a segment is free"), f.Close())
	}
	w.cur, w.off = s, headerBytes
	w.grow(headerBytes)
	w.entries = nil
	return nil
}

// addLocked gives a segment a slot. The caller holds c.mu.
func (c *Cache) addLocked(s *segment, oldest bool) bool {
	slot := slices.Index(c.bySlot, nil)
	if slot < 0 {
		return false
	}
	s.slot = uint32(slot)
	c.bySlot[slot] = s
	if oldest {
		c.order = slices.Insert(c.order, 0, s)
	} else {
		c.order = append(c.order, s)
	}
	return true
}

// makeRoom removes the oldest segments until another one would fit. It writes what is hot in them
// into the new segment.
func (w *writer) makeRoom() error {
	c := w.c
	budget := c.o.segmentBytes() / 4 * movedQuarters
	for {
		s := c.oldest(c.o.MaxBytes - c.o.segmentBytes())
		if s == nil {
			return nil
		}
		entries := c.entries(s)
		moved, err := w.move(s, entries, budget)
		budget -= moved
		c.evict(s, entries)
		if err != nil && !errors.Is(err, errOverBudget) {
			return err
		}
	}
}

// oldest returns the oldest segment if all together, with the unused part of the one that is
// written, exceed limit, or if nearly all slots are used. It never returns the one that is written.
func (c *Cache) oldest(limit int64) *segment {
	c.mu.Lock()
	defer c.mu.Unlock()
	bytes := c.fileBytes
	if cur := c.writer.cur; cur != nil {
		bytes += c.o.segmentBytes() - cur.size
	}
	if len(c.order) == 0 || c.order[0] == c.writer.cur ||
		bytes <= limit && len(c.order) < maxSlots-1 {
		return nil
	}
	return c.order[0]
}

// entries returns the entries of a segment. It returns none if they cannot be read: the segment is
// removed all the same.
func (c *Cache) entries(s *segment) []entry {
	entries, err := readFooter(s.file, s.size)
	if errors.Is(err, sealed.ErrDamaged) { // not sealed, because a write failed
		entries, _, err = scan(s.file, s.size, c.o.PageBytes)
	}
	if err != nil {
		return nil
	}
	return entries
}

// move writes the hot values of a segment again, up to limit bytes. It returns their bytes.
func (w *writer) move(s *segment, entries []entry, limit int64) (moved int64, err error) {
	c := w.c
	slices.SortFunc(entries, func(a, b entry) int { return int(a.off) - int(b.off) })
	record := make([]byte, recordBytes(c.o.PageBytes))
	for i := range entries {
		e := &entries[i]
		h, loc := hashOf(&e.id), location(s.slot, int64(e.off))
		n := recordBytes(int64(e.length))
		c.mu.Lock()
		hot := c.table.hotAt(h, loc)
		c.mu.Unlock()
		if !hot || n > int64(len(record)) || moved+n > limit {
			continue
		}
		if err := readFull(s.file, record[:n], int64(e.off)); err != nil {
			return moved, nil //nolint:nilerr // the segment is removed all the same
		}
		id, value, err := parseRecord(record[:n])
		if err != nil || *id != e.id || !w.fits(n) {
			continue
		}
		it := &item{id: e.id, hash: h, value: bytes.Clone(value), moved: true, from: loc}
		if err := w.add(it); err != nil {
			return moved, err
		}
		moved += n
	}
	return moved, w.flush()
}

// evict removes a segment and its pages, which entries lists.
func (c *Cache) evict(s *segment, entries []entry) {
	objects := c.objectsOf(s, entries)
	if err := c.dir.Remove(s.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.disk.o.Logger.Debug("removing a segment of the disk cache failed", "err", err)
	}
	c.forget(s)
	if len(objects) > 0 {
		c.o.Evicted(objects)
	}
}

// objectsOf returns the identity of the first page of each object with pages that are nowhere but
// in a segment. It returns nil without Options.Evicted.
func (c *Cache) objectsOf(s *segment, entries []entry) []bytecache.ID {
	if c.o.Evicted == nil {
		return nil
	}
	seen := map[bytecache.ID]struct{}{}
	var objects []bytecache.ID
	for i := range entries {
		e := &entries[i]
		first := e.id
		clear(first[bytecache.PageAt : bytecache.PageAt+4])
		if _, known := seen[first]; known {
			continue
		}
		h := hashOf(&e.id)
		c.mu.Lock()
		at := c.table.find(h)
		here := at >= 0 && c.table.locs[at] == location(s.slot, int64(e.off))
		c.mu.Unlock()
		if here {
			seen[first] = struct{}{}
			objects = append(objects, first)
		}
	}
	return objects
}

// forget drops a segment and its pages from memory. Its slot is used again only after the index has
// none of them.
func (c *Cache) forget(s *segment) {
	c.mu.Lock()
	c.order = slices.DeleteFunc(c.order, func(other *segment) bool { return other == s })
	places := len(c.table.tags)
	c.mu.Unlock()
	for from := 0; from < places; from += sweep {
		c.mu.Lock()
		removed := c.table.removeSlot(s.slot, from, sweep)
		c.mu.Unlock()
		c.evictions.Add(removed)
		c.departed.Add(removed)
	}
	c.drop(s)
}

// freeFor reports whether the file system has the bytes free. It removes the oldest segments if it
// has not.
func (c *Cache) freeFor(bytes int64) (bool, error) {
	for {
		free, err := c.disk.free()
		if err != nil || free >= bytes {
			return err == nil, err
		}
		s := c.oldest(-1)
		if s == nil {
			return false, nil
		}
		c.evict(s, c.entries(s))
	}
}

// inPlace reports that the newest segment's file is still the one that a program would open. If it
// is not, because the directory was removed or another disk is mounted, the cache starts again with
// what is there now.
func (c *Cache) inPlace() error {
	c.mu.Lock()
	var newest *segment
	if n := len(c.order); n > 0 {
		newest = c.order[n-1]
	}
	c.mu.Unlock()
	if newest == nil {
		return nil
	}
	own, err := newest.file.Stat()
	if err != nil {
		return err
	}
	found, err := c.dir.Lstat(newest.name)
	if err == nil && os.SameFile(own, found) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	c.disk.gone()
	c.reload()
	return nil
}

// reload begins again with what is on the disk, and logs how much that is.
func (c *Cache) reload() {
	defer c.lost.Add(1)
	c.writer.cur, c.writer.entries = nil, nil
	c.writer.buf, c.writer.batch = c.writer.buf[:0], c.writer.batch[:0]
	for {
		s := c.oldest(-1)
		if s == nil {
			break
		}
		c.forget(s)
	}
	c.load()
	if pages, bytes, ok := c.Kept(); ok {
		c.disk.o.Logger.Info("disk cache starts again with what is on the disk",
			"cache", c.o.Kind, "pages", pages, "bytes", bytes)
	}
}

// check looks after the files and the free space while the cache is used little.
func (c *Cache) check() {
	if c.writer.partial && c.disk.readable() {
		c.reload()
	}
	if !c.disk.writable() {
		return
	}
	if err := c.inPlace(); err != nil {
		c.failed(err)
		return
	}
	c.mu.Lock()
	empty := len(c.order) == 0
	c.mu.Unlock()
	if empty {
		return
	}
	if err := c.disk.o.LockDir(); err != nil {
		c.failed(err)
		return
	}
	if ok, err := c.freeFor(0); err != nil {
		c.failed(err)
	} else if !ok {
		c.failed(fmt.Errorf("too little is free: %w", syscall.ENOSPC))
	}
}
