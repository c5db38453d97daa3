package prefetch_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"larder/benchmarks/dataset"
	"larder/internal/bucket/slots"
	"larder/internal/bytecache"
	"larder/internal/diskcache"
	"larder/internal/pagecache"
	"larder/store/prefetch"
)

// big is a block whose index, of 2 MB, is larger than what a header reads at once.
func big() dataset.Layout { return dataset.WholeMetric("prefetch", 1, 20_000, 30_000) }

// several are blocks of small indexes.
func several() dataset.Layout { return dataset.Medium(1, 20) }

// TestColdQueriesReadNoIndex: after prefetch a query reads nothing of an index from the bucket.
// Header and prefetch together read each byte of an index at most once. A restart reads nothing.
func TestColdQueriesReadNoIndex(t *testing.T) {
	if testing.Short() {
		t.Skip("requests one by one: the race detector finds more in others")
	}
	for _, l := range []dataset.Layout{big(), several()} {
		p := write(t, l)
		p.start(t, options{}, func(t *testing.T, e *env) {
			e.finish(t)
			reads := e.bucket.take()
			if len(reads) == 0 {
				t.Error("nothing was read")
			}
			if n := overlap(reads); n > 0 {
				t.Errorf("%d bytes were read twice: %v", n, reads)
			}
			e.ask(t)
			if reads := e.bucket.take(); len(reads) > 0 {
				t.Errorf("a query read %v", reads)
			}
		})
		p.start(t, options{}, func(t *testing.T, e *env) {
			e.finish(t)
			e.ask(t)
			if reads := e.bucket.take(); len(reads) > 0 {
				t.Errorf("after a restart: %v", reads)
			}
			if n := e.metric(t, "blocks_total", "done"); n != float64(len(l.Blocks)) {
				t.Errorf("%v blocks are done, want %d", n, len(l.Blocks))
			}
		})
	}
}

// TestReadsAreShared: a request that needs what prefetch reads waits for that read. Prefetch does
// not read what a request has read.
func TestReadsAreShared(t *testing.T) {
	for name, o := range map[string]options{
		"prefetch first": {},
		"request first": {prefetch: func(o *prefetch.Options) {
			began := time.Now()
			o.MinRate = -1
			o.Busy = func() bool { return time.Since(began) < time.Minute }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var reads atomic.Int64
			o.before = func(string) error {
				if reads.Add(1) > 2 { // not those of the header
					time.Sleep(time.Second)
				}
				return nil
			}
			write(t, big()).start(t, o, func(t *testing.T, e *env) {
				synctest.Wait()
				e.ask(t)
				e.finish(t)
				// What lies between two stretches that are missing is read along.
				all := e.bucket.take()
				if n := overlap(all); n > 128<<10 {
					t.Errorf("%d bytes were read twice: %v", n, all)
				}
				if e.metric(t, "reads_total", "") == 0 {
					t.Errorf("prefetch read nothing of %v", all)
				}
			})
		})
	}
}

// TestDemandGoesFirst: while requests use all slots, prefetch reads at its least rate, or not at
// all.
func TestDemandGoesFirst(t *testing.T) {
	p := write(t, big())
	for rate, want := range map[int64]bool{-1: false, 64 << 10: true} {
		limiter := slots.New(slots.Options{Max: 4})
		var stop chan struct{} // of the bubble
		var demand sync.WaitGroup
		request := func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				ctx := slots.WithRequest(context.Background(), "tenant")
				if limiter.Acquire(ctx) == nil {
					time.Sleep(10 * time.Millisecond)
					limiter.Release()
				}
			}
		}
		o := options{
			pages: pagecache.Options{Limiter: limiter},
			prefetch: func(o *prefetch.Options) {
				o.MinRate = rate
				stop = make(chan struct{})
				for range 8 {
					demand.Go(request)
				}
			},
		}
		p.data = t.TempDir()
		p.start(t, o, func(t *testing.T, e *env) {
			reads := func() float64 { return float64(len(e.bucket.take())) }
			time.Sleep(5 * time.Second)
			if n := reads(); n != 2 {
				t.Errorf("%v reads in 5 s, want those of the header, 2", n)
			}
			time.Sleep(time.Minute)
			if got := reads() > 0; got != want {
				t.Errorf("at least %d B/s: read is %v, want %v", rate, got, want)
			}
			if got := e.metric(t, "demand_reads_total", "") > 0; got != want {
				t.Errorf("at least %d B/s: became demand is %v, want %v", rate, got, want)
			}
			close(stop)
			demand.Wait()
			e.finish(t)
		})
	}
}

// TestTheNewestThatFit: indexes are read within the limit, newest first. One that was queried comes
// before those that were not.
func TestTheNewestThatFit(t *testing.T) {
	l := several()
	p := write(t, l)
	oldest, newest := l.Blocks[0], l.Blocks[0]
	for _, b := range l.Blocks {
		if b.MinTime < oldest.MinTime {
			oldest = b
		}
		if b.MaxTime > newest.MaxTime {
			newest = b
		}
	}
	const hour = 3_600_000
	o := options{prefetch: func(o *prefetch.Options) { o.MaxBytes = 600 << 10 }}
	p.start(t, o, func(t *testing.T, e *env) {
		e.finish(t)
		skipped := e.metric(t, "skipped_blocks", "budget")
		if done := e.metric(t, "blocks_total", "done"); done < 1 || skipped < 1 ||
			done+skipped != float64(len(l.Blocks)) {
			t.Errorf("%v blocks are done, %v skipped, of %d", done, skipped, len(l.Blocks))
		}
		e.bucket.take()
		e.askRange(t, newest.MaxTime-hour, newest.MaxTime-1)
		if reads := e.bucket.take(); len(reads) > 0 {
			t.Errorf("the newest block: %v", reads)
		}
		e.askRange(t, oldest.MinTime, oldest.MinTime+hour)
		if len(e.bucket.take()) == 0 {
			t.Error("the oldest block was read, too")
		}
		time.Sleep(time.Minute)
		e.finish(t)
		e.bucket.take()
		e.ask(t)
		for _, r := range e.bucket.take() {
			if view := e.Catalog.View(); filepath.Dir(r.name) == view.Blocks[0].ID.String() {
				t.Errorf("a block that was queried: %v", r)
			}
		}
	})
}

