package diskcache

import (
	"errors"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"larder/internal/bytecache"
	"larder/internal/localfs"
)

// Cache keeps the pages of one kind on a disk. It is safe for concurrent use. Make it with
// Disk.Open.
type Cache struct {
	disk       *Disk
	o          Options
	dir        localfs.Dir
	unregister func()

	requests, hits, hitBytes    atomic.Int64
	added, departed, evictions  atomic.Int64
	tooLarge, crowded, firstUse atomic.Int64
	lost                        atomic.Int64 // see Lost

	wake    chan struct{} // the queue has values
	closing chan struct{}
	stopped chan struct{} // closed when the writer has returned
	loaded  chan struct{} // closed when the index has been read

	mu sync.Mutex // guards following
	// pending are the values that wait to be written, or are being written.
	pending      map[bytecache.ID]*item
	queue        []*item
	queueBytes   int64
	pendingBytes int64 // of pending: a value that is being written stays until it can be read
	changed      chan struct{}
	table        *table
	ghost        *ghost // nil if values are kept on first use
	bySlot       []*segment
	order        []*segment // oldest first; the last may still be written
	fileBytes    int64      // of all segments
	// deleted are the pages that were deleted before the index was read.
	deleted map[bytecache.ID]struct{}
	closed  bool
	kept    kept

	writer writer
}

// kept is what was on the disk when the index was read.
type kept struct {
	pages, bytes int64
	whole        bool
}

// item is a value that waits to be written.
type item struct {
	id    bytecache.ID
	hash  uint64
	value []byte
	gone  bool // deleted; guarded by Cache.mu
	ahead bool // from Fill or Offer
	moved bool // from the record at location from
	from  uint32
}

var _ bytecache.Cache = (*Cache)(nil)

// Open returns a cache on the disk. It reads the index of what an earlier process kept in the
// background. Until then it finds only what has been read, and what is set.
func (d *Disk) Open(o Options) *Cache {
	o = o.withDefaults()
	c := &Cache{
		disk: d, o: o, dir: d.sub(o.Kind),
		wake: make(chan struct{}, 1), closing: make(chan struct{}),
		stopped: make(chan struct{}), loaded: make(chan struct{}),
		pending: map[bytecache.ID]*item{}, changed: make(chan struct{}),
		table: newTable(o.pages()), bySlot: make([]*segment, maxSlots),
		deleted: map[bytecache.ID]struct{}{},
	}
	if o.SecondUse {
		c.ghost = newGhost(o.pages())
	}
	c.writer = writer{c: c}
	c.unregister = bytecache.Register(d.o.Registerer, o.Kind, bytecache.TierDisk, c)
	d.mu.Lock()
	d.caches = append(d.caches, c)
	d.mu.Unlock()
	go c.run()
	return c
}

// Loaded is closed when the index of what an earlier process kept has been read.
func (c *Cache) Loaded() <-chan struct{} { return c.loaded }

// Kept returns how many pages were on the disk when the index was last read, and the bytes of their
// files. ok is false if the index has not been read, or not as a whole.
func (c *Cache) Kept() (pages, bytes int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept.pages, c.kept.bytes, c.kept.whole
}

// Get misses: no value is in the process's memory.
func (c *Cache) Get(uint64) ([]byte, bool) { return nil, false }

// Remote returns true.
func (c *Cache) Remote() bool { return true }

// Set writes a value some time later, unless it is there, is too large, or too many wait. With
// Options.SecondUse, the first Set of a key only remembers it.
func (c *Cache) Set(key bytecache.Key, value []byte) { c.keep(key, value, false, false) }

// Keep is Set of a value that was used a second time. If hot is true and the value is there, it is
// written again before its segment is removed.
func (c *Cache) Keep(key bytecache.Key, value []byte, hot bool) { c.keep(key, value, true, hot) }

