package main

import (
	"strings"
	"testing"
	"time"
)

// cacheFlags parses a command line and loads its documents.
func loadedFlags(t *testing.T, args ...string) (*storeConfig, error) {
	t.Helper()
	c, err := parseStore(append([]string{"--objstore.config={type: FILESYSTEM}"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c, c.load(time.Now())
}

// TestCacheConfig: Thanos's documents, as they stand in its documentation and in what charts make, and what they come to.
func TestCacheConfig(t *testing.T) {
	const mib = int64(1 << 20)
	t.Setenv("CACHE_SIZE", "3GB")
	type result struct{ index, chunks, page int64 }
	f := func(want result, notes string, args ...string) {
		t.Helper()
		c, err := loadedFlags(t, args...)
		if err != nil {
			t.Errorf("%q: %v", args, err)
			return
		}
		got := result{c.memory.indexCache, c.memory.chunkCache, c.chunkPageSize}
		if got != want {
			t.Errorf("%q: got %+v, want %+v", args, got, want)
		}
		var said []string
		for _, n := range c.notes {
			said = append(said, strings.TrimSpace(n.flag+" "+n.key))
		}
		if s := strings.Join(said, ", "); s != notes {
			t.Errorf("%q:\ngot notes %s\nwant      %s", args, s, notes)
		}
	}
	// Without documents: flags and defaults. (0: what fit decides.)
	f(result{250 * mib, 0, 8 << 10}, "")
	f(result{1, 0, 8 << 10}, "", "--index-cache-size=1B")

	// The index cache: the document wins over the flag, and has a default of its own.
	f(result{500 * mib, 0, 8 << 10}, "", "--index-cache.config={type: IN-MEMORY, config: {max_size: 500MB}}")
	f(result{250 * mib, 0, 8 << 10}, "", "--index-cache.config={type: in-memory}")
	f(result{250 * mib, 0, 8 << 10}, "", "--index-cache.config=type: IN-MEMORY\nconfig:\n")
	f(result{250 * mib, 0, 8 << 10}, "--index-cache-size", "--index-cache.config={type: IN-MEMORY}", "--index-cache-size=1GB")
	f(result{3 << 30, 0, 8 << 10}, "", "--index-cache.config={type: IN-MEMORY, config: {max_size: $(CACHE_SIZE)}}")
	f(result{0, 0, 8 << 10}, "", "--index-cache.config={type: IN-MEMORY, config: {max_size: 0}}")
	f(result{100 * mib, 0, 8 << 10},
		"--index-cache.config-file max_item_size, --index-cache.config-file enabled_items, --index-cache.config-file ttl",
		"--index-cache.config-file="+write(t, "index-cache.yml", `
type: IN-MEMORY
config:
  max_size: 100MiB
  max_item_size: 5MiB
enabled_items: [Postings, ExpandedPostings]
ttl: 12h
`))

	// The caching bucket: the flag wins over the document, because it is larder's own.
	f(result{250 * mib, 700 * mib, 8 << 10}, "", "--store.caching-bucket.config={type: IN-MEMORY, config: {max_size: 700MB}}")
	f(result{250 * mib, 0, 8 << 10}, "", "--store.caching-bucket.config={type: IN-MEMORY}")
	f(result{250 * mib, 900 * mib, 32 << 10}, "--store.caching-bucket.config chunk_subrange_size, --store.caching-bucket.config max_size, --store.caching-bucket.config chunk_subrange_size",
		"--store.caching-bucket.config={type: IN-MEMORY, config: {max_size: 700MB}, chunk_subrange_size: 16000}",
		"--chunk-cache-size=900MB", "--chunk-cache.page-size=32KB")
	// A power of two is taken as it is; else the nearest one is, and said.
	f(result{250 * mib, 0, 16 << 10}, "", "--store.caching-bucket.config={type: IN-MEMORY, chunk_subrange_size: 16384}")
	f(result{250 * mib, 0, 1 << 10}, "--store.caching-bucket.config chunk_subrange_size",
		"--store.caching-bucket.config={type: IN-MEMORY, chunk_subrange_size: 1}")
	f(result{250 * mib, 0, 1 << 20}, "--store.caching-bucket.config chunk_subrange_size",
		"--store.caching-bucket.config={type: IN-MEMORY, chunk_subrange_size: 100000000}")
	all := "--store.caching-bucket.config-file "
	f(result{250 * mib, 250 * mib, 16 << 10}, all+strings.Join([]string{
		"max_item_size", "chunk_subrange_size", "max_chunks_get_range_requests", "chunk_object_attrs_ttl", "chunk_subrange_ttl",
		"blocks_iter_ttl", "metafile_exists_ttl", "metafile_doesnt_exist_ttl", "metafile_content_ttl", "metafile_max_size",
	}, ", "+all), "--store.caching-bucket.config-file="+write(t, "bucket-cache.yml", `
type: IN-MEMORY
config:
  max_size: 250MiB
  max_item_size: 125MiB
chunk_subrange_size: 16000
max_chunks_get_range_requests: 3
chunk_object_attrs_ttl: 24h
chunk_subrange_ttl: 24h
blocks_iter_ttl: 5m
metafile_exists_ttl: 2h
metafile_doesnt_exist_ttl: 15m
metafile_content_ttl: 24h
metafile_max_size: 1MiB
`))
}

func TestNearestPageSize(t *testing.T) {
	f := func(n, want int64) {
		t.Helper()
		if got := nearestPageSize(n); got != want {
			t.Errorf("%d: got %d, want %d", n, got, want)
		}
	}
	f(1, 1<<10)
	f(1<<10, 1<<10)
	f(1535, 1<<10)
	f(1536, 2<<10)
	f(16000, 16<<10)
	f(1<<20, 1<<20)
	f(1<<62, 1<<20)
}

// TestMemoryNamesTheDocument: what is too much for the memory limit is named where it was given.
func TestMemoryNamesTheDocument(t *testing.T) {
	c, err := loadedFlags(t, "--index-cache.config={type: IN-MEMORY, config: {max_size: 2GB}}",
		"--store.caching-bucket.config={type: IN-MEMORY, config: {max_size: 1GB}}")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.memory.fit(1 << 30)
	if want := "--index-cache.config max_size 2GiB, --store.caching-bucket.config max_size 1GiB, at least 16MiB for requests"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}
