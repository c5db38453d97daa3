package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
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

// TestTimePartitionsCombineWithShards: of two time partitions with three shards each, one process
// serves each block. A block in both partitions is served by the same ordinal of each. A shard is
// handed its blocks of its partition only.
func TestTimePartitionsCombineWithShards(t *testing.T) {
	const shards = 3
	b := newTestBucket()
	want := map[ulid.ULID]int{} // how many partitions have the block
	for i, times := range []struct{ from, to, partitions int }{
		{0, 10_000, 1}, {40_000, 60_000, 2}, {90_000, 100_000, 1},
	} {
		for n := range uint64(20) {
			id := testID(uint64(i)*20 + n)
			b.put(id.String()+"/"+metaFile, strings.Replace(smallMeta(id),
				`"minTime": 0, "maxTime": 10`,
				fmt.Sprintf(`"minTime": %d, "maxTime": %d`, times.from, times.to), 1))
			want[id] = times.partitions
		}
	}
	middle, err := ParseTimeOrDuration("1970-01-01T00:00:50Z")
	if err != nil {
		t.Fatal(err)
	}
	served := map[ulid.ULID]int{}
	for ordinal := range shards {
		var owned []ulid.ULID
		for id := range want {
			if shard.Owner(id, shards) == ordinal {
				owned = append(owned, id)
			}
		}
		for _, opts := range []Options{{MaxTime: middle}, {MinTime: middle}} {
			s := &fakeShard{}
			s.own(owned...)
			opts.Bucket, opts.Shard = b, s
			cat := newCatalog(t, opts)
			mustSync(t, cat)
			ids := viewIDs(cat.View())
			if len(ids) == 0 {
				t.Errorf("ordinal %d serves nothing of a partition", ordinal)
			}
			for _, id := range ids {
				if served[id]++; !slices.Contains(owned, id) {
					t.Errorf("ordinal %d serves a block of another", ordinal)
				}
			}
			if len(s.handed) != len(ids) {
				t.Errorf("ordinal %d was handed %d blocks, and serves %d", ordinal, len(s.handed),
					len(ids))
			}
		}
	}
	if !maps.Equal(served, want) {
		t.Errorf("blocks are served by this many processes: %v, want %v", served, want)
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
