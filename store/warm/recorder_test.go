package warm

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/store/catalog"
	"larder/store/storepb"
)

func blockOf(n int) *catalog.Block {
	b := &catalog.Block{ID: ulid.ULID{byte(n >> 16), byte(n >> 8), byte(n)}, MaxTime: int64(n)}
	b.Sources = []ulid.ULID{b.ID}
	return b
}

func equal(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}

// check compares a recorder's counts with its content.
func check(t *testing.T, r *Recorder) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	text, marks := int64(0), int64(0)
	for _, x := range r.sets {
		text += int64(len(x.key))
		marks += int64(len(x.marks)) * markSize
		for i, m := range x.marks {
			for b := range markBlocks {
				if (m.young|m.old)&(1<<b) != 0 && r.places[i*markBlocks+b].last == 0 {
					t.Errorf("a set is marked for the unused place %d", i*markBlocks+b)
				}
			}
		}
	}
	if text != r.textBytes || marks != r.markBytes {
		t.Errorf(
			"counted %d bytes of texts and %d of marks, there are %d and %d", r.textBytes,
			r.markBytes, text, marks,
		)
	}
	if len(r.places) != len(r.blocks)+len(r.free) {
		t.Errorf("%d places, %d blocks, %d free", len(r.places), len(r.blocks), len(r.free))
	}
	for id, at := range r.blocks {
		if r.places[at].id != id {
			t.Errorf("block %s is not at its place", id)
		}
	}
	if len(r.blocks) > maxBlocks || len(r.sets) > maxSets || r.textBytes > maxTextBytes ||
		r.markBytes > maxMarkBytes {
		t.Errorf(
			"%d blocks, %d sets, %d and %d bytes", len(r.blocks), len(r.sets), r.textBytes,
			r.markBytes,
		)
	}
}

// manyBlocks returns n blocks, the first with number from.
func manyBlocks(from, n int) (blocks []*catalog.Block) {
	for i := range n {
		blocks = append(blocks, blockOf(from+i))
	}
	return blocks
}

func TestRecorderIsBounded(t *testing.T) {
	for _, tc := range []struct {
		name string
		// new is the number of blocks of a request that the previous request did not use
		requests, blocks, new, length int
	}{
		{"many sets of a block", 3 * maxSets, 1, 0, 10},
		{"many blocks", 40, 1000, 1000, 10},
		{"more blocks at once than are recorded", 4, maxBlocks + 1000, 0, 10},
		{"more blocks than are recorded, one after another", 80, 1000, 1000, 10},
		{"many sets of many blocks", maxSets, 3000, 1, 10},
		{"long sets", 400, 30, 1, maxSetBytes - 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := NewRecorder()
				blocks := manyBlocks(0, tc.blocks+tc.new*tc.requests)
				for i := range tc.requests {
					time.Sleep(20 * time.Second) // blocks are evicted at most once a minute
					text := strings.Repeat("x", tc.length) + fmt.Sprint(i)
					r.Note(blocks[i*tc.new:][:tc.blocks], []*labels.Matcher{equal("a", text)}, nil)
					if i%(tc.requests/4) == 0 {
						check(t, r)
					}
				}
				check(t, r)
				file, _ := r.encode(nil)
				if _, ok := decode(file); !ok || len(file) > maxSnapshotBytes/2 {
					t.Errorf("a snapshot of %d bytes, decoded: %v", len(file), ok)
				}
				if sets, _ := r.hot(func(ulid.ULID) bool { return true }); len(sets) > maxHot {
					t.Errorf("got %d pairs to replay", len(sets))
				}
				// The last request is always recorded, with the blocks that fit the bound.
				last := appendKey(
					nil,
					[]*labels.Matcher{
						equal("a", strings.Repeat("x", tc.length)+fmt.Sprint(tc.requests-1)),
					},
					nil,
				)
				if s := r.sets[string(last)]; s == nil || len(s.marks) == 0 {
					t.Error("the last request is not recorded")
				}
			})
		})
	}

	r := NewRecorder()
	r.Note(
		[]*catalog.Block{blockOf(1)},
		[]*labels.Matcher{equal("a", strings.Repeat("x", maxSetBytes))}, nil,
	)
	if s := r.stats(); s.sets != 0 || s.tooLong != 1 || s.blocks != 1 {
		t.Errorf("a set that is too long: %+v", s)
	}
	r.Note([]*catalog.Block{blockOf(1)}, nil, nil)
	if s := r.stats(); s.sets != 0 {
		t.Errorf("no matchers: %+v", s)
	}
}

// TestFrequentSetsStay: sets that are used once do not evict sets that are used often. Sets that
// are no longer used are evicted.
func TestFrequentSetsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder()
		b := []*catalog.Block{blockOf(1)}
		has := func(want bool, value string) {
			t.Helper()
			sets, _ := r.hot(func(ulid.ULID) bool { return true })
			got := false
			for _, s := range sets {
				got = got ||
					s.key == string(
						appendKey(nil, []*labels.Matcher{equal("dashboard", value)}, nil),
					)
			}
			if got != want {
				t.Errorf("%s is hot: %v", value, got)
			}
		}
		for range 3 {
			r.Note(b, []*labels.Matcher{equal("dashboard", "old")}, nil)
		}
		for i := range 3 * maxSets {
			if i%50 == 0 {
				r.Note(b, []*labels.Matcher{equal("dashboard", "daily")}, nil)
			}
			r.Note(b, []*labels.Matcher{equal("once", fmt.Sprint(i))}, nil)
		}
		has(true, "daily")
		has(true, "old")
		time.Sleep(4 * halfLife)
		has(true, "daily")
		has(false, "old")
		check(t, r)
	})
}

