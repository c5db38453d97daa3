package indexheader

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/semaphore"

	"larder/internal/bucket/slots"
	"larder/internal/panics"
	"larder/internal/tsdbfmt"
)

// Manager owns the index headers of a process: it builds, opens, closes and forgets them.
//
// mu guards its state and that of its entries. Nothing waits, reads or writes while it is held. An
// entry's fileMu orders the naming and the removal of its file, and is taken without mu.
type Manager struct {
	opts   Options
	fetch  *fetcher
	look   *lookups
	met    *metrics
	panics *panics.Guard
	// step is called before each step of a build. Tests replace it before the first build, to stop
	// there.
	step func(name string) error

	ctx    context.Context // of all background work
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	saving chan struct{} // one element for each header that is being saved

	mu        sync.Mutex
	closed    bool
	entries   map[ulid.ULID]*entry
	idle      *list.List // of *entry: open and unused, the least recently used first
	openCount int
	openBytes int64
	builds    buildQueue
	dead      []*reader           // to be closed when mu is released
	diskBad   bool                // the last write to the disk failed
	unsaved   map[*entry]struct{} // entries whose open header has no file
	// settled is closed and replaced whenever a flight ends or an entry is forgotten.
	settled chan struct{}
}

// entry has the state of one block.
type entry struct {
	src  Source
	refs int // look-ups, waiters and a running save; h stays open while refs > 0
	h    *Header
	heap int64 // share of h in openBytes

	idleAt   *list.Element
	lastUsed time.Time
	flight   *flight
	queuePos int  // in the prefetch queue, -1 if it is not queued
	prepared bool // there is a file, or there was a header in memory: nothing to prefetch
	gone     bool // forgotten: no longer in entries
	wanted   bool // h was acquired since it was opened
	saving   int  // saves that are running

	fileMu sync.Mutex
}

// New returns a manager of the headers in opts.Dir. It removes files of interrupted builds. A
// directory that cannot be used is no error: headers are kept in memory until it can.
func New(opts Options) (*Manager, error) {
	if opts.Bucket == nil {
		return nil, errors.New("index headers: no bucket")
	}
	opts = opts.withDefaults()
	guard := panics.New("header", opts.Logger, opts.Registerer)
	m := &Manager{
		opts:   opts,
		panics: guard,
		fetch: &fetcher{
			bkt: opts.Bucket, panics: guard, partSize: opts.PartSize, timeout: opts.ReadTimeout,
			bytes: semaphore.NewWeighted(opts.BuildBytes), page: opts.PageSize, onRead: opts.OnRead,
		},
		look:    newLookups(opts.BlockCacheBytes),
		step:    func(string) error { return nil },
		entries: map[ulid.ULID]*entry{},
		unsaved: map[*entry]struct{}{},
		idle:    list.New(),
		settled: make(chan struct{}),
		saving:  make(chan struct{}, savers),
	}
	m.builds.size = opts.BuildConcurrency * buildUnits
	m.builds.background = max(buildUnits, m.builds.size/2)
	m.met = newMetrics(m, opts.Registerer)
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	if opts.IdleTimeout > 0 {
		m.wg.Go(m.closeIdle)
	}
	if !opts.Dir.IsZero() {
		if err := m.prepareDir(); err != nil {
			m.diskFailed("directory of the index headers", nil, err)
		}
		m.wg.Go(m.saveLater)
	}
	return m, nil
}

// unlock releases mu and closes the readers in dead.
func (m *Manager) unlock() {
	dead := m.dead
	m.dead = nil
	m.mu.Unlock()
	for _, r := range dead {
		if err := r.close(); err != nil {
			m.met.lazyUnloadFailures.Inc()
			m.opts.Logger.Warn("close index header", "block", r.id, "err", err)
		}
	}
}

// entryOf returns the entry of a block, and creates it if necessary. It forgets an entry of earlier
// contents of the block, whose file is stale and will be overwritten. For src with earlier contents
// than the entry's it returns ErrReplaced. mu is held.
func (m *Manager) entryOf(src Source) (*entry, error) {
	if m.replaced(src) {
		return nil, ErrReplaced
	}
	e := m.entries[src.ID]
	if e != nil && e.src.Content != src.Content {
		m.forget(e)
		e = nil
	}
	if e == nil {
		e = &entry{src: src, queuePos: -1}
		m.entries[src.ID] = e
	}
	return e, nil
}

// replaced reports whether the block is known with later contents than those of src. mu is held.
func (m *Manager) replaced(src Source) bool {
	e := m.entries[src.ID]
	return e != nil && e.src.Content != src.Content && e.src.Number > src.Number
}

