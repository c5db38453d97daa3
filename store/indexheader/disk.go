package indexheader

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/oklog/ulid/v2"
)

// The local disk is where headers outlive the process, and nothing that an answer depends on: what
// it does not take is in memory, within the same allowance, and is offered to it again later.

// prepareDir makes the directory and removes what interrupted builds have left there. It is called
// before anybody else has m.
func (m *Manager) prepareDir() error {
	if m.lockDir() != nil {
		m.met.localFailures.Inc() // datadir has logged why
		m.diskBad = true
		return nil //nolint:nilerr // m works without it
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

// createFile makes a file for the entry's header.
func (m *Manager) createFile(e *entry) (*fileOutput, error) {
	if err := m.lockDir(); err != nil {
		return nil, &localError{err}
	}
	return createFile(m.opts.Dir, e.src.ID)
}

// inMemory reports whether a reader reads memory, not a file.
func inMemory(r *reader) bool {
	_, ok := r.st.(*memory)
	return ok
}

// diskFailed counts a failure of the disk, and logs it if the one before was none: a full disk
// would fill the log, too. If e, which may be nil, has a header in use, that is saved later. mu is
// not held.
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

// diskWell says that the disk has taken a file. After a failure it takes up what was left undone.
// mu is not held.
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

// saveLater offers the disk again and again what it has not taken: a second after a failure, then
// after two and so on. Every SaveRetry it also looks for files that somebody has removed.
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

// saveUnsaved saves the headers that have no file. It reports whether the disk took them all.
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

// nextUnsaved returns an entry whose header is to be saved, nil for none. mu is held.
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

// findRemoved has headers whose files are gone saved or built again: somebody has removed them, or
// they were in memory and had to go before the disk took them.
func (m *Manager) findRemoved() {
	ids, err := filesIn(m.opts.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // what is there is not known
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
