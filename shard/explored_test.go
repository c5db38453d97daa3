package shard

import (
	"fmt"
	"math/rand/v2"
	"os"
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
}

// TestTheLawHolds explores the shipped code. LARDER_LONG=1 lets each exploration visit up to 30
// million states.
func TestTheLawHolds(t *testing.T) {
	all := faultSet{
		budget: 2, crash: true, lose: true, cut: true, compact: true, duplicate: true, mixed: true,
	}
	one := func(f faultSet) faultSet {
		f.budget = 1
		return f
	}
	list := []explored{
		{"3 to 5 to 3", faultSet{}, 3, 2_000_000, false},
		{"3 to 5 to 3, polls one by one", faultSet{}, 3, 150_000, true},
		{"3 to 5, a crash", one(faultSet{crash: true}), 2, 150_000, false},
		{"3 to 5, a lost disk", one(faultSet{lose: true}), 2, 150_000, false},
		{"3 to 5, an unreachable peer", one(faultSet{cut: true}), 2, 150_000, false},
		{"3 to 5, a compaction", one(faultSet{compact: true}), 2, 150_000, false},
		{"3 to 5, a duplicate", one(faultSet{duplicate: true}), 2, 150_000, false},
		{"3 to 5 to 3, two counts", one(faultSet{mixed: true}), 3, 150_000, false},
		{"3 to 5 to 3, two faults", all, 3, 150_000, false},
	}
	long := os.Getenv("LARDER_LONG") != ""
	for _, e := range list {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			x := newModel(rules{}, e.faults)
			x.last, x.limit, x.fine = e.last, e.limit, e.fine
			if long {
				x.limit = 30_000_000
			} else if testing.Short() {
				x.limit = min(x.limit, 50_000)
			}
			x.explore()
			what := "all"
			if len(x.worlds) >= x.limit {
				steps := 0
				for i := x.from[len(x.from)-1]; i >= 0; i = x.from[i] {
					steps++
				}
				what = fmt.Sprintf("all histories of less than %d steps", steps)
			}
			t.Logf("%d states, %s; %d states of members", len(x.worlds), what, len(x.nodes))
			if x.broken != "" {
				t.Error(x.broken)
			}
			if what == "all" && !e.faults.mixed && e.last == 3 && !x.completed {
				t.Error("no history ended with all hand-overs done")
			}
		})
	}
}

// TestExplorationFindsBrokenRules breaks the decision code, one rule at a time.
func TestExplorationFindsBrokenRules(t *testing.T) {
	lose := faultSet{budget: 1, lose: true}
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
		"a start with the newest epoch alone": {rules{inheritNewest: true}, lose, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newModel(e.rules, e.faults)
			x.last, x.limit = e.last, 3_000_000
			x.ahead = !e.rules.dropUnconfirmed
			if e.rules.acceptEarly {
				x.third = 5
			}
			x.explore()
			if x.broken == "" {
				t.Errorf("not found in %d states", len(x.worlds))
			}
			t.Logf("found after %d states: %s", len(x.worlds), x.broken)
		})
	}
}

// TestTheLawHoldsInLongHistories follows random histories from the start to the end of 3 to 5 to 3,
// with two faults of any kind. With LARDER_LONG=1 they are twenty times as many.
func TestTheLawHoldsInLongHistories(t *testing.T) {
	walks := 2000
	if testing.Short() {
		walks = 200
	}
	if os.Getenv("LARDER_LONG") != "" {
		walks *= 20
	}
	x := newModel(rules{}, faultSet{
		budget: 2, crash: true, lose: true, cut: true, compact: true, duplicate: true,
	})
	rng := rand.New(rand.NewPCG(8, 9))
	seen, done := map[world]bool{}, 0
	for walk := range walks {
		w := x.start()
		x.rest(&w)
		x.from, x.worlds = []int32{-1}, []world{w}
		for range 150 {
			var after []world
			x.next(w, func(_ string, to world) {
				if x.rest(&to); to != w && (to.faults == w.faults || rng.IntN(60) == 0) {
					after = append(after, to)
				}
			})
			if len(after) == 0 {
				break // all waits for a fault
			}
			w = after[rng.IntN(len(after))]
			seen[w] = true
			x.from, x.worlds = append(x.from, int32(len(x.worlds)-1)), append(x.worlds, w)
			if wrong := x.check(&w); wrong != "" {
				t.Fatalf("walk %d: %s:\n%s%s", walk, wrong, x.history(int32(len(x.worlds)-1)),
					x.describe(&w))
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
