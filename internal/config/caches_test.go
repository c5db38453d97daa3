package config

import (
	"os"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestCacheKeysAreWrittenDown looks up every key of the documents in docs/compatibility.md.
func TestCacheKeysAreWrittenDown(t *testing.T) {
	doc, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range []any{
		indexCacheDoc{}, bucketCacheDoc{}, inMemoryDoc{}, tieredDoc{}, memcachedDoc{},
	} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(document)) {
			key := f.Tag.Get("yaml")
			if !regexp.MustCompile("`(config\\.)?" + key + "`").Match(doc) {
				t.Errorf("docs/compatibility.md does not have %s of %T", key, document)
			}
		}
	}
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

// TestDocumentsBesideFlags applies documents to amounts that flags could have set. The document
// of the index cache replaces its flag. The flags of the chunk cache take precedence over the
// document.
func TestDocumentsBesideFlags(t *testing.T) {
	c := Caches{Memory: Memory{
		Index: given("--index-cache-size", gib), Chunks: given("--chunk-cache-size", gib),
		Series: given("--index-cache.series-size", 0),
	}}
	c.ApplyFlags()
	const index = "{type: IN-MEMORY, config: {max_size: 100MB}, enabled_items: [Postings, Series]}"
	if err := c.UseIndexCache("index.yml", []byte(index), time.Now()); err != nil {
		t.Fatal(err)
	}
	const chunks = "{type: IN-MEMORY, config: {max_size: 2GB}, chunk_subrange_size: 16384}"
	if err := c.UseBucketCache("chunks.yml", []byte(chunks), time.Now()); err != nil {
		t.Fatal(err)
	}
	want := Caches{
		Memory: Memory{
			Index:  given("index.yml max_size", 100*mib),
			Chunks: given("--chunk-cache-size", gib),
			Series: given("--index-cache.series-size", 0),
			Off:    [Kinds]bool{ExpandedPostings: true},
			Page:   [Kinds]Amount{ChunkPages: given("chunks.yml chunk_subrange_size", 16<<10)},
		},
		Uncached: [Kinds]bool{ExpandedPostings: true, SeriesSets: true},
		Notes: []Note{
			{Msg: NoEffect, Flag: "--index-cache-size", Why: "index.yml is given"},
			{Msg: NoEffect, Flag: "chunks.yml", Key: "max_size",
				Why: "--chunk-cache-size is given"},
		},
	}
	if diff := cmp.Diff(want, c, cmp.AllowUnexported(Memory{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
