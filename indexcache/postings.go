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
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"larder/internal/bytecache"
	"larder/internal/telemetry"
)

// postingsKind is the first input of the hash that identifies expanded postings. Its last byte is
// the version of their encoding. It changes with the encoding, and if the same matchers come to
// select other postings.
const postingsKind = "larder expanded postings\x02"

// PostingsKey returns the key of the postings that matchers select in a block with this content.
// canonical identifies the matchers, mode is a postings.Mode. pageBytes is the size of an index
// page, a power of two. It is part of the key because requests are charged for postings in whole
// pages, which are kept with them, and processes with pages of different sizes may share a
// memcached.
//
// Within the process the key is 64 bits of the identity. Two keys may share them, therefore a value
// begins with its whole identity.
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

// Postings keeps expanded postings, as bytes that package postings writes and reads. It is safe for
// concurrent use.
type Postings struct {
	cache bytecache.Cache

	requests, memoryHits, remoteHits, joined atomic.Int64
	collector                                prometheus.Collector
	reg                                      prometheus.Registerer
}

// idBytes is the size of the identity at the begin of a value.
const idBytes = len(bytecache.ID{})

// AppendID appends the identity of a key, which is the begin of its value.
func AppendID(dst []byte, key bytecache.Key) []byte { return append(dst, key.ID[:]...) }

// Get returns the value of a key from memory, without the identity.
func (p *Postings) Get(key bytecache.Key) ([]byte, bool) {
	p.requests.Add(1)
	v, _ := p.cache.Get(key.Local) // own refuses nil
	v, ok := own(v, key)
	if ok {
		p.memoryHits.Add(1)
	}
	return v, ok
}

// Fetch returns the value of a key from memcached, if it is used. It is called after Get found
// nothing.
func (p *Postings) Fetch(ctx context.Context, key bytecache.Key) ([]byte, bool) {
	if !p.cache.Remote() {
		return nil, false
	}
	if trace.SpanFromContext(ctx).IsRecording() {
		_, span, ok := telemetry.StartSpan(ctx, "larder/indexcache", "cache_getmulti",
			trace.WithAttributes(attribute.String("kind", "expanded_postings")))
		if ok {
			defer span.End()
		}
	}
	values := make([][]byte, 1)
	found := p.cache.Fetch(ctx, []bytecache.Key{key}, values)
	v, ok := own(values[0], key)
	switch {
	case ok && found.MemoryItems > 0: // set since Get missed it
		p.memoryHits.Add(1)
	case ok:
		p.remoteHits.Add(1)
	case values[0] != nil:
		// The cache has put it into memory, where it would keep the right value out.
		p.cache.Del(key)
	}
	return v, ok
}

// own returns what follows the identity of a value, if the identity is that of key.
func own(v []byte, key bytecache.Key) ([]byte, bool) {
	if len(v) < idBytes || !bytes.Equal(v[:idBytes], key.ID[:]) {
		return nil, false
	}
	return v[idBytes:], true
}

// Set keeps a value that begins with AppendID. The cache owns it from then on.
func (p *Postings) Set(key bytecache.Key, value []byte) { p.cache.Set(key, value) }

// Del drops a value that proved wrong.
func (p *Postings) Del(key bytecache.Key) { p.cache.Del(key) }

// Joined counts a request that waited for the expansion of another one.
func (p *Postings) Joined() { p.joined.Add(1) }

// Stats returns figures of the postings in memory.
func (p *Postings) Stats() bytecache.Stats { return p.cache.Stats() }

func newPostings(o bytecache.Options, remote bytecache.Remote) *Postings {
	p := &Postings{cache: bytecache.Open(o, nil, remote), reg: o.Registerer}
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
