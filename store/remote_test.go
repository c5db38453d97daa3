package store_test

import (
	"context"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
)

// onlyPages deletes everything but pages from the remote cache, calls a function for each page, and
// returns the number of pages. It recognises pages by the small numbers in their names. It deletes
// expanded postings because requests would not read posting pages with them.
func onlyPages(remote *bytecachetest.Remote, do func(value []byte)) (n int) {
	remote.Change(func(values map[bytecache.ID][]byte) {
		for id, value := range values {
			if id[18] != 0 || [3]byte(id[20:]) != [3]byte{} {
				delete(values, id)
				continue
			}
			values[id] = slices.Clone(value)
			do(values[id])
			n++
		}
	})
	return n
}

// TestDamageInMemcached checks that damaged pages of memcached are detected when they are decoded,
// read from the bucket, and replaced for the next process.
func TestDamageInMemcached(t *testing.T) {
	dir, metas := twoBlocks(t)
	for name, memory := range map[string]int64{"alone": -1, "under memory": 0} {
		t.Run(name, func(t *testing.T) {
			remote := bytecachetest.NewRemote()
			var want []string
			for process := range 3 {
				g := startGateway(t, dir, gatewayOptions{
					indexBytes:    memory,
					chunkBytes:    memory,
					postingsBytes: -1,
					setBytes:      -1,
					pageSize:      1 << 10,
					remote:        remote,
				})
				absent := only(t, metas[0])
				absent.Matchers[0].Value = "absent"
				// builds the header
				if _, err := g.query(context.Background(), absent); err != nil {
					t.Fatal(err)
				}
				g.bucket.take()
				if process == 1 &&
					onlyPages(remote, func(value []byte) { value[len(value)/2] ^= 1 }) < 10 {
					t.Fatal("memcached has too few pages")
				}
				a, err := g.query(context.Background(), only(t, metas[0]))
				if err != nil {
					t.Fatal(err)
				}
				if process == 0 {
					want = a.texts()
				}
				if diff := gocmp.Diff(want, a.texts()); diff != "" {
					t.Fatalf("process %d (-first +now):\n%s", process, diff)
				}
				if reads, _ := g.bucket.take(); (len(reads) == 0) != (process == 2) {
					t.Errorf("process %d: reads %v of the bucket", process, reads)
				}
			}
		})
	}
}

// TestHitsInMemcachedAreHits checks that the counters of Thanos's index cache and caching bucket
// count hits of both memory and memcached.
func TestHitsInMemcachedAreHits(t *testing.T) {
	dir, metas := twoBlocks(t)
	remote := bytecachetest.NewRemote()
	for process := range 2 {
		g := startGateway(t, dir, gatewayOptions{
			indexBytes:    -1,
			chunkBytes:    -1,
			postingsBytes: -1,
			setBytes:      -1,
			pageSize:      8 << 10, // postings and series have pages of their own
			remote:        remote,
		})
		if process == 1 {
			onlyPages(remote, func([]byte) {})
		}
		if _, err := g.query(context.Background(), only(t, metas[0])); err != nil {
			t.Fatal(err)
		}
		got := values(t, g.reg, "thanos_store_")
		for _, c := range [][2]string{
			{"thanos_store_index_cache_requests_total Postings default-tenant", "thanos_store_index_cache_hits_total Postings default-tenant"},
			{"thanos_store_index_cache_requests_total Series default-tenant", "thanos_store_index_cache_hits_total Series default-tenant"},
			{"thanos_store_bucket_cache_operation_requests_total chunks getrange", "thanos_store_bucket_cache_operation_hits_total chunks getrange"},
			{"thanos_store_bucket_cache_getrange_requested_bytes_total chunks", "thanos_store_bucket_cache_getrange_fetched_bytes_total chunks cache"},
		} {
			requests, hits := got[c[0]], got[c[1]]
			if requests == 0 || process == 1 && hits != requests ||
				process == 0 && hits == requests {
				t.Errorf("process %d: %s: %v, %s: %v", process, c[0], requests, c[1], hits)
			}
		}
	}
}
