package store_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"larder/internal/memcached"
	"larder/internal/memcached/memcachedtest"
)

// TestEveryKindOfCachedValue damages values of memcached: pages of index and chunk files, and
// expanded postings. It changes one byte of their envelope or content, truncates or extends them,
// or swaps two of them. Each must count as a miss, and all answers must be right, in a process with
// an empty memory and in the next one.
func TestEveryKindOfCachedValue(t *testing.T) {
	dir, _ := smallBlocks(t)
	want := startGateway(t, dir, gatewayOptions{}).ask(t)
	server := memcachedtest.StartLiar(t)
	start := func(t *testing.T) (*gateway, *memcached.Client) {
		client := newMemcached(t, server.Addr, 30*time.Second)
		g := startGateway(t, dir, gatewayOptions{
			indexBytes:    -1,
			chunkBytes:    -1,
			postingsBytes: -1,
			setBytes:      -1,
			remote:        client,
		})
		return g, client
	}
	g, client := start(t)
	g.ask(t).compare(t, want, "")
	flushed(t, client)
	stored := server.Values()
	keys := slices.Sorted(maps.Keys(stored))
	if len(keys) < 10 {
		t.Fatalf("memcached holds %d values", len(keys))
	}
	rnd := rand.New(rand.NewPCG(3, 5))

	f := func(name string, change func(key string, value []byte) []byte) {
		t.Run(name, func(t *testing.T) {
			changed := map[string]bool{}
			server.Answer(func(key string, value []byte) []byte {
				out := change(key, value)
				// Do not damage a value again after larder has replaced it, because the breaker
				// would open.
				if changed[key] || bytes.Equal(out, value) {
					return value
				}
				changed[key] = true
				return out
			})
			defer server.Answer(nil)
			g, client := start(t)
			g.ask(t).compare(t, want, "")
			flushed(t, client)
			if n := client.Stats().Corrupt; n == 0 || n != int64(len(changed)) {
				t.Errorf("%d values were changed, %d counted", len(changed), n)
			}
			server.Answer(nil)
			g, _ = start(t)
			g.ask(t).compare(t, want, "")
			if reads, _ := g.bucket.take(); reads["chunks"] > 0 {
				t.Errorf("a damaged value was not replaced: reads %v", reads)
			}
		})
	}
	sample := 12
	if testing.Short() {
		sample = 3
	}
	for range sample {
		key := keys[rnd.IntN(len(keys))]
		off, bit := rnd.IntN(len(stored[key])), byte(1)<<rnd.IntN(8)
		f(fmt.Sprintf("byte %d of %s", off, key), func(k string, value []byte) []byte {
			if k != key {
				return value
			}
			value = bytes.Clone(value)
			value[off%len(value)] ^= bit
			return value
		})
	}
	some := keys[rnd.IntN(len(keys))]
	only := func(change func(value []byte) []byte) func(string, []byte) []byte {
		return func(k string, value []byte) []byte {
			if k == some {
				return change(bytes.Clone(value))
			}
			return value
		}
	}
	f("cut", only(func(b []byte) []byte { return b[:len(b)-1] }))
	f("cut to nothing", only(func([]byte) []byte { return nil }))
	f("longer", only(func(b []byte) []byte { return append(b, 0) }))
	f("zeros", only(func(b []byte) []byte { return make([]byte, len(b)) }))
	f("the value of another key",
		only(func([]byte) []byte { return stored[keys[(slices.Index(keys, some)+1)%len(keys)]] }))
}