// fill writes pages of no block to the disk until all segments were replaced.
func (e *env) fill(t *testing.T) {
	t.Helper()
	for i := range uint32(40 << 20 / (8 << 10)) {
		key := bytecache.Key{Local: 1<<60 | uint64(i), ID: bytecache.ID{1}}
		binary.BigEndian.PutUint32(key.ID[bytecache.PageAt:], i)
		if err := e.index.Fill(
			t.Context(), []bytecache.Key{key}, [][]byte{make([]byte, 8<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait()
	time.Sleep(time.Minute)
}

// TestEvictedIndexesAreNotReadAgain: an index that was evicted without a query is not read again,
// not by the next process either. After a query it is.
func TestEvictedIndexesAreNotReadAgain(t *testing.T) {
	p := write(t, several())
	o := options{index: func(o *diskcache.Options) { o.MaxBytes = 16 << 20 }}
	evicted := func(t *testing.T, e *env) float64 {
		return e.metric(t, "skipped_blocks", "evicted")
	}
	p.start(t, o, func(t *testing.T, e *env) {
		e.finish(t)
		e.fill(t)
		e.bucket.take()
		time.Sleep(2 * time.Hour)
		if reads := e.bucket.take(); len(reads) > 0 || evicted(t, e) == 0 {
			t.Errorf("read again: %v; %v blocks are skipped", reads, evicted(t, e))
		}
	})
	p.start(t, o, func(t *testing.T, e *env) {
		time.Sleep(3 * time.Hour) // after the end of the first process
		e.finish(t)
		if reads := e.bucket.take(); len(reads) > 0 || evicted(t, e) == 0 {
			t.Errorf("read after a restart: %v; %v are skipped", reads, evicted(t, e))
		}
		e.ask(t)
		e.bucket.take()
		time.Sleep(time.Minute)
		e.finish(t)
		if n := evicted(t, e); n > 0 {
			t.Errorf("%v blocks are skipped after a query", n)
		}
	})
}

// TestDisksThatDoNotWrite: nothing is read while the disk writes nothing, because it is unwell or
// because the bytes of the day are used up. Then the rest is read.
func TestDisksThatDoNotWrite(t *testing.T) {
	t.Run("unwell", func(t *testing.T) {
		p := write(t, big())
		file := filepath.Join(p.data, "disk")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p.start(t, options{}, func(t *testing.T, e *env) {
			time.Sleep(10 * time.Minute)
			first := e.bucket.take()
			if e.metric(t, "paused", "") != 1 || e.metric(t, "pending_blocks", "") != 1 {
				t.Errorf("not paused; reads %v", first)
			}
			time.Sleep(10 * time.Minute)
			if reads := e.bucket.take(); len(reads) > 0 {
				t.Errorf("reads while the disk is off: %v", reads)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			e.finish(t)
			e.bucket.take()
			e.ask(t)
			if reads := e.bucket.take(); len(reads) > 0 || e.metric(t, "paused", "") != 0 {
				t.Errorf("when the disk was well a query read %v", reads)
			}
		})
	})
	t.Run("bytes of the day", func(t *testing.T) {
		p := write(t, big())
		o := options{
			disk:     func(o *diskcache.DiskOptions) { o.WritesPerDay = 2 << 20 },
			prefetch: func(o *prefetch.Options) { o.ReadBytes = 256 << 10 },
		}
		p.start(t, o, func(t *testing.T, e *env) {
			time.Sleep(10 * time.Minute)
			if e.metric(t, "paused", "") != 1 || e.metric(t, "pending_blocks", "") != 1 {
				t.Error("not paused")
			}
			e.bucket.take()
			time.Sleep(10 * time.Minute)
			if reads := e.bucket.take(); len(reads) > 0 {
				t.Errorf("reads beyond the bytes of the day: %v", reads)
			}
			time.Sleep(24 * time.Hour)
			e.finish(t)
			e.bucket.take()
			e.ask(t)
			if reads := e.bucket.take(); len(reads) > 0 {
				t.Errorf("on the next day a query read %v", reads)
			}
		})
	})
}

// TestFailures: a block that cannot be read is tried again later, and does not count as waiting.
func TestFailures(t *testing.T) {
	var reads atomic.Int64
	o := options{before: func(string) error {
		if reads.Add(1) == 3 { // the first after those of the header
			return errors.New("the bucket fails")
		}
		return nil
	}}
	write(t, big()).start(t, o, func(t *testing.T, e *env) {
		e.finish(t)
		if n := e.metric(t, "blocks_total", "failed"); n != 1 {
			t.Errorf("%v blocks failed, want 1", n)
		}
		time.Sleep(10 * time.Minute)
		e.finish(t)
		e.bucket.take()
		e.ask(t)
		if reads := e.bucket.take(); len(reads) > 0 {
			t.Errorf("a query read %v", reads)
		}
	})
}
