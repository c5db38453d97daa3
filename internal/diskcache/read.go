package diskcache

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"larder/internal/bucket/cost"
	"larder/internal/bytecache"
)

const (
	// maxGap is the longest gap between two records that are read together.
	maxGap = 32 << 10
	// maxExtent bounds one read.
	maxExtent = 512 << 10
	// workersPerFetch bounds the reads of one look-up that run at the same time.
	workersPerFetch = 8
	// minBypass is the shortest stretch of pages that may be left to the bucket.
	minBypass = 512 << 10
	// minMeasured is how many short reads, and how many long ones, the disk must have answered
	// before that. Every remeasure-th stretch is read all the same, to see whether the disk became
	// faster.
	minMeasured = 32
	remeasure   = 16
)

// wanted is a page that the index says is on the disk.
type wanted struct {
	at  int // index in the look-up's keys
	seg *segment
	off int64
}

// extent is one read of a segment: records that lie near one another.
type extent struct {
	seg      *segment
	off, end int64
	pages    []wanted
}

// fetch is one look-up while its reads run. They may outlive it.
type fetch struct {
	c       *Cache
	keys    []bytecache.Key
	extents []extent
	ctx     context.Context // ends with the look-up
	done    chan struct{}   // closed when all extents were read

	mu      sync.Mutex // guards following
	found   [][]byte   // by index of keys
	next    int        // extent
	left    int        // extents
	running int        // reads
	over    bool       // the look-up has returned
}

// Fetch sets the values that are nil and that it finds in time. It does not wait for reads beyond
// its deadline, which go on and are dropped.
func (c *Cache) Fetch(
	ctx context.Context, keys []bytecache.Key, values [][]byte,
) (found bytecache.Found) {
	missing, pages := c.lookUp(keys, values, &found)
	defer func() {
		c.requests.Add(missing)
		c.hits.Add(found.DiskItems)
		c.hitBytes.Add(found.DiskBytes)
	}()
	extents := c.plan(pages)
	extents = c.bypass(keys, extents)
	if len(extents) == 0 {
		return found
	}
	if ctx.Err() != nil {
		for _, e := range extents {
			c.release(e.seg)
		}
		return found
	}
	// The look-up does not end with ctx: a read that its request no longer waits for would look
	// like one that hangs.
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.disk.timeout())
	defer cancel()
	f := &fetch{
		c: c, keys: slices.Clone(keys), extents: extents, ctx: limited,
		done: make(chan struct{}), found: make([][]byte, len(keys)), left: len(extents),
	}
	for range min(len(extents), workersPerFetch) {
		go f.work()
	}
	select {
	case <-f.done:
	case <-limited.Done():
	}
	stuck := f.end()
	if stuck >= 0 {
		c.disk.timedOut(stuck)
	}
	for i, b := range f.found {
		if b != nil {
			values[i] = b
			found.DiskItems++
			found.DiskBytes += int64(len(b))
		}
	}
	return found
}

// lookUp sets the values that wait to be written, and returns the number of values that were
// missing, and the pages that the index has. It counts a reader of the segment of each.
func (c *Cache) lookUp(
	keys []bytecache.Key, values [][]byte, found *bytecache.Found,
) (missing int64, pages []wanted) {
	readable := c.disk.readable()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, nil
	}
	for i := range keys {
		if values[i] != nil {
			continue
		}
		missing++
		if it := c.pending[keys[i].ID]; it != nil {
			values[i] = it.value
			found.DiskItems++
			found.DiskBytes += int64(len(it.value))
			continue
		}
		if !readable {
			continue
		}
		at := c.table.find(hashOf(&keys[i].ID))
		if at < 0 {
			continue
		}
		loc := c.table.locs[at]
		s := c.bySlot[loc>>unitBits]
		if s == nil {
			continue
		}
		c.table.heat(at)
		s.readers++
		pages = append(pages, wanted{at: i, seg: s, off: int64(loc&(1<<unitBits-1)) * unit})
	}
	return missing, pages
}

// plan returns the reads for pages. Each has one reader of its segment.
func (c *Cache) plan(pages []wanted) []extent {
	slices.SortFunc(pages, func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.seg.seq, b.seg.seq), cmp.Compare(a.off, b.off))
	})
	record := recordBytes(c.o.PageBytes)
	var extents []extent
	for _, p := range pages {
		end := p.off + record
		if n := len(extents); n > 0 {
			last := &extents[n-1]
			if last.seg == p.seg && p.off <= last.end+maxGap && end-last.off <= maxExtent {
				last.end = max(last.end, end)
				last.pages = append(last.pages, p)
				c.release(p.seg)
				continue
			}
		}
		extents = append(extents, extent{seg: p.seg, off: p.off, end: end, pages: []wanted{p}})
	}
	return extents
}

