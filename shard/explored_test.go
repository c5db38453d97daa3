package shard

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// explored is one exploration. It ends when no state is left, or at its limit: then it has visited
// all histories up to some length.
type explored struct {
	name   string
	faults faultSet
	last   uint8 // 2 ends with the growth, 3 with the shrink
	limit  int   // of states without LARDER_LONG
	fine   bool  // members poll one by one
	// grown starts in epoch 2, and ahead when all members have read it. These have fewer states
	// than histories in which pods start and members read the file at any time.
	grown, ahead bool
	// must says that the exploration is known to be exhaustive. A long one is so with LARDER_LONG
	// alone, and ends early without.
	long, must bool
}

// TestTheLawHolds explores the shipped code. LARDER_LONG=1 lets each exploration visit up to 100
// million states, which need 5 GB of memory.
func TestTheLawHolds(t *testing.T) {
	all := faultSet{
		budget: 2, crash: true, lose: true, cut: true, compact: true, duplicate: true, mixed: true,
	}
	one := func(f faultSet) faultSet {
		f.budget = 1
		return f
	}
	const few, most = 50_000, 12_000_000
	crash, lose, cut := faultSet{crash: true}, faultSet{lose: true}, faultSet{cut: true}
	list := []explored{
		{name: "3 to 5 to 3", last: 3, limit: most, must: true},
		{name: "5 to 3", last: 3, limit: most, grown: true, must: true},
		{name: "3 to 5 once read, a crash", faults: one(crash), last: 2, limit: most, ahead: true,
			must: true},
		{name: "3 to 5 once read, a lost disk", faults: one(lose), last: 2, limit: most,
			ahead: true, must: true},
		{name: "3 to 5 once read, an unreachable peer", faults: one(cut), last: 2, limit: most,
			ahead: true, must: true},
		{name: "3 to 5 once read, a duplicate", faults: one(faultSet{duplicate: true}), last: 2,
			limit: few, ahead: true, must: true, long: true},
		{name: "3 to 5 once read, a compaction", faults: one(faultSet{compact: true}), last: 2,
			limit: few, ahead: true, must: true, long: true},
		{name: "3 to 5 to 3 once read, a crash", faults: one(crash), last: 3, limit: few,
			ahead: true, must: true, long: true},
		{name: "3 to 5 to 3 once read, an unreachable peer", faults: one(cut), last: 3, limit: few,
			ahead: true, must: true, long: true},
		{name: "3 to 5 to 3 once read, a lost disk", faults: one(lose), last: 3, limit: few,
			ahead: true, must: true, long: true},
		{name: "3 to 5, a report of another cluster", faults: one(faultSet{stray: true}), last: 2,
			limit: few},
		{name: "3 to 5 to 3, two counts", faults: one(faultSet{mixed: true}), last: 3, limit: few},
		{name: "3 to 5 once read, a crash and an unreachable peer, in any order or twice",
			faults: faultSet{budget: 2, crash: true, cut: true}, last: 2, limit: few, ahead: true},
		{name: "3 to 5, a crash", faults: one(crash), last: 2, limit: few},
		{name: "3 to 5 to 3, polls one by one", last: 3, limit: few, fine: true},
		{name: "3 to 5 to 3, two faults", faults: all, last: 3, limit: few},
	}
	long := os.Getenv("LARDER_LONG") != ""
	for _, e := range list {
		t.Run(e.name, func(t *testing.T) {
			if !long {
				t.Parallel()
			}
			x := newModel(rules{}, e.faults)
			x.last, x.limit, x.fine, x.grown, x.ahead = e.last, e.limit, e.fine, e.grown, e.ahead
			x.symmetric = !e.faults.mixed
			if long {
				x.limit = 100_000_000
			} else if testing.Short() {
				x.limit = min(x.limit, 50_000)
			}
			x.explore()
			what := fmt.Sprintf("all histories of at most %d steps", x.depth)
			if x.exhausted {
				what = "exhaustive"
			}
			t.Logf("%s: %d states, %s; %d states of members", e.name, x.seen.n, what, len(x.nodes))
			if x.broken != "" {
				t.Error(x.broken)
			}
			if e.must && (long || !e.long && !testing.Short()) && !x.exhausted {
				t.Errorf("not exhaustive within %d states", x.limit)
			}
			if x.exhausted && !x.completed {
				t.Error("no history ended with all hand-overs done")
			}
		})
	}
}

