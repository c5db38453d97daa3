package catalog

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/faultstore"
	"larder/shard"
)

// fakeShard owns the blocks of a set.
type fakeShard struct {
	mu      sync.Mutex
	number  uint64
	owned   map[ulid.ULID]bool
	next    map[ulid.ULID]bool // replaces owned at the next HandleBlocks
	handed  []shard.Block
	applied uint64
}

func (s *fakeShard) own(ids ...ulid.ULID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(ids)
}

func (s *fakeShard) set(ids []ulid.ULID) {
	s.number++
	s.owned = map[ulid.ULID]bool{}
	for _, id := range ids {
		s.owned[id] = true
	}
}

func (s *fakeShard) Ownership() (func(ulid.ULID) bool, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owned := s.owned
	return func(id ulid.ULID) bool { return owned[id] }, s.number
}

func (s *fakeShard) HandleBlocks(_ context.Context, blocks []shard.Block, number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		s.owned, s.next = s.next, nil
		s.number++
	}
	s.handed = blocks
	return s.number == number
}

func (s *fakeShard) Applied(_ context.Context, number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = number
}

func (s *fakeShard) lastApplied() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied
}

func viewIDs(v *View) (ids []ulid.ULID) {
	for _, b := range v.Blocks {
		ids = append(ids, b.ID)
	}
	slices.SortFunc(ids, ulid.ULID.Compare)
	return ids
}

// TestShardsSelectBeforeDuplicates: a block that another shard owns replaces nothing here. The
// blocks that an owned one covers are known.
func TestShardsSelectBeforeDuplicates(t *testing.T) {
	b := newTestBucket()
	a, c := putBlock(b, 1), putBlock(b, 2)
	both := testID(3)
	b.put(both.String()+"/"+metaFile, compactedMeta(both, a, c))
	s := &fakeShard{}
	s.own(a, c)
	cat := newCatalog(t, Options{Bucket: b, Shard: s})
	if err := cat.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := viewIDs(cat.View()); !slices.Equal(got, []ulid.ULID{a, c}) {
		t.Errorf("served: %v, want the sources of a block of another shard", got)
	}
	if n := cat.Status().States[stateShard]; n != 1 {
		t.Errorf("%d blocks of other shards, want 1", n)
	}
	s.own(a, both)
	if err := cat.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.handed) != 2 || len(s.handed[0].Covers) != 0 ||
		!slices.Contains(s.handed[1].Covers, a) || !slices.Contains(s.handed[1].Covers, c) {
		t.Errorf("handed %v, want the compacted block to cover its sources", s.handed)
	}
	if s.applied != s.number {
		t.Errorf("applied is %d, want %d", s.applied, s.number)
	}
}

// TestReassignListsNothing: another ownership reaches the view without a request to the bucket.
func TestReassignListsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		one, two, three := putBlock(b, 1), putBlock(b, 2), putBlock(b, 3)
		s := &fakeShard{}
		s.own(one)
		var cat *Catalog
		cat, err := New(Options{Bucket: b, Shard: s, Interval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cat.Run(ctx) // returns nil
		}()
		defer func() { stop(); <-ended; cat.Close() }()
		synctest.Wait()
		b.requests() // forgets those of the first sync
		for _, owned := range [][]ulid.ULID{{one, two, three}, {three}, nil} {
			s.own(owned...)
			cat.Reassign()
			synctest.Wait()
			if got := viewIDs(cat.View()); !slices.Equal(got, owned) {
				t.Errorf("served: %v, want %v", got, owned)
			}
			if s.lastApplied() != s.number {
				t.Errorf("applied is %d, want %d", s.lastApplied(), s.number)
			}
		}
		if got := b.requests(); got != "list=0 meta=0 mark=0 other=0" {
			t.Errorf("requests to the bucket: %s, want none", got)
		}
	})
}

// TestOwnershipChangesDuringASync: the view has the blocks of the last ownership.
func TestOwnershipChangesDuringASync(t *testing.T) {
	b := newTestBucket()
	one, two := putBlock(b, 1), putBlock(b, 2)
	s := &fakeShard{next: map[ulid.ULID]bool{one: true, two: true}}
	s.own(one)
	cat := newCatalog(t, Options{Bucket: b, Shard: s})
	if err := cat.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := viewIDs(cat.View()); !slices.Equal(got, []ulid.ULID{one, two}) {
		t.Errorf("served: %v, want both blocks", got)
	}
}

// TestIncompleteSyncsAndShards: blocks are handed to the shard only once all are known. A block
// that an incomplete sync keeps is among them, and one that is no longer owned leaves the view.
func TestIncompleteSyncsAndShards(t *testing.T) {
	b := newTestBucket()
	one, two := putBlock(b, 1), putBlock(b, 2)
	s := &fakeShard{}
	s.own(one, two)
	cat := newCatalog(t, Options{Bucket: b, Shard: s})
	b.faults.Set(failLists(faultstore.ListingError, 0))
	if err := cat.Sync(t.Context()); err == nil || s.handed != nil {
		t.Errorf("a sync without a listing: %v, handed %v", err, s.handed)
	}
	b.faults.Set()
	if err := cat.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.faults.Set(failLists(faultstore.ListingError, 0))
	s.handed = nil
	if err := cat.Sync(t.Context()); err == nil || len(s.handed) != 2 {
		t.Errorf("an incomplete sync: %v, handed %v, want both blocks", err, s.handed)
	}
	s.own(two)
	if err := cat.Sync(t.Context()); err == nil {
		t.Error("the listing did not fail")
	}
	if got := viewIDs(cat.View()); !slices.Equal(got, []ulid.ULID{two}) {
		t.Errorf("served: %v, want the owned block", got)
	}
}
