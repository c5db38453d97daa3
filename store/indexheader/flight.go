package indexheader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"larder/internal/bucket/slots"
	"larder/internal/localfs"
	"larder/internal/telemetry"
)

// flight opens or builds one header. Any number of look-ups wait for it. Manager.mu guards waiters.
// err is set before done is closed.
type flight struct {
	done       chan struct{}
	err        error
	cancel     context.CancelCauseFunc
	share      func(waiter context.Context) // makes its reads as urgent as the waiter's
	waiters    int
	starter    context.Context // of the request that launched it
	background bool            // continues without waiters
	again      bool            // the file is damaged: build without opening it
	inMemory   bool            // build in memory, and do not write another file now
}

// join returns the entry's flight, or launches start if there is none. The caller must wait for it.
// mu is held, and the entry is referenced.
func (m *Manager) join(ctx context.Context, e *entry, start flight) *flight {
	if e.flight == nil {
		m.builds.queue.remove(e)
		m.launch(ctx, e, &start)
	}
	e.flight.waiters++
	return e.flight
}

// launch starts a flight. It has the values of ctx but not its end. mu is held.
func (m *Manager) launch(ctx context.Context, e *entry, fl *flight) {
	fl.done, fl.starter = make(chan struct{}), ctx
	ctx, stop := context.WithTimeoutCause(context.WithoutCancel(ctx), m.opts.BuildTimeout,
		fmt.Errorf("not ready after %s: %w", m.opts.BuildTimeout, context.DeadlineExceeded))
	ctx, fl.share = slots.Share(ctx)
	ctx, fl.cancel = context.WithCancelCause(ctx)
	unlink := context.AfterFunc(m.ctx, func() { fl.cancel(context.Cause(m.ctx)) })
	e.flight = fl
	m.wg.Go(func() {
		defer stop()
		defer unlink()
		defer fl.cancel(nil)
		m.fly(ctx, e, fl)
	})
}

// wait waits for a joined flight. A wait for a flight that the request has not launched has a span.
func (m *Manager) wait(ctx context.Context, e *entry, fl *flight) error {
	fl.share(ctx)
	if fl.starter != ctx {
		defer telemetry.AwaitShared(ctx, "index_header_shared", fl.starter,
			attribute.String("block", e.src.ID.String()))()
	}
	select {
	case <-fl.done:
		return fl.err
	case <-ctx.Done():
	}
	m.mu.Lock()
	fl.waiters--
	if fl.waiters == 0 && !fl.background {
		// Joining and leaving happen under one lock, so no caller can join a cancelled flight.
		if e.flight == fl {
			e.flight = nil
		}
		fl.cancel(context.Cause(ctx))
	}
	m.unlock()
	return fmt.Errorf("wait for the index header of block %s: %w", e.src.ID, context.Cause(ctx))
}

// loaded is the result of a flight.
type loaded struct {
	r *reader
	// What remains to be saved once no caller waits: file is a complete header without a name,
	// unnamed is one without a file.
	file    *fileOutput
	unnamed storage
}

func (l *loaded) unsaved() bool { return l.file != nil || l.unnamed != nil }

// fly loads a header and installs it. Then it names the file, so that no caller waits for the disk.
func (m *Manager) fly(ctx context.Context, e *entry, fl *flight) {
	started := time.Now()
	l, err := m.load(ctx, e, fl)
	switch {
	// No fault: another flight follows.
	case errors.Is(err, ErrReplaced), fl.background && errors.Is(err, context.Canceled):
	case err != nil && fl.background:
		m.opts.Logger.Warn("background build failed", "block", e.src.ID, "err", err)
	case !fl.background && !fl.again:
		m.met.lazyLoads.Inc()
		if err != nil {
			m.met.lazyLoadFailures.Inc()
		} else {
			m.met.lazyLoadSeconds.Observe(time.Since(started).Seconds())
		}
	}

	m.mu.Lock()
	mine := e.flight == fl // else its last caller has left
	if mine {
		e.flight = nil
	}
	keep := err == nil && mine && !m.closed && (!e.gone || e.refs > 0)
	if keep {
		if l.unsaved() {
			m.ref(e) // until it is saved
			e.saving++
		}
		m.install(e, l.r)
		e.prepared = true
		if !m.opts.Dir.IsZero() && !l.unsaved() && inMemory(l.r) {
			m.unsaved[e] = struct{}{}
		}
	} else if err == nil {
		err = context.Canceled
		if m.closed {
			err = ErrClosed
		}
	}
	fl.err = err
	close(fl.done)
	m.dispatch()
	m.notify()
	m.unlock()

	switch {
	case keep && l.unsaved():
		_ = m.panics.Do(func() error {
			m.save(e, l)
			return nil
		})
		m.mu.Lock()
		e.saving--
		m.unref(e)
		m.notify()
		m.unlock()
	case !keep && l.r != nil:
		_ = l.r.close() // it is not used
		if l.file != nil {
			l.file.discard()
		}
	}
}

