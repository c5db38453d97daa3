package diskcache

import (
	"errors"
	"io/fs"
	"slices"

	"larder/internal/localfs"
	"larder/internal/sealed"
)

// loadAtOnce is how many pages are added to the index under one lock.
const loadAtOnce = 1 << 12

// load reads the footers of the segments that an earlier process left, newest first. It scans the
// one that was not sealed, and removes files that are damaged, of another version, or too many.
func (c *Cache) load() {
	whole := false
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.deleted = nil
		c.kept = kept{c.table.used, c.fileBytes, whole}
	}()
	names, err := c.dir.Names()
	c.writer.partial = err != nil && !errors.Is(err, fs.ErrNotExist)
	if err != nil {
		if c.writer.partial {
			c.disk.fail(readsOff|writesOff, "read_errors", err)
		}
		whole = !c.writer.partial
		return
	}
	slices.Sort(names)
	slices.Reverse(names)
	var bytes int64
	for _, name := range names {
		seq, ok := segmentSeq(name)
		if !ok {
			continue
		}
		c.writer.seq = max(c.writer.seq, seq)
		select {
		case <-c.closing:
			return
		default:
		}
		s, entries, err := c.openSegment(name, seq)
		if err != nil {
			if !errors.Is(err, sealed.ErrDamaged) && !errors.Is(err, localfs.ErrSpecial) {
				c.writer.partial = true
				c.disk.fail(readsOff|writesOff, "read_errors", err)
				return
			}
			c.disk.o.Logger.Debug("removing a file of the disk cache", "file", name, "err", err)
			c.discard(name)
			continue
		}
		if bytes += s.size; bytes+c.o.segmentBytes() > c.o.MaxBytes {
			_ = s.file.Close() // nothing was written
			c.discard(name)
		} else if !c.adopt(s, entries) {
			_ = s.file.Close() // nothing was written
		}
	}
	whole = true
}

// discard removes a file that is of no use to this process. If another process may use the
// directory, the file stays: it may be a segment that has just been started.
func (c *Cache) discard(name string) {
	if c.disk.o.LockDir() == nil {
		_ = c.dir.Remove(name) // tried again at the next start
	}
}

// openSegment opens a segment and reads its entries. It seals one that was not sealed. The error
// has sealed.ErrDamaged for a file that is of no use.
func (c *Cache) openSegment(name string, seq uint64) (_ *segment, _ []entry, err error) {
	f, err := c.dir.Open(name)
	if err != nil {
		return nil, nil, err
	}
	s := &segment{name: name, seq: seq, file: c.disk.wrap(f)}
	defer func() {
		if err != nil {
			_ = s.file.Close() // nothing was written
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	s.size = info.Size()
	if ok, err := rightHeader(s.file, c.o.Kind); err != nil {
		return nil, nil, err
	} else if !ok {
		return nil, nil, sealed.ErrDamaged
	}
	entries, err := readFooter(s.file, s.size)
	if errors.Is(err, sealed.ErrDamaged) {
		entries, err = c.recover(s)
	}
	return s, entries, err
}

// recover returns the entries of a segment that was not sealed, and seals it.
func (c *Cache) recover(s *segment) ([]entry, error) {
	entries, end, err := scan(s.file, min(s.size, maxSegment), c.o.PageBytes)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 || end+footerBytes(len(entries)) > maxSegment {
		return nil, sealed.ErrDamaged
	}
	s.size = end
	if c.disk.o.LockDir() != nil {
		return entries, nil // of a disk that cannot be written: scanned again at the next start
	}
	w, err := c.dir.OpenOrCreate(s.name)
	if err != nil {
		return entries, nil //nolint:nilerr // as above
	}
	b := appendFooter(nil, entries, end)
	if err = w.Truncate(end); err == nil {
		if _, err = w.WriteAt(b, end); err == nil {
			s.size += int64(len(b))
		}
	}
	_ = w.Close() // a footer that is lost is made again
	return entries, nil
}

// adopt adds a segment that is older than all others, and its pages.
func (c *Cache) adopt(s *segment, entries []entry) bool {
	c.mu.Lock()
	ok := !c.closed && c.addLocked(s, true)
	if ok {
		c.fileBytes += s.size
	}
	c.mu.Unlock()
	if !ok {
		return false
	}
	for len(entries) > 0 {
		n := min(len(entries), loadAtOnce)
		c.index(s, entries[:n])
		entries = entries[n:]
	}
	return true
}

// index adds pages of a segment, unless a newer one has them.
func (c *Cache) index(s *segment, entries []entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.gone {
		return
	}
	for i := range entries {
		e := &entries[i]
		if _, deleted := c.deleted[e.id]; deleted || int64(e.length) > c.o.PageBytes {
			continue
		}
		if h := hashOf(&e.id); c.table.find(h) < 0 {
			if !c.table.put(h, location(s.slot, int64(e.off))) {
				c.added.Add(1)
			}
		}
	}
}
