package catalog

import (
	"io/fs"
	"maps"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/oklog/ulid/v2"
)

// packedMetas holds meta.json files in memory, compressed: a process without a data directory would have to read every one of them from the
// bucket again to show it. One takes a few hundred bytes, that of a block compacted from hundreds some KiB.
type packedMetas struct {
	mu sync.Mutex // guards following
	m  map[ulid.ULID][]byte
}

func newPackedMetas() *packedMetas { return &packedMetas{m: map[ulid.ULID][]byte{}} }

func (p *packedMetas) put(id ulid.ULID, data []byte) {
	packed := s2.EncodeBetter(nil, data)
	// Exact size: the encoder's buffer has room for data that does not compress.
	packed = append(make([]byte, 0, len(packed)), packed...)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.m[id] = packed
}

// get returns what was put, fs.ErrNotExist if there is nothing.
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
	delete(p.m, id)
}

// retain removes all that keep does not want. keep must not call into p.
func (p *packedMetas) retain(keep func(ulid.ULID) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.m, func(id ulid.ULID, _ []byte) bool { return !keep(id) })
}