// bypass removes the reads of long stretches of neighbouring pages that the bucket is expected to
// read sooner. The pages of a stretch are consecutive keys.
func (c *Cache) bypass(keys []bytecache.Key, extents []extent) []extent {
	d := c.disk
	if d.o.Bucket == nil || d.short.Load() < minMeasured || d.long.Load() < minMeasured ||
		int64(len(keys))*c.o.PageBytes < minBypass {
		return extents
	}
	reads, total, longest := 0, int64(0), int64(0)
	first, last, pages := len(keys), -1, 0
	for _, e := range extents {
		reads++
		total += e.end - e.off
		longest = max(longest, e.end-e.off)
		for _, p := range e.pages {
			first, last, pages = min(first, p.at), max(last, p.at), pages+1
		}
	}
	// Only a stretch without holes is one or a few reads of the bucket.
	stretch := int64(pages) * c.o.PageBytes
	if pages == 0 || last-first+1 != pages || stretch < minBypass ||
		!adjoin(keys[first], keys[last], pages) {
		return extents
	}
	rounds := (reads + workersPerFetch - 1) / workersPerFetch
	disk := d.model().Reads(rounds, reads, int64(rounds)*longest, total)
	bucket := d.o.Bucket()
	whole := bucket.Plan([]cost.Extent{{Off: 0, End: stretch}}, c.o.PageBytes)
	if disk <= bucket.Cost(whole) || d.bypasses.Add(1)%remeasure == 0 {
		return extents
	}
	d.metrics.bypassed.Add(float64(pages))
	for _, e := range extents {
		c.release(e.seg)
	}
	return nil
}

// adjoin reports whether the pages from first to last, which are n, are neighbours.
func adjoin(first, last bytecache.Key, n int) bool {
	return last.Local-first.Local == uint64(n-1)
}

// work reads extents until none is left.
func (f *fetch) work() {
	for {
		f.mu.Lock()
		i := f.next
		f.next++
		f.mu.Unlock()
		if i >= len(f.extents) {
			return
		}
		e := &f.extents[i]
		_ = f.c.disk.panics.Do(func() error { f.read(e); return nil })
		f.c.release(e.seg)
		f.mu.Lock()
		if f.left--; f.left == 0 {
			close(f.done)
		}
		f.mu.Unlock()
	}
}

// read reads one extent and keeps the values that verify, unless the look-up is over.
func (f *fetch) read(e *extent) {
	d := f.c.disk
	select {
	case d.reads <- struct{}{}:
		defer func() { <-d.reads }()
	case <-f.ctx.Done():
		return
	}
	f.mu.Lock()
	if f.over {
		f.mu.Unlock()
		return
	}
	f.running++
	f.mu.Unlock()
	f.c.mu.Lock()
	end := min(e.end, e.seg.size)
	f.c.mu.Unlock()
	p := d.buffers.Get().(*[]byte)
	defer d.buffers.Put(p)
	if int64(len(*p)) < end-e.off {
		*p = make([]byte, end-e.off)
	}
	b := (*p)[:max(end-e.off, 0)]
	start := time.Now()
	err := readFull(e.seg.file, b, e.off)
	took := time.Since(start)
	f.mu.Lock()
	f.running--
	over := f.over
	f.mu.Unlock()
	if over {
		d.freed()
		return
	}
	d.readDone(took, int64(len(b)), err)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		b = nil // another program has shortened the file
	} else if err != nil {
		return
	}
	values := make([][]byte, len(e.pages))
	for i, w := range e.pages {
		record := b[min(w.off-e.off, int64(len(b))):]
		values[i] = f.c.verified(&f.keys[w.at].ID, record, e.seg, w.off)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return
	}
	for i, w := range e.pages {
		f.found[w.at] = values[i]
	}
}

// verified returns a copy of the value of the record at the start of b, or nil if it is not that of
// id. It then drops the page, so that it is written again.
func (c *Cache) verified(id *bytecache.ID, b []byte, s *segment, off int64) []byte {
	found, value, err := parseRecord(b)
	if err == nil && *found == *id {
		return append(make([]byte, 0, len(value)), value...)
	}
	if err != nil {
		c.disk.metrics.corrupt.Inc()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.table.find(hashOf(id))
	if at >= 0 && c.table.locs[at] == location(s.slot, off) && !s.gone {
		c.table.remove(at)
		c.departed.Add(1)
	}
	return nil
}

// end ends the look-up. It returns the number of reads that have not returned, or -1 if all extents
// were read.
func (f *fetch) end() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	if f.left == 0 {
		return -1
	}
	return f.running
}
