package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oklog/ulid/v2"
)

// TestABlockIsReplacedWhileItIsRead: a compactor replaces a block after the listing and deletes it
// before its meta.json is read. The view has the replacement, at a first sync and after the loss of
// a served block. If that repeats, the sync is incomplete and the view keeps its blocks.
func TestABlockIsReplacedWhileItIsRead(t *testing.T) {
	for name, tc := range map[string]struct {
		served   bool // block 1 is in the view, and lost
		replaced int  // how often a compactor is too fast
		want     []ulid.ULID
		list     string
	}{
		"first sync, once":  {replaced: 1, want: []ulid.ULID{testID(3)}, list: "list=2 "},
		"first sync, twice": {replaced: 2, want: []ulid.ULID{testID(4)}, list: "list=3 "},
		"after a loss": {served: true, replaced: 1, want: []ulid.ULID{testID(3)},
			list: "list=2 "},
		"time and again": {served: true, replaced: maxLooks, want: []ulid.ULID{testID(1)},
			list: "list=3 "},
	} {
		t.Run(name, func(t *testing.T) {
			b := newTestBucket()
			c := newCatalog(t, Options{Bucket: b})
			remove := func(id ulid.ULID) {
				if err := b.Delete(t.Context(), id.String()+"/"+metaFile); err != nil {
					t.Error(err)
				}
			}
			// It stays, so that never more than half of the bucket disappears at once.
			bystander := putBlock(b, 100)
			if tc.served {
				putBlock(b, 1)
				mustSync(t, c)
				remove(testID(1))
				c.Tombstone(testID(1))
			}
			var mu sync.Mutex // objects are read concurrently
			last := uint64(2)
			putBlock(b, last)
			b.requests()
			b.onGet = func(_ context.Context, name string) {
				mu.Lock()
				defer mu.Unlock()
				if tc.replaced > 0 && strings.HasPrefix(name, testID(last).String()) {
					tc.replaced--
					remove(testID(last))
					last++
					putBlock(b, last)
				}
			}
			err := c.Sync(t.Context())
			if complete := tc.want[0] != testID(1); complete != (err == nil) ||
				!complete && !errors.Is(err, ErrIncomplete) {
				t.Errorf("sync: %v", err)
			}
			var got []ulid.ULID
			for _, block := range c.View().Blocks {
				got = append(got, block.ID)
			}
			if want := append(tc.want, bystander); !slices.Equal(got, want) {
				t.Errorf("the view has %v, want %v", got, tc.want)
			}
			if n := b.requests(); !strings.HasPrefix(n, tc.list) {
				t.Errorf("%s, want %s", n, tc.list)
			}
			// The next sync sees the last replacement.
			mustSync(t, c)
			if v := c.View(); len(v.Blocks) != 2 || v.Blocks[0].ID != testID(last) {
				t.Errorf("after the next sync the view has %d blocks, want two with %s", len(v.Blocks), testID(last))
			}
		})
	}
}

// TestAnUploadInProgressCostsOneListing: a block without meta.json causes a second listing at most
// once, and none while all served blocks are there.
func TestAnUploadInProgressCostsOneListing(t *testing.T) {
	b := newTestBucket()
	c := newCatalog(t, Options{Bucket: b})
	putBlock(b, 1)
	b.put(testID(2).String()+"/index", "x")
	for i, want := range []string{"list=2 ", "list=1 ", "list=1 "} {
		if i == 2 {
			b.put(testID(3).String()+"/index", "x")
		}
		mustSync(t, c)
		if n := b.requests(); !strings.HasPrefix(n, want) {
			t.Errorf("sync %d: got %s, want %s", i, n, want)
		}
	}
}
