package indexheader

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/oklog/ulid/v2"
)

// The local disk keeps headers over restarts. No answer depends on it: a header that cannot be
// written stays in memory, within the same allowance, and is written later.

// prepareDir creates the directory and removes files of interrupted builds. It is called before m
// is shared.
func (m *Manager) prepareDir() error {
	if m.lockDir() != nil {
		m.met.localFailures.Inc() // datadir has logged why
		m.diskBad = true
		return nil //nolint:nilerr // m works without a disk
	}
	if err := m.opts.Dir.Make(); err != nil {
		return err
	}
	return removeTemporary(m.opts.Dir)
}

// lockDir is called before every write into the directory.
func (m *Manager) lockDir() error {
	if m.opts.LockDir == nil {
		return nil
	}
	if err := m.opts.LockDir(); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

// createFile creates a file for the entry's header.
func (m *Manager) createFile(e *entry) (*fileOutput, error) {
	if err := m.lockDir(); err != nil {
		return nil, &localError{err}
	}
	return createFile(m.opts.Dir, e.src.ID)
}

// inMemory reports whether a reader reads memory instead of a file.
func inMemory(r *reader) bool {
	_, ok := r.st.(*memory)
	return ok
}

// diskFailed counts a failure of the disk. It logs only the first of several failures as a warning,
// so that a full disk does not fill the log too. If e, which may be nil, has an open header, that
// is saved later. mu is not held.
func (m *Manager) diskFailed(what string, e *entry, err error) {
	m.met.localFailures.Inc()
	m.mu.Lock()
	again := m.diskBad
	m.diskBad = true
	if e != nil && e.h != nil {
		m.unsaved[e] = struct{}{}
	}
	m.unlock()
	log := m.opts.Logger.Warn
	if again {
		log = m.opts.Logger.Debug
	}
	args := []any{"err", err}
	if e != nil {
		args = append(args, "block", e.src.ID)
	}
	log(what, args...)
}

// diskWell records that a file was written. After a failure it resumes background builds. mu is not
// held.
func (m *Manager) diskWell() {
	m.mu.Lock()
	if !m.diskBad {
		m.unlock()
		return
	}
	m.diskBad = false
	for _, e := range m.entries {
		if !e.prepared && e.h == nil && e.flight == nil {
			m.builds.queue.add(e)
		}
	}
	m.dispatch()
	m.unlock()
	m.opts.Logger.Info("index headers are written to disk again")
}

// saveLater retries to save headers without a file: one second after a failure, then two, and so on
// up to SaveRetry. Every SaveRetry it also looks for files that were removed.
func (m *Manager) saveLater() {
	const first = time.Second
	wait, looked := min(first, m.opts.SaveRetry), time.Now()
	for {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-m.ctx.Done():
			t.Stop()
			return
		}
		if time.Since(looked) >= m.opts.SaveRetry {
			looked = time.Now()
			m.findRemoved()
		}
		if m.saveUnsaved() {
			wait = min(first, m.opts.SaveRetry)
		} else {
			wait = min(2*wait, m.opts.SaveRetry)
		}
	}
}

// saveUnsaved saves the headers without a file. It reports whether all were saved.
func (m *Manager) saveUnsaved() bool {
	for {
		m.mu.Lock()
		e := m.nextUnsaved()
		if e == nil || m.closed {
			m.unlock()
			return true
		}
		m.ref(e)
		e.saving++
		r := e.h.cur.Load()
		m.unlock()
		ok := false
		_ = m.panics.Do(func() error {
			ok = m.save(e, loaded{r: r, unnamed: r.st})
			return nil
		})
		m.mu.Lock()
		if ok {
			delete(m.unsaved, e)
		}
		e.saving--
		m.unref(e)
		m.notify()
		m.unlock()
		if !ok {
			return false
		}
	}
}

// nextUnsaved returns an entry whose header needs saving, nil for none. mu is held.
func (m *Manager) nextUnsaved() *entry {
	for e := range m.unsaved {
		switch {
		case e.gone:
			delete(m.unsaved, e)
		case e.saving == 0:
			return e
		}
	}
	return nil
}

// findRemoved saves or rebuilds headers whose files are missing: the files were removed, or the
// headers were evicted from memory before they could be saved.
func (m *Manager) findRemoved() {
	ids, err := filesIn(m.opts.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // the files are not known
	}
	there := make(map[ulid.ULID]struct{}, len(ids))
	for _, id := range ids {
		there[id] = struct{}{}
	}
	m.mu.Lock()
	defer m.unlock()
	if m.diskBad {
		return
	}
	for id, e := range m.entries {
		if _, ok := there[id]; ok || !e.prepared || e.flight != nil || e.saving > 0 {
			continue
		}
		if e.h != nil {
			m.unsaved[e] = struct{}{}
		} else {
			m.builds.queue.add(e)
		}
	}
	m.dispatch()
}
