package catalog

import (
	"io/fs"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/oklog/ulid/v2"
)

// packedMetas holds meta.json files in memory, compressed: a process without a data directory would
// have to read every one of them from the bucket again to show it. One takes a few hundred bytes,
// that of a block compacted from hundreds some KiB.
//
// Those that take more than ordinaryMeta take limit bytes together at most: the largest are not
// kept.
type packedMetas struct {
	limit int64

	mu    sync.Mutex // guards following
	m     map[ulid.ULID][]byte
	large int64 // bytes of those that count
}

func newPackedMetas(limit int64) *packedMetas {
	return &packedMetas{limit: limit, m: map[ulid.ULID][]byte{}}
}

// put keeps a document, unless it is too large to be shown.
func (p *packedMetas) put(id ulid.ULID, data []byte) {
	if len(data) > maxShown {
		p.remove(id)
		return
	}
	packed := s2.EncodeBetter(nil, data)
	// Exact size: the encoder's buffer has room for data that does not compress.
	packed = append(make([]byte, 0, len(packed)), packed...)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.large += counted(packed) - counted(p.m[id])
	p.m[id] = packed
	for p.large > p.limit {
		var largest ulid.ULID
		for id, packed := range p.m {
			if len(packed) > len(p.m[largest]) {
				largest = id
			}
		}
		p.large -= counted(p.m[largest])
		delete(p.m, largest)
	}
}

// counted returns how much of the limit a document takes.
func counted(packed []byte) int64 {
	if len(packed) <= ordinaryMeta {
		return 0
	}
	return int64(len(packed))
}

// get returns what was put, fs.ErrNotExist if it is not kept.
func (p *packedMetas) get(id ulid.ULID) ([]byte, error) {
	p.mu.Lock()
	packed, ok := p.m[id]
	p.mu.Unlock()
	if !ok {
		return nil, fs.ErrNotExist
	}
	return s2.Decode(nil, packed)
}

func (p *packedMetas) remove(id ulid.ULID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.large -= counted(p.m[id])
	delete(p.m, id)
}

// retain removes all that keep does not want. keep must not call into p.
func (p *packedMetas) retain(keep func(ulid.ULID) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, packed := range p.m {
		if !keep(id) {
			p.large -= counted(packed)
			delete(p.m, id)
		}
	}
}