// load opens the header's file or builds it. It returns a panic as an error, because a panic on
// this goroutine would end the process.
func (m *Manager) load(ctx context.Context, e *entry, fl *flight) (l loaded, err error) {
	background := fl.background
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("index header of block %s: %w",
				e.src.ID, m.panics.Caught(v, "block", e.src.ID))
		}
	}()
	if background {
		defer m.releaseUnits(e, true)
	}
	if e.src.Unsized && m.opts.Measure != nil {
		switch changed, err := m.opts.Measure(ctx, e.src, false); {
		case changed:
			return loaded{}, ErrReplaced
		case err != nil && e.src.IndexSize == 0:
			// INVARIANT: the size of the index is part of the identity of its cached pages.
			return loaded{}, fmt.Errorf("index header of block %s: the index has no known size: %w",
				e.src.ID, err)
		}
	}
	if !m.opts.Dir.IsZero() {
		if fl.again {
			m.removeFile(e)
		} else if r := m.openExisting(ctx, e); r != nil {
			return loaded{r: r}, nil
		}
	}
	if !background {
		if err := m.acquireUnits(ctx, e); err != nil {
			return loaded{}, fmt.Errorf("wait to build the index header of block %s: %w",
				e.src.ID, err)
		}
		defer m.releaseUnits(e, false)
	}
	return m.build(ctx, e, background, fl.inMemory)
}

func (m *Manager) acquireUnits(ctx context.Context, e *entry) error {
	m.mu.Lock()
	w := m.builds.acquire(e.src.weight())
	m.unlock()
	if w == nil {
		return nil
	}
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
		m.mu.Lock()
		m.builds.withdraw(w)
		m.unlock()
		return context.Cause(ctx)
	}
}

func (m *Manager) releaseUnits(e *entry, background bool) {
	m.mu.Lock()
	m.builds.release(e.src.weight(), background)
	m.dispatch()
	m.unlock()
}

// openExisting opens the header's file. It returns nil if the header must be built, and removes a
// file that is damaged or stale.
func (m *Manager) openExisting(ctx context.Context, e *entry) *reader {
	started := time.Now()
	span := startSpan(&ctx, "open index header", e.src)
	defer span.End()
	f, err := openFile(m.opts.Dir, e.src.ID)
	if errors.Is(err, localfs.ErrSpecial) {
		m.dropped(e, err)
		m.removeFile(e)
		return nil
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.diskFailed("open index header", e, err)
		}
		return nil
	}
	r, err := open(f, e.src, m.look)
	if err != nil {
		f.Close()
		m.dropped(e, err)
		m.removeFile(e)
		return nil
	}
	m.met.loadSeconds.Observe(time.Since(started).Seconds())
	return r
}

// dropped counts and logs that a header is built again.
func (m *Manager) dropped(e *entry, err error) {
	reason := "damaged"
	if errors.Is(err, errStale) {
		reason = "stale"
	} else {
		m.met.corruptions.Mended(telemetry.CorruptHeader, 1)
	}
	m.met.rebuilds.WithLabelValues(reason).Inc()
	m.opts.Logger.Warn(
		"index header dropped, building it again", "block", e.src.ID, "reason", reason, "err", err,
	)
}

// build builds the header, in memory if it cannot be written to the local disk. Tables that do not
// verify are read once more from the bucket.
func (m *Manager) build(
	ctx context.Context, e *entry, background, inMemory bool,
) (l loaded, err error) {
	started := time.Now()
	span := startSpan(&ctx, "build index header", e.src)
	m.met.builds.Inc()
	defer func() {
		took := time.Since(started).Seconds()
		if errors.Is(err, ErrReplaced) {
			span.SetAttributes(attribute.Bool("block.replaced", true))
		} else if err != nil {
			m.met.buildFailures.Inc()
			m.met.loadFailures.Inc()
			err = fmt.Errorf("build the index header of block %s: %w", e.src.ID, err)
			span.SetStatus(codes.Error, err.Error())
		} else {
			m.met.buildSeconds.Observe(took)
			m.met.downloadSeconds.Observe(took)
			m.met.blockLoadSeconds.Observe(took)
		}
		span.End()
	}()
	inMemory = inMemory || m.opts.Dir.IsZero()
	reread := false
	for {
		l, err = m.buildOnce(ctx, e, background, inMemory)
		var local *localError
		switch {
		case err == nil:
			if reread {
				m.met.corruptions.Mended(telemetry.CorruptIndex, 1)
			}
			if span.IsRecording() {
				span.SetAttributes(
					attribute.Int64("header.bytes", l.r.size),
					attribute.Bool("header.in_memory", inMemory),
				)
			}
			return l, nil
		case ctx.Err() != nil:
			return loaded{}, ended(ctx, err)
		case errors.As(err, &local) && !inMemory:
			m.diskFailed("index header is kept in memory", e, err)
			inMemory = true
		case corrupt(err) && !reread:
			reread = true
			m.opts.Logger.Warn(
				"index does not verify, reading it once more", "block", e.src.ID, "err", err,
			)
		case m.doubtful(err) && m.measure(ctx, e, corrupt(err)):
			return loaded{}, ErrReplaced
		case ctx.Err() != nil: // the measurement has replaced the block
			return loaded{}, ended(ctx, err)
		default:
			if corrupt(err) {
				m.met.corruptions.Failed(telemetry.CorruptIndex)
			}
			return loaded{}, err
		}
	}
}