// Acquire returns the header of a block. It opens or builds the header if necessary, and waits for
// that until ctx is done. A build continues while any caller waits for it. The header may be used
// until release is called.
func (m *Manager) Acquire(ctx context.Context, src Source) (h *Header, release func(), err error) {
	m.mu.Lock()
	if m.closed {
		m.unlock()
		return nil, nil, ErrClosed
	}
	e, err := m.entryOf(src)
	if err != nil {
		m.unlock()
		return nil, nil, err
	}
	m.ref(e)
	if e.h == nil {
		fl := m.join(ctx, e, flight{})
		m.unlock()
		err := m.wait(ctx, e, fl)
		m.mu.Lock()
		if err != nil {
			m.unref(e)
			m.unlock()
			return nil, nil, err
		}
	}
	e.wanted = true
	// INVARIANT: a successful flight has set h, which stays open while refs > 0.
	h = e.h
	m.unlock()
	var once sync.Once
	return h, func() {
		once.Do(func() {
			m.mu.Lock()
			m.unref(e)
			m.unlock()
		})
	}, nil
}

// ref keeps the entry's header open. mu is held.
func (m *Manager) ref(e *entry) {
	e.refs++
	if e.idleAt != nil {
		m.idle.Remove(e.idleAt)
		e.idleAt = nil
	}
}

// unref undoes ref. mu is held.
func (m *Manager) unref(e *entry) {
	e.refs--
	if e.refs > 0 || e.h == nil {
		return
	}
	m.dead = append(m.dead, e.h.retired...)
	e.h.retired = nil
	if e.gone || m.closed {
		m.closeHeader(e)
		return
	}
	m.idles(e)
	m.evict()
}

// idles marks an open header as unused. One that was never acquired is evicted first. mu is held.
func (m *Manager) idles(e *entry) {
	e.lastUsed = time.Now()
	if e.wanted {
		e.idleAt = m.idle.PushBack(e)
	} else {
		e.idleAt = m.idle.PushFront(e)
	}
}

// evict closes unused headers until the rest fits the allowances. mu is held.
func (m *Manager) evict() {
	for m.openBytes > m.opts.MaxOpenBytes || m.openCount > m.opts.MaxOpenFiles {
		front := m.idle.Front()
		if front == nil {
			return
		}
		m.closeHeader(front.Value.(*entry))
		m.met.lazyUnloads.Inc()
	}
}

// closeHeader closes the unused header of an entry. mu is held.
func (m *Manager) closeHeader(e *entry) {
	if e.idleAt != nil {
		m.idle.Remove(e.idleAt)
		e.idleAt = nil
	}
	m.dead = append(append(m.dead, e.h.retired...), e.h.cur.Load())
	m.openCount--
	m.openBytes -= e.heap
	e.h, e.heap, e.wanted = nil, 0, false
	delete(m.unsaved, e)
}

// install makes r the reader of the entry. mu is held.
func (m *Manager) install(e *entry, r *reader) {
	m.openBytes += r.heap - e.heap
	e.heap = r.heap
	if e.h != nil {
		e.h.retired = append(e.h.retired, e.h.cur.Swap(r))
		return
	}
	e.h = &Header{m: m, e: e}
	e.h.cur.Store(r)
	m.openCount++
	if e.refs == 0 {
		m.idles(e)
	}
	m.evict()
}

// closeIdle closes headers that were not used for a while.
func (m *Manager) closeIdle() {
	t := time.NewTicker(max(time.Millisecond, min(m.opts.IdleTimeout/10, time.Minute)))
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-m.ctx.Done():
			return
		}
		m.mu.Lock()
		var next *list.Element
		for el := m.idle.Front(); el != nil; el = next {
			next = el.Next()
			if e := el.Value.(*entry); time.Since(e.lastUsed) >= m.opts.IdleTimeout {
				m.closeHeader(e)
				m.met.lazyUnloads.Inc()
			}
		}
		m.unlock()
	}
}

// Prefetch builds missing headers in the background, those of the newest blocks first. A failed
// build is repeated only by another call of Prefetch or Acquire.
func (m *Manager) Prefetch(srcs []Source) {
	m.mu.Lock()
	defer m.unlock()
	if m.closed {
		return
	}
	for _, src := range srcs {
		if e, err := m.entryOf(src); err == nil && !e.prepared && e.h == nil && e.flight == nil {
			m.builds.queue.add(e)
		}
	}
	m.dispatch()
}

// dispatch starts background builds while the build queue admits them. mu is held.
func (m *Manager) dispatch() {
	for !m.closed && m.builds.queue.Len() > 0 {
		e := m.builds.queue[0]
		if (m.opts.Dir.IsZero() || m.diskBad) && m.openBytes >= m.opts.MaxOpenBytes {
			// Prefetched headers in memory must not evict headers that were requested.
			m.builds.queue.remove(e)
			m.notify()
			continue
		}
		if !m.builds.tryAcquireBackground(e.src.weight()) {
			return
		}
		m.builds.queue.remove(e)
		m.launch(slots.Background(context.Background()), e, &flight{background: true})
	}
}

// notify wakes the callers of Wait. mu is held.
func (m *Manager) notify() {
	close(m.settled)
	m.settled = make(chan struct{})
}