// TestTheLawHoldsAfterForce explores a growth in which a process is gone for good. The operator
// tells each other one to go on without it, at any time. The law holds for those that are left.
func TestTheLawHoldsAfterForce(t *testing.T) {
	for gone := range twin {
		t.Run(slotID(gone, 0).String(), func(t *testing.T) {
			t.Parallel()
			x := newModel(rules{}, faultSet{})
			x.last, x.limit, x.ahead, x.gone = 2, 2_000_000, true, gone+1
			x.explore()
			t.Logf("%d states, exhaustive: %v", x.seen.n, x.exhausted)
			if x.broken != "" {
				t.Error(x.broken)
			}
			if !x.exhausted || !x.completed {
				t.Errorf("exhaustive: %v, all hand-overs done: %v", x.exhausted, x.completed)
			}
		})
	}
}

// TestReductionsLoseNothing: each world that an exploration without reductions reaches is, reduced,
// one that the exploration with them reaches, with as many faults left. So the law was checked for
// it and for all that follows.
func TestReductionsLoseNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to find here, and makes it slow")
	}
	for name, f := range map[string]faultSet{
		"no fault":            {},
		"a crash":             {budget: 1, crash: true},
		"a lost disk":         {budget: 1, lose: true},
		"an unreachable peer": {budget: 1, cut: true},
	} {
		for _, grown := range []bool{false, true} {
			if grown && f.budget > 0 {
				continue // has too many worlds
			}
			t.Run(fmt.Sprint(name, ", grown ", grown), func(t *testing.T) {
				t.Parallel()
				reduced, plain := newModel(rules{}, f), newModel(rules{}, f)
				for _, x := range []*model{reduced, plain} {
					x.symmetric, x.grown, x.ahead = true, grown, !grown
					if !grown {
						x.last = 2
					}
				}
				reduced.explore()
				plain.plain, plain.limit = true, 20_000
				if f.budget == 0 && !grown {
					plain.limit = 200_000 // these are all
				}
				images := map[uint64]bool{}
				plain.each = func(w world) {
					image := reduced.image(plain, w)
					hash := reduced.hash(&image)
					if faults, ok := reduced.seen.has(hash); !ok || faults < w.faults {
						t.Errorf("not reached:%s\n%s", plain.describe(&w),
							plain.history(plain.hash(&w)))
					}
					images[hash] = true
				}
				plain.explore()
				t.Logf("%d worlds are %d of %d reduced ones", plain.seen.n, len(images),
					reduced.seen.n)
				if len(images) < 400 || !reduced.exhausted || reduced.broken != "" {
					t.Error("too few worlds were compared, or the law is broken")
				}
			})
		}
	}
}

// TestZonesAreSymmetric: the worlds that follow the image of a world are the images of those that
// follow the world, so that one of both is enough.
func TestZonesAreSymmetric(t *testing.T) {
	for _, f := range []faultSet{{}, {
		budget: 2, crash: true, lose: true, cut: true, compact: true, duplicate: true,
	}} {
		x := newModel(rules{}, f)
		x.last = 3
		rng := rand.New(rand.NewPCG(5, 6))
		follow := func(w world, image bool) map[world]bool {
			set := map[world]bool{}
			x.next(w, func(_ string, to world) {
				if x.reduce(&to); image {
					to = x.mirror(to)
				}
				set[to] = true
			})
			return set
		}
		checked := 0
		for range 100 {
			w := x.start()
			x.reduce(&w)
			for range 60 {
				if back := x.mirror(x.mirror(w)); back != w {
					t.Fatalf("the image of the image of %+v is %+v", w, back)
				}
				images, after := follow(w, true), follow(x.mirror(w), false)
				if !maps.Equal(images, after) {
					t.Fatalf("%d worlds follow, and %d follow the image, not their images:%s",
						len(images), len(after), x.describe(&w))
				}
				checked++
				var list []world
				for to := range after {
					list = append(list, to)
				}
				slices.SortFunc(list, func(a, b world) int {
					return bytes.Compare(appendWorld(nil, &a), appendWorld(nil, &b))
				})
				if len(list) == 0 {
					break
				}
				w = list[rng.IntN(len(list))]
			}
		}
		t.Logf("%d worlds and their images", checked)
	}
}

