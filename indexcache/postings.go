package indexcache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bytecache"
)

// postingsKind begins what the identity of expanded postings is hashed from. Its last byte is the
// version of their encoding: it changes when that does, or when the same matchers come to mean
// other postings.
const postingsKind = "larder expanded postings\x02"

// PostingsKey returns the key of the postings of a block with such content that matchers come to.
// canonical are the matchers' canonical bytes; mode says which of their lists are read although
// that does not pay: 0 none, others as package block numbers them; pageBytes is the size of an
// index page, a power of two: kept beside postings is what a request is charged for them, in whole
// pages, and processes with pages of different sizes may share a memcached.
//
// Within the process it is 64 bits of the identity, which two keys may share: a value carries its
// whole identity, and is no other key's.
func PostingsKey(
	block ulid.ULID, content uint64, mode byte, pageBytes int64, canonical []byte,
) bytecache.Key {
	h := sha256.New()
	h.Write([]byte(postingsKind))
	h.Write(block[:])
	h.Write(binary.BigEndian.AppendUint64(nil, content))
	h.Write([]byte{mode, byte(bits.Len64(uint64(pageBytes)))})
	h.Write(canonical)
	var k bytecache.Key
	h.Sum(k.ID[:0])
	k.Local = binary.LittleEndian.Uint64(k.ID[:])
	return k
}

// Postings keeps expanded postings as bytes that package block writes and reads. It is safe for
// concurrent use.
type Postings struct {
	cache bytecache.Cache

	requests, memoryHits, remoteHits, joined atomic.Int64
	collector                                prometheus.Collector
	reg                                      prometheus.Registerer
}

// idBytes is the identity that a value begins with.
const idBytes = len(bytecache.ID{})

// AppendID begins a value: what follows is whose it is.
func AppendID(dst []byte, key bytecache.Key) []byte { return append(dst, key.ID[:]...) }

// Get returns what is kept in memory under a key, without the identity.
func (p *Postings) Get(key bytecache.Key) ([]byte, bool) {
	p.requests.Add(1)
	v, _ := p.cache.Get(key.Local) // nil is nobody's
	v, ok := own(v, key)
	if ok {
		p.memoryHits.Add(1)
	}
	return v, ok
}

// Fetch asks memcached, where it is used, for what Get has not found.
func (p *Postings) Fetch(ctx context.Context, key bytecache.Key) ([]byte, bool) {
	if !p.cache.Remote() {
		return nil, false
	}
	values := make([][]byte, 1)
	p.cache.Fetch(ctx, []bytecache.Key{key}, values)
	v, ok := own(values[0], key)
	switch {
	case ok:
		p.remoteHits.Add(1)
	case values[0] != nil:
		// It is in memory by now, where it would be in the way of what is to be kept instead.
		p.cache.Del(key)
	}
	return v, ok
}

// own returns what follows the identity of a value, if that is the key's.
func own(v []byte, key bytecache.Key) ([]byte, bool) {
	if len(v) < idBytes || !bytes.Equal(v[:idBytes], key.ID[:]) {
		return nil, false
	}
	return v[idBytes:], true
}

// Set keeps a value that AppendID began. It is the cache's from here on.
func (p *Postings) Set(key bytecache.Key, value []byte) { p.cache.Set(key, value) }

// Del forgets a value that proved wrong.
func (p *Postings) Del(key bytecache.Key) { p.cache.Del(key) }

// Joined counts an expansion that another request was about to finish.
func (p *Postings) Joined() { p.joined.Add(1) }

// Stats returns the figures of the memory that keeps them.
func (p *Postings) Stats() bytecache.Stats { return p.cache.Stats() }

func newPostings(o bytecache.Options, remote bytecache.Remote) *Postings {
	p := &Postings{cache: bytecache.Open(o, remote), reg: o.Registerer}
	if p.reg != nil {
		p.collector = newPostingsCollector(p)
		p.reg.MustRegister(p.collector)
	}
	return p
}

func (p *Postings) close() {
	if p.reg != nil {
		p.reg.Unregister(p.collector)
	}
	p.cache.Close()
}
