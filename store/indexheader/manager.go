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

	"larder/internal/panics"
)

// Manager owns the index headers of a process: it builds, opens, closes and forgets them.
//
// One lock, mu, guards all of its state and that of its entries; nothing waits and nothing is read
// or written while it is held. An entry's fileMu orders the renaming and the removal of its file
// and is taken without mu.
type Manager struct {
	opts   Options
	fetch  *fetcher
	look   *lookups
	met    *metrics
	panics *panics.Guard
	// step is called before each step of a build that a crash may follow. Tests replace it before
	// the first build.
	step func(name string) error

	ctx    context.Context // of everything that runs in the background
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	saving chan struct{} // a place for each header that is being saved

	mu        sync.Mutex
	closed    bool
	entries   map[ulid.ULID]*entry
	idle      *list.List // of *entry: open and not in use, the least recently used in front
	openCount int
	openBytes int64
	builds    buildQueue
	dead      []*reader           // to be closed when mu is released
	diskBad   bool                // the last file could not be written
	unsaved   map[*entry]struct{} // whose open header has no file
	// closed and replaced whenever a flight ends or an entry is forgotten
	settled chan struct{}
}

// entry is what is known of one block.
type entry struct {
	src  Source
	refs int // look-ups, waiters, a running persist: h is not closed while there are any
	h    *Header
	heap int64 // what h counts in openBytes

	idleAt   *list.Element
	lastUsed time.Time
	flight   *flight
	queuePos int  // in the prefetch queue, -1 if it is not there
	prepared bool // there is a file, or there was a header in memory: nothing to prefetch
	gone     bool // forgotten: no longer in entries
	wanted   bool // somebody acquired h, which was not opened for nothing
	saving   int  // files that are being synced and given their name

	fileMu sync.Mutex
}

// New returns a manager of the headers in opts.Dir. It removes what interrupted builds have left
// there. A directory that cannot be used is no error: headers are in memory until it can.
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
			bytes: semaphore.NewWeighted(opts.BuildBytes),
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

// unlock releases mu and closes what was taken out under it.
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

// entryOf returns the entry of a block, which it makes if need be. One of what the block has held
// before is forgotten, and the error for whoever still asks for that is ErrReplaced. Its file stays
// where it is: it is stale, and the new one takes its place. mu is held.
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

// replaced reports whether a block is known with later content than src has. mu is held.
func (m *Manager) replaced(src Source) bool {
	e := m.entries[src.ID]
	return e != nil && e.src.Content != src.Content && e.src.Number > src.Number
}

// Acquire returns the header of a block, opened, or built if need be. It waits until ctx is done,
// and what it waits for goes on as long as anybody else waits. The header may be used until release
// is called, once.
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
	// INVARIANT: a flight that ended well has set h, and it stays while refs is not 0.
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

// idles says that an open header is not in use. One that nobody has asked for yet is the first to
// go. mu is held.
func (m *Manager) idles(e *entry) {
	e.lastUsed = time.Now()
	if e.wanted {
		e.idleAt = m.idle.PushBack(e)
	} else {
		e.idleAt = m.idle.PushFront(e)
	}
}

// evict closes headers that are not in use until the rest is within the allowances. mu is held.
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

// closeHeader closes the header of an entry that nobody uses. mu is held.
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

// install makes a reader the entry's. mu is held.
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

// Prefetch has the headers of blocks built in the background, the newest first, unless they are
// there. Those whose build failed are tried again only when Prefetch or Acquire is called for them
// again.
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

// dispatch starts background builds while there is room for them. mu is held.
func (m *Manager) dispatch() {
	for !m.closed && m.builds.queue.Len() > 0 {
		e := m.builds.queue[0]
		if (m.opts.Dir.IsZero() || m.diskBad) && m.openBytes >= m.opts.MaxOpenBytes {
			// Headers in memory that nobody asked for must not push out those that somebody did.
			m.builds.queue.remove(e)
			m.notify()
			continue
		}
		if !m.builds.tryAcquireBackground(e.src.weight()) {
			return
		}
		m.builds.queue.remove(e)
		m.launch(context.Background(), e, &flight{background: true})
	}
}

// notify wakes those in Wait. mu is held.
func (m *Manager) notify() {
	close(m.settled)
	m.settled = make(chan struct{})
}

// Wait returns when none of the blocks is queued, being built or being saved any more: each has its
// header, or its build has failed (which was logged and counted), or nobody has asked for it. The
// error is ctx's.
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

// Opened tells whether the header of a block was built, now or by an earlier process, so that a
// query need not wait for its build.
func (m *Manager) Opened(id ulid.ULID) bool {
	m.mu.Lock()
	defer m.unlock()
	e := m.entries[id]
	return e != nil && (e.h != nil || e.prepared)
}

// Forget says that a block is served no longer. Its header is closed when the last user releases
// it; its file is removed at once.
func (m *Manager) Forget(id ulid.ULID) {
	m.mu.Lock()
	e := m.entries[id]
	if e == nil {
		// A file of an earlier run, perhaps.
		m.unlock()
		m.removeFile(&entry{src: Source{ID: id}})
		return
	}
	m.forget(e)
	m.unlock()
	m.removeFile(e)
}

// forget is Forget but for the file. mu is held.
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

// Keep forgets every block that keep does not want. Forget alone is not enough where blocks leave:
// a request that had begun before may ask for the header of one afterwards, and nobody would say
// again that it is gone.
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

// Retain removes the files of blocks that keep does not want and that nobody has asked for: what
// blocks that left the bucket while no process ran have left behind. Call it when the blocks are
// known completely.
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

// Close ends all builds and closes all headers; those in use are closed when they are released. It
// returns when nothing runs any more.
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