// Wait waits until none of the blocks is queued, being built or being saved. Each then has its
// header, or its build has failed (which was logged and counted), or its header was never
// requested. The error is that of ctx, or ErrClosed.
func (m *Manager) Wait(ctx context.Context, ids []ulid.ULID) error {
	for {
		m.mu.Lock()
		busy := false
		for len(ids) > 0 && !busy {
			e := m.entries[ids[len(ids)-1]]
			if busy = e != nil && (e.queuePos >= 0 || e.flight != nil || e.saving > 0); !busy {
				ids = ids[:len(ids)-1]
			}
		}
		settled := m.settled
		closed := m.closed
		m.unlock()
		switch {
		case closed:
			return ErrClosed
		case !busy:
			return nil
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Opened reports whether the header of a block has been built, by this process or an earlier one,
// so that a query does not have to wait for its build.
func (m *Manager) Opened(id ulid.ULID) bool {
	m.mu.Lock()
	defer m.unlock()
	e := m.entries[id]
	return e != nil && (e.h != nil || e.prepared)
}

// TOC returns the table of contents of a block's index if its header has been built. It does not
// use the header, and does not keep it open.
func (m *Manager) TOC(src Source) (toc tsdbfmt.TOC, ok bool) {
	m.mu.Lock()
	e := m.entries[src.ID]
	if e == nil || e.src.Content != src.Content || e.h == nil && !e.prepared {
		m.unlock()
		return tsdbfmt.TOC{}, false
	}
	if e.h != nil {
		toc = e.h.TOC()
		m.unlock()
		return toc, true
	}
	m.unlock()
	f, err := openFile(m.opts.Dir, src.ID)
	if err != nil {
		return tsdbfmt.TOC{}, false
	}
	r, err := open(f, src, m.look)
	if err != nil {
		_ = f.Close() // nothing was written
		return tsdbfmt.TOC{}, false
	}
	defer func() { _ = r.close() }() // as above
	return r.toc, true
}

// Forget drops a block that is no longer served. Its header is closed when the last caller releases
// it, and its file is removed at once.
func (m *Manager) Forget(id ulid.ULID) {
	m.mu.Lock()
	e := m.entries[id]
	if e == nil {
		// There may be a file of an earlier process.
		m.unlock()
		m.removeFile(&entry{src: Source{ID: id}})
		return
	}
	m.forget(e)
	m.unlock()
	m.removeFile(e)
}

// forget does the same as Forget, except for the file. mu is held.
func (m *Manager) forget(e *entry) {
	delete(m.entries, e.src.ID)
	e.gone = true
	m.builds.queue.remove(e)
	if fl := e.flight; fl != nil && fl.waiters == 0 {
		e.flight = nil
		fl.cancel(context.Canceled)
	}
	if e.refs == 0 && e.h != nil {
		m.closeHeader(e)
	}
	m.notify()
}

// Keep forgets every block for which keep returns false. Forget alone is not enough, because a
// running request may acquire the header of a block after it was forgotten.
func (m *Manager) Keep(keep func(ulid.ULID) bool) {
	m.mu.Lock()
	known := slices.Collect(maps.Keys(m.entries))
	m.unlock()
	for _, id := range known {
		if !keep(id) {
			m.Forget(id)
		}
	}
}

// Retain removes the files of blocks for which keep returns false and whose header was never
// requested. These blocks have left the bucket while no process ran. Call it once all blocks are
// known.
func (m *Manager) Retain(keep func(ulid.ULID) bool) error {
	if m.opts.Dir.IsZero() {
		return nil
	}
	ids, err := filesIn(m.opts.Dir)
	if err != nil {
		return fmt.Errorf("directory of the index headers: %w", err)
	}
	for _, id := range ids {
		m.mu.Lock()
		_, known := m.entries[id]
		m.unlock()
		if !known && !keep(id) {
			m.removeFile(&entry{src: Source{ID: id}})
		}
	}
	return nil
}

// removeFile removes the entry's file, if there is one. mu is not held.
func (m *Manager) removeFile(e *entry) {
	if m.opts.Dir.IsZero() {
		return
	}
	e.fileMu.Lock()
	err := m.opts.Dir.Remove(fileName(e.src.ID))
	e.fileMu.Unlock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.opts.Logger.Warn("remove index header", "block", e.src.ID, "err", err)
	}
}

// Close cancels all builds and closes all headers. Headers in use are closed when they are
// released. It waits for all goroutines.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	for m.builds.queue.Len() > 0 {
		m.builds.queue.remove(m.builds.queue[0])
	}
	m.cancel(ErrClosed)
	m.notify()
	m.unlock()
	m.wg.Wait()
	m.mu.Lock()
	for _, e := range m.entries {
		if e.refs == 0 && e.h != nil {
			m.closeHeader(e)
		}
	}
	m.unlock()
}
