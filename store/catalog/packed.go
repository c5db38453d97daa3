package catalog

import (
	"io/fs"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/oklog/ulid/v2"
)

// packedMetas keeps compressed meta.json files in memory. Without it, a process without a data
// directory would read a document from the bucket again to show it. A document needs a few hundred
// bytes, or a few KiB for a block compacted from hundreds.
//
// The documents of more than ordinaryMeta are bounded to limit bytes together. Beyond that, the
// largest ones are dropped.
type packedMetas struct {
	limit int64

	mu    sync.Mutex // guards following
	m     map[ulid.ULID][]byte
	large int64 // bytes that count towards limit
}

func newPackedMetas(limit int64) *packedMetas {
	return &packedMetas{limit: limit, m: map[ulid.ULID][]byte{}}
}

// put keeps a document of at most maxShown bytes.
func (p *packedMetas) put(id ulid.ULID, data []byte) {
	if len(data) > maxShown {
		p.remove(id)
		return
	}
	packed := s2.EncodeBetter(nil, data)
	// Copied to its exact size, because the encoder allocates for data that does not compress.
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

// counted returns the bytes of a document that count towards the limit.
func counted(packed []byte) int64 {
	if len(packed) <= ordinaryMeta {
		return 0
	}
	return int64(len(packed))
}

// get returns a document, fs.ErrNotExist if it is not kept.
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

// retain removes all documents for which keep returns false. keep must not call into p.
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
