package bytecache

import (
	"context"
	"sync/atomic"
)

// Remote stores values outside of the process. *memcached.Client implements it.
type Remote interface {
	// GetMulti sets the values that it finds, and leaves the others nil. It waits for a bounded
	// time, never fails, and does not touch values after it has returned.
	GetMulti(ctx context.Context, ids []ID, values [][]byte)
	// Set and Delete take effect for GetMulti at once, and on the servers some time later or never.
	Set(id ID, value []byte)
	Delete(id ID)
}

// Memcached is a cache that keeps its values only in memcached. Get finds nothing; Fetch requests
// values. It is safe for concurrent use.
type Memcached struct {
	remote                   Remote
	collector                *collector
	requests, hits, hitBytes atomic.Int64
	closed                   atomic.Bool
}

var _ Cache = (*Memcached)(nil)

// NewMemcached returns a cache over a client. The caller keeps the client, and closes it after the
// cache. It uses Name and Registerer of the options, and ignores the others.
func NewMemcached(remote Remote, o Options) *Memcached {
	m := &Memcached{remote: remote}
	m.collector = register(o.Registerer, o.Name, TierMemcached, m)
	return m
}

// Get misses: no value is in the process.
func (m *Memcached) Get(uint64) ([]byte, bool) { return nil, false }

// Fetch requests the values that are nil from memcached, all at once.
func (m *Memcached) Fetch(ctx context.Context, keys []Key, values [][]byte) Found {
	if m.closed.Load() {
		return Found{}
	}
	ids, at := make([]ID, 0, len(keys)), make([]int, 0, len(keys))
	for i := range keys {
		if values[i] == nil {
			ids, at = append(ids, keys[i].ID), append(at, i)
		}
	}
	if len(ids) == 0 {
		return Found{}
	}
	found := make([][]byte, len(ids))
	m.remote.GetMulti(ctx, ids, found)
	var hits, bytes int64
	for i, v := range found {
		if v != nil {
			values[at[i]] = v
			hits++
			bytes += int64(len(v))
		}
	}
	m.requests.Add(int64(len(ids)))
	m.hits.Add(hits)
	m.hitBytes.Add(bytes)
	return Found{}
}

// Remote returns true.
func (m *Memcached) Remote() bool { return true }

// Set stores a value asynchronously.
func (m *Memcached) Set(key Key, value []byte) {
	if !m.closed.Load() {
		m.remote.Set(key.ID, value)
	}
}

// Del removes a value. Look-ups of this process miss it at once.
func (m *Memcached) Del(key Key) {
	if !m.closed.Load() {
		m.remote.Delete(key.ID)
	}
}

// Stats returns counts of look-ups. The contents of memcached are not known here.
func (m *Memcached) Stats() Stats {
	return Stats{Requests: m.requests.Load(), Hits: m.hits.Load(), HitBytes: m.hitBytes.Load()}
}

// Close makes every look-up a miss.
func (m *Memcached) Close() {
	if !m.closed.Swap(true) {
		m.collector.unregister()
	}
}