// doubtful reports whether a wrong size of the index may be the reason for err: bytes that do not
// verify, a body of another length, or a range beyond the end.
func (m *Manager) doubtful(err error) bool {
	return corrupt(err) || errors.Is(err, errLength) ||
		m.opts.Unsatisfiable != nil && m.opts.Unsatisfiable(err)
}

// measure asks the bucket for the sizes of the block's files. It reports whether the block's
// contents have been replaced.
func (m *Manager) measure(ctx context.Context, e *entry, corrupt bool) bool {
	if m.opts.Measure == nil {
		return false
	}
	changed, err := m.opts.Measure(ctx, e.src, corrupt)
	return changed && err == nil
}

func (m *Manager) buildOnce(
	ctx context.Context, e *entry, background, inMemory bool,
) (l loaded, err error) {
	mem := new(memory)
	var out output = mem
	switch {
	case inMemory:
	case e.src.weight() < buildUnits:
		// Creating a file may take as long as reading the bucket. A small header is used from
		// memory until it has a file.
		l.unnamed = mem
	default:
		if l.file, err = m.createFile(e); err != nil {
			return loaded{}, err
		}
		out = l.file
	}
	whole := false
	defer func() { // after a panic too
		if !whole {
			out.discard()
		}
	}()
	if err = m.step("write"); err == nil {
		err = build(ctx, m.fetch, e.src, background, out)
	}
	if err == nil {
		var st storage
		if st, err = out.finish(); err == nil {
			l.r, err = open(st, e.src, m.look)
		}
	}
	if err != nil {
		var d *damageError
		if l.file != nil && errors.As(err, &d) {
			err = &localError{err} // the disk returned other bytes than were written
		}
		return loaded{}, err
	}
	whole = true
	return l, nil
}

// savers is the number of headers that are saved at once. No caller waits for them.
const savers = 2

// save writes and names the file of a header, which is in use all the time. It reports whether
// nothing is left to be done. mu is not held.
func (m *Manager) save(e *entry, l loaded) bool {
	var err error
	select {
	case m.saving <- struct{}{}:
		defer func() { <-m.saving }()
	case <-m.ctx.Done():
		err = ErrClosed
	}
	e.fileMu.Lock()
	defer e.fileMu.Unlock()
	m.mu.Lock()
	gone := e.gone || e.h.cur.Load() != l.r // it was damaged and has been built again
	m.unlock()
	file := l.file
	if err == nil && !gone && file == nil {
		if file, err = m.createFile(e); err == nil {
			if err = copyTo(file, l.unnamed); err != nil {
				file = nil // discarded
			}
		}
	}
	if err == nil && !gone {
		err = persist(file, m.opts.Dir, e.src.ID, m.step)
	}
	if err != nil || gone {
		if file != nil {
			file.remove()
		}
		if file != nil && l.unnamed != nil {
			file.f.Close()
		}
		if err != nil && !errors.Is(err, ErrClosed) {
			m.diskFailed("index header is not kept on disk", e, err)
			return false
		}
		return true
	}
	if l.unnamed == nil {
		m.diskWell()
		return true
	}
	// From now on look-ups use the file instead of the copy in memory.
	r, err := open(&fileStorage{File: file.f, size: file.n}, e.src, m.look)
	if err != nil {
		file.f.Close()
		m.diskFailed("open index header", e, err)
		return false
	}
	m.mu.Lock()
	if e.h.cur.Load() == l.r {
		m.install(e, r)
	} else {
		m.dead = append(m.dead, r)
	}
	m.unlock()
	m.diskWell()
	return true
}

// rebuild builds a damaged header again, in memory if inMemory is set. It returns once h has
// another reader than bad.
func (m *Manager) rebuild(
	ctx context.Context, h *Header, bad *reader, d *damageError, inMemory bool,
) error {
	m.mu.Lock()
	if m.closed {
		m.unlock()
		return ErrClosed
	}
	if m.replaced(h.e.src) {
		m.unlock()
		return ErrReplaced
	}
	if h.cur.Load() != bad {
		m.unlock()
		return nil
	}
	e := h.e
	first := e.flight == nil
	e.prepared = false
	fl := m.join(ctx, e, flight{again: true, inMemory: inMemory})
	m.unlock()
	if first {
		m.dropped(e, d)
		if inMemory {
			m.diskFailed("index header is kept in memory", e, d)
		}
	}
	return m.wait(ctx, e, fl)
}

// startSpan starts a child of the span of ctx, if that is recording.
func startSpan(ctx *context.Context, name string, src Source) trace.Span {
	parent := trace.SpanFromContext(*ctx)
	if !parent.IsRecording() {
		return trace.SpanFromContext(context.Background())
	}
	var span trace.Span
	*ctx, span = parent.TracerProvider().
		Tracer("larder/store/indexheader").
		Start(*ctx, name, trace.WithAttributes(
			attribute.String("block", src.ID.String()),
			attribute.Int64("index.bytes", src.IndexSize),
		))
	return span
}