// TestExplorationFindsBrokenRules breaks the decision code, one rule at a time.
func TestExplorationFindsBrokenRules(t *testing.T) {
	lose := faultSet{budget: 1, lose: true}
	stray := faultSet{budget: 1, stray: true}
	for name, e := range map[string]struct {
		rules  rules
		faults faultSet
		last   uint8
	}{
		"a drop without confirmation":         {rules{dropUnconfirmed: true}, faultSet{}, 2},
		"a commit without members":            {rules{commitPartly: true}, faultSet{}, 2},
		"ready below the highest epoch":       {rules{readyBelow: true}, lose, 2},
		"a drop before the Querier wait":      {rules{dropEarly: true}, faultSet{}, 2},
		"an epoch before the drops":           {rules{acceptEarly: true}, faultSet{}, 3},
		"a drop before a Querier asked":       {rules{dropUnasked: true}, faultSet{}, 2},
		"an epoch of another cluster":         {rules{inheritAny: true}, stray, 2},
		"a start with the newest epoch alone": {rules{inheritNewest: true}, lose, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newModel(e.rules, e.faults)
			x.last, x.limit = e.last, 3_000_000
			x.symmetric = !e.rules.commitPartly // its start is not
			x.ahead = !e.rules.dropUnconfirmed
			if e.rules.acceptEarly {
				x.third = 5
			}
			x.explore()
			if x.broken == "" {
				t.Errorf("not found in %d states", x.seen.n)
			}
			t.Logf("found after %d states: %s", x.seen.n, x.broken)
		})
	}
}

// TestStoppedMembersAnswerNothing: the Querier of the model asks no process that is down. What such
// a process served last would count as its Info otherwise.
func TestStoppedMembersAnswerNothing(t *testing.T) {
	x := newModel(rules{}, faultSet{budget: 1, crash: true})
	x.grown = true
	for _, kind := range []uint8{stepStop, stepLose} {
		for slot := range twin {
			w := x.start()
			ordinal := slotID(slot, 0).Ordinal
			if got := x.answering(&w, ordinal); len(got) != 2 {
				t.Fatalf("slots %d of ordinal %d answer before a fault, want two", got, ordinal)
			}
			x.run(&w, slot, kind, 0)
			if got, want := x.answering(&w, ordinal), []int{slot ^ 1}; !slices.Equal(got, want) {
				t.Errorf("slot %d is down, and slots %d of its group answer, want %d",
					slot, got, want)
			}
		}
	}
}

// TestTheLawHoldsInLongHistories follows random histories from the start to the end of 3 to 5 to 3,
// with two faults of any kind. With LARDER_LONG=1 it does so with twenty seeds.
func TestTheLawHoldsInLongHistories(t *testing.T) {
	seeds, walks := 1, 2000
	if testing.Short() {
		walks = 200
	}
	if os.Getenv("LARDER_LONG") != "" {
		seeds = 20
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			followHistories(t, uint64(seed), walks)
		})
	}
}

// followHistories follows random histories with one seed.
func followHistories(t *testing.T, seed uint64, walks int) {
	x := newModel(rules{}, faultSet{
		budget: 2, crash: true, lose: true, cut: true, compact: true, duplicate: true,
	})
	rng := rand.New(rand.NewPCG(8, 9+seed))
	seen, done := map[world]bool{}, 0
	for walk := range walks {
		w := x.start()
		x.reduce(&w)
		var path []uint64
		for range 150 {
			var after []world
			x.next(w, func(_ string, to world) {
				if x.reduce(&to); to != w && (to.faults == w.faults || rng.IntN(60) == 0) {
					after = append(after, to)
				}
			})
			if len(after) == 0 {
				break // all waits for a fault
			}
			w = after[rng.IntN(len(after))]
			seen[w] = true
			path = append(path, x.hash(&w))
			if wrong := x.check(&w); wrong != "" {
				t.Fatalf("walk %d: %s:\n%s", walk, wrong, x.tell(path))
			}
			if w.groups == 3 && x.done(&w, 3) {
				done++
				break
			}
		}
	}
	t.Logf("%d states in %d histories, of which %d came to the end; in %d states a member that "+
		"started alone loses a block", len(seen), walks, done, x.gaps)
	if done == 0 {
		t.Error("no history came to the end")
	}
}
