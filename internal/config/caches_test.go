package config

import (
	"os"
	"reflect"
	"regexp"
	"testing"
)

// TestCacheKeysAreWrittenDown: docs/compatibility.md says of every key by its name what becomes of it.
func TestCacheKeysAreWrittenDown(t *testing.T) {
	doc, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range []any{indexCacheDoc{}, bucketCacheDoc{}, inMemoryDoc{}, tieredDoc{}, memcachedDoc{}} {
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