func (c *Cache) keep(key bytecache.Key, value []byte, again, hot bool) {
	if int64(len(value)) > c.o.PageBytes {
		c.tooLarge.Add(1)
		return
	}
	h := hashOf(&key.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.pending[key.ID] != nil {
		return
	}
	if at := c.table.find(h); at >= 0 {
		if hot {
			c.table.heat(at)
		}
		return
	}
	if c.ghost != nil && !again && !c.ghost.again(h) {
		c.firstUse.Add(1)
		return
	}
	if !c.disk.writable() || c.queueBytes+int64(len(value)) > c.o.QueueBytes {
		c.crowded.Add(1)
		return
	}
	c.enqueue(&item{id: key.ID, hash: h, value: value})
}

// enqueue adds a value to the queue. The caller holds c.mu.
func (c *Cache) enqueue(it *item) {
	c.pending[it.id] = it
	c.queue = append(c.queue, it)
	c.queueBytes += int64(len(it.value))
	c.pendingBytes += recordBytes(int64(len(it.value)))
	c.added.Add(1)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Del removes a value. Its record stays in its segment: if the process is killed before the segment
// is removed, the next process finds it again.
func (c *Cache) Del(key bytecache.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if it := c.pending[key.ID]; it != nil {
		it.gone = true
		c.settle(it)
		c.departed.Add(1)
	}
	if at := c.table.find(hashOf(&key.ID)); at >= 0 {
		c.table.remove(at)
		c.departed.Add(1)
	}
	if c.deleted != nil {
		c.deleted[key.ID] = struct{}{}
	}
}

// settle ends the wait of a value. The caller holds c.mu.
func (c *Cache) settle(it *item) {
	if c.pending[it.id] == it {
		delete(c.pending, it.id)
		c.pendingBytes -= recordBytes(int64(len(it.value)))
	}
}

// Stats returns a snapshot; its counts are not from one instant.
func (c *Cache) Stats() bytecache.Stats {
	st := bytecache.Stats{
		Requests: c.requests.Load(), Hits: c.hits.Load(), HitBytes: c.hitBytes.Load(),
		Evictions: c.evictions.Load(), Departed: c.departed.Load(), Added: c.added.Load(),
		TooLarge: c.tooLarge.Load(), Crowded: c.crowded.Load(), Refused: c.firstUse.Load(),
		MaxBytes: c.o.MaxBytes,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st.Items = c.table.used + int64(len(c.pending))
	st.PendingBytes = c.pendingBytes
	st.Bytes = c.fileBytes + c.pendingBytes
	st.ValueBytes = st.Bytes
	return st
}

// Close writes what waits to be written, as far as the disk does so in time, and makes every
// look-up a miss.
func (c *Cache) Close() {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.mu.Unlock()
	if was {
		<-c.stopped
		return
	}
	close(c.closing)
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-c.stopped:
	case <-timer.C:
	}
	c.mu.Lock()
	segments := c.order
	c.order = nil
	c.mu.Unlock()
	for _, s := range segments {
		c.drop(s)
	}
	c.disk.mu.Lock()
	for i, other := range c.disk.caches {
		if other == c {
			c.disk.caches = append(c.disk.caches[:i:i], c.disk.caches[i+1:]...)
			break
		}
	}
	c.disk.mu.Unlock()
	c.unregister()
}

// drop gives up a segment. The last reader closes its file.
func (c *Cache) drop(s *segment) {
	c.mu.Lock()
	was := s.gone
	s.gone = true
	if !was {
		c.bySlot[s.slot] = nil
		c.fileBytes -= s.size
	}
	unread := !was && s.readers == 0
	c.mu.Unlock()
	if unread {
		_ = s.file.Close() // what matters was synced, and is verified when it is read
	}
}

// release ends a read of a segment.
func (c *Cache) release(s *segment) {
	c.mu.Lock()
	s.readers--
	last := s.gone && s.readers == 0
	c.mu.Unlock()
	if last {
		_ = s.file.Close() // as in drop
	}
}

// probe reads the start of a segment. Without a segment, it reads the start of a file that may be
// one, because the index of a disk that failed at the start has none.
func (c *Cache) probe() error {
	c.mu.Lock()
	var s *segment
	for _, found := range c.order {
		if found.size > headerBytes {
			s = found
			s.readers++
			break
		}
	}
	c.mu.Unlock()
	if s == nil {
		return c.probeFiles()
	}
	defer c.release(s)
	var b [headerBytes]byte
	return readFull(s.file, b[:], 0)
}

// probeFiles reads the start of the first segment's file in the directory.
func (c *Cache) probeFiles() error {
	names, err := c.dir.Names()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	i := slices.IndexFunc(names, func(name string) bool { _, ok := segmentSeq(name); return ok })
	if i < 0 {
		return nil
	}
	f, err := c.dir.Open(names[i])
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, localfs.ErrSpecial) {
		return nil // load skips it, too
	}
	if err != nil {
		return err
	}
	s := c.disk.wrap(f)
	_, err = rightHeader(s, c.o.Kind)
	return errors.Join(err, s.Close())
}
