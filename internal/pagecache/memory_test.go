package pagecache

import (
	"context"
	"testing"
)

// TestInMemory checks that a page is in memory once it was fetched, and that an account knows that
// some pages were not.
func TestInMemory(t *testing.T) {
	r := New(newTestBucket(map[string]int{"o": 10_000}), newMapCache(), Options{PageSize: 1 << 10})
	defer r.Close()
	obj := Object{Name: "o", Size: 10_000, ID: 7}
	if r.InMemory(obj, 1500) {
		t.Error("a page that was not fetched is in memory")
	}
	for _, missed := range []bool{true, false} {
		var acct Account
		if acct.Missed() {
			t.Error("an account without reads has missed a page")
		}
		if _, err := r.Fetch(context.Background(), obj, []Span{{Off: 1500, End: 1600}},
			&acct); err != nil {
			t.Fatal(err)
		}
		if acct.Missed() != missed {
			t.Errorf("missed a page: %v, want %v", acct.Missed(), missed)
		}
	}
	if !r.InMemory(obj, 1500) || !r.InMemory(obj, 2047) || r.InMemory(obj, 9000) {
		t.Error("another page is in memory than the one that was fetched")
	}
}