func TestRequestsForTheSameSeriesAreOneSet(t *testing.T) {
	r := NewRecorder()
	b := []*catalog.Block{blockOf(1), blockOf(2)}
	x, y := equal("x", "1"), labels.MustNewMatcher(labels.MatchRegexp, "y", "a|b")
	r.Note(b, []*labels.Matcher{x, y}, []string{"replica", "a"})
	r.Note(b, []*labels.Matcher{y, x, y}, []string{"a", "replica", "a"})
	if s := r.stats(); s.sets != 1 || s.blocks != 2 {
		t.Errorf("%d sets of %d blocks, want one of two", s.sets, s.blocks)
	}
	r.Note(b, []*labels.Matcher{x, y}, []string{"a"})
	r.Note(b, []*labels.Matcher{x}, []string{"replica", "a"})
	if s := r.stats(); s.sets != 3 {
		t.Errorf("%d sets, want three", s.sets)
	}
	ms, without, err := parseKey(
		string(appendKey(nil, []*labels.Matcher{y, x}, []string{"replica", "a"})),
	)
	if err != nil {
		t.Fatal(err)
	}
	want := []*storepb.LabelMatcher{
		{Name: "x", Value: "1"},
		{Type: storepb.LabelMatcher_RE, Name: "y", Value: "a|b"},
	}
	for i, m := range ms {
		if m.Type != want[i].Type || m.Name != want[i].Name || m.Value != want[i].Value {
			t.Errorf("matcher %d: got %v, want %v", i, m, want[i])
		}
	}
	if diff := cmp.Diff([]string{"a", "replica"}, without); diff != "" || len(ms) != 2 {
		t.Errorf("%d matchers, %s", len(ms), diff)
	}
}

func TestRecorderIsConcurrent(t *testing.T) {
	r := NewRecorder()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				r.Note(
					[]*catalog.Block{blockOf(g), blockOf(i)},
					[]*labels.Matcher{equal("a", fmt.Sprint(i%100))}, nil,
				)
				switch i % 100 {
				case 10:
					r.Forget(func(id ulid.ULID) bool { return id[2]%2 == 0 })
				case 20:
					r.hot(func(ulid.ULID) bool { return true })
				case 30:
					payload, _ := r.encode(nil)
					saved, ok := decode(payload)
					if !ok {
						t.Error("a snapshot cannot be decoded")
					}
					r.merge(saved)
				}
			}
		})
	}
	wg.Wait()
	check(t, r)
}

// TestDashboardsOverManyBlocksStay: all sets of dashboards over many blocks are recorded, with the
// blocks of each.
func TestDashboardsOverManyBlocksStay(t *testing.T) {
	const blocks, queries = 5000, 40
	r := NewRecorder()
	all := manyBlocks(0, blocks)
	for q := range queries {
		r.Note(all[q:], []*labels.Matcher{equal("q", fmt.Sprint(q))}, nil)
	}
	check(t, r)
	want := 0
	for _, few := range []int{queries, blocks / 2, blocks - 1} {
		sets, _ := r.hot(func(id ulid.ULID) bool { return id == all[few].ID })
		if len(sets) != queries {
			t.Errorf("block %d: %d of %d sets", few, len(sets), queries)
		}
		want += len(sets)
	}
	// Far more pairs than the bound: exactly the bound.
	if sets, used := r.hot(func(ulid.ULID) bool { return true }); len(sets) != maxHot ||
		len(used) != blocks {
		t.Errorf("%d pairs of %d blocks", len(sets), len(used))
	}
}

// TestUnusedPairsAreForgotten: a set is forgotten for a block if it is no longer used on that
// block, even if it is used on others, and other sets are used on the block.
func TestUnusedPairsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder()
		old, cur := blockOf(1), blockOf(2)
		ask := func(value string, blocks ...*catalog.Block) {
			r.Note(blocks, []*labels.Matcher{equal("a", value)}, nil)
		}
		ask("x", old, cur)
		for range 10 {
			time.Sleep(halfLife / 2)
			ask("x", cur)
			ask("y", old)
		}
		got := map[ulid.ULID]int{}
		for id, sets := range hotOf(r) {
			got[id] = len(sets)
		}
		if got[old.ID] != 1 || got[cur.ID] != 1 {
			t.Errorf(
				"%d sets of the old block, %d of the other, want one of each", got[old.ID],
				got[cur.ID],
			)
		}
		check(t, r)
	})
}

// TestScoresLastForYears: the relation of new scores to old ones stays right, however long a
// process runs.
func TestScoresLastForYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder()
		for range 400 {
			time.Sleep(7 * halfLife)
			r.Note([]*catalog.Block{blockOf(1)}, []*labels.Matcher{equal("a", "x")}, nil)
			for _, sets := range hotOf(r) {
				for _, score := range sets {
					if score < 0.99 || score > 1.02 {
						t.Fatalf(
							"a score of %v for a request now and others half a day and longer ago",
							score,
						)
					}
				}
			}
		}
	})
}
