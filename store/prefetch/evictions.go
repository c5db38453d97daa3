package prefetch

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/bytecache"
	"larder/internal/localfs"
	"larder/internal/sealed"
)

const (
	evictionsName = "prefetch.evicted"
	evictionBytes = 16 + 8 + 8
	// maxEvictions bounds the blocks that are remembered. The oldest go first.
	maxEvictions = 1 << 14
)

var evictionsFormat = sealed.Format{Kind: "prefetch-evicted", Version: 1}

// evictions are the indexes that were read and that lost pages since, with the time of the last
// loss.
type evictions struct {
	dir     localfs.Dir
	lockDir func() error
	times   map[object]int64 // Unix milliseconds
	dirty   bool
}

func newEvictions(dir localfs.Dir, lockDir func() error) *evictions {
	return &evictions{dir: dir, lockDir: lockDir, times: map[object]int64{}}
}

// objectOf returns the index that a page's identity names, see pagecache.
func objectOf(id *bytecache.ID) object {
	return object{id: ulid.ULID(id[:16]), content: binary.BigEndian.Uint64(id[24:])}
}

func (e *evictions) add(o object, now time.Time) {
	e.times[o] = now.UnixMilli()
	e.dirty = true
}

func (e *evictions) remove(o object) {
	delete(e.times, o)
	e.dirty = true
}

// at returns when an index lost pages, and whether it did.
func (e *evictions) at(o object) (time.Time, bool) {
	ms, ok := e.times[o]
	return time.UnixMilli(ms), ok
}

// trim removes the oldest beyond maxEvictions.
func (e *evictions) trim() {
	if len(e.times) <= maxEvictions {
		return
	}
	all := make([]object, 0, len(e.times))
	for o := range e.times {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b object) int { return cmp.Compare(e.times[a], e.times[b]) })
	for _, o := range all[:len(all)-maxEvictions] {
		delete(e.times, o)
	}
}

// load reads what an earlier process remembered.
func (p *Prefetcher) load() {
	e := p.evicted
	if e.dir.IsZero() {
		return
	}
	payload, err := evictionsFormat.Read(e.dir, evictionsName, maxEvictions*evictionBytes)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			p.o.Logger.Warn("ignoring the list of evicted indexes", "err", err)
		}
		return
	}
	for ; len(payload) >= evictionBytes; payload = payload[evictionBytes:] {
		o := object{ulid.ULID(payload[:16]), binary.BigEndian.Uint64(payload[16:])}
		e.times[o] = int64(binary.BigEndian.Uint64(payload[24:]))
	}
}

// save writes the list if it has changed. A list that cannot be written is written later.
func (p *Prefetcher) save() {
	e := p.evicted
	if !e.dirty || e.dir.IsZero() {
		return
	}
	// Blocks that have left are not asked for any more.
	for o := range e.times {
		if b := p.blocks[o.id]; p.chosen != nil && p.chosen.Ready && !p.chosen.FromDisk &&
			(b == nil || b.meta.Content != o.content) {
			delete(e.times, o)
		}
	}
	e.trim()
	payload := make([]byte, 0, len(e.times)*evictionBytes)
	for o, ms := range e.times {
		payload = append(payload, o.id[:]...)
		payload = binary.BigEndian.AppendUint64(payload, o.content)
		payload = binary.BigEndian.AppendUint64(payload, uint64(ms))
	}
	err := e.lockDir()
	if err == nil {
		err = evictionsFormat.Write(e.dir, evictionsName, payload, false)
	}
	if err != nil {
		p.o.Logger.Debug("cannot write the list of evicted indexes", "err", err)
		return
	}
	e.dirty = false
}
