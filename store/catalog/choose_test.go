package catalog

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

func testID(n uint64) ulid.ULID {
	var id ulid.ULID
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

func describe(blocks []*Block) []string {
	out := []string{}
	for _, b := range blocks {
		out = append(out, fmt.Sprintf("%d:[%d,%d)", b.Resolution, b.MinTime, b.MaxTime))
	}
	return out
}

func oneSet(t testing.TB, blocks []*Block) (*View, *Set) {
	t.Helper()
	v := NewView(blocks, true)
	if len(blocks) == 0 {
		return v, &Set{}
	}
	if len(v.Sets) != 1 {
		t.Fatalf("got %d sets, want 1", len(v.Sets))
	}
	return v, v.Sets[0]
}

func TestChoose(t *testing.T) {
	var n uint64
	b := func(resolution, mint, maxt int64) *Block {
		n++
		return &Block{ID: testID(n), Resolution: resolution, MinTime: mint, MaxTime: maxt}
	}
	f := func(name string, blocks []*Block, mint, maxt, maxResolution int64, want ...string) {
		t.Helper()
		v, set := oneSet(t, blocks)
		if want == nil {
			want = []string{}
		}
		if diff := cmp.Diff(
			want, describe(v.Choose(set, mint, maxt, maxResolution, nil))); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
	const m5, h1 = Resolution5m, Resolution1h

	f("nothing", nil, 0, 100, h1)
	f("empty range", []*Block{b(0, 0, 100)}, 50, 49, 0)
	f(
		"half open block, closed range", []*Block{b(0, 0, 100), b(0, 100, 200), b(0, 200, 300)},
		100, 200, 0, "0:[100,200)", "0:[200,300)",
	)
	f("one millisecond", []*Block{b(0, 0, 100), b(0, 100, 200)}, 99, 99, 0, "0:[0,100)")
	f("window 0 is raw only", []*Block{b(m5, 0, 100), b(h1, 0, 100)}, 0, 100, 0)
	f("window below 5m is raw", []*Block{b(m5, 0, 100), b(0, 0, 50)}, 0, 100, m5-1, "0:[0,50)")
	f("negative window is raw", []*Block{b(m5, 0, 100), b(0, 0, 50)}, 0, 100, -7, "0:[0,50)")
	f(
		"window between levels", []*Block{b(h1, 0, 100), b(m5, 0, 100), b(0, 0, 100)}, 0, 100, h1-1,
		fmt.Sprintf("%d:[0,100)", m5),
	)
	f("never coarser", []*Block{b(h1, 0, 100), b(0, 200, 300)}, 0, 300, m5, "0:[200,300)")
	f("all levels in turn", []*Block{b(h1, 0, 100), b(m5, 0, 200), b(0, 0, 300)}, 0, 299, h1,
		fmt.Sprintf("%d:[0,100)", h1), fmt.Sprintf("%d:[0,200)", m5), "0:[0,300)")
	f(
		"filled two levels down", []*Block{b(h1, 0, 100), b(0, 100, 200)}, 0, 199, h1,
		fmt.Sprintf("%d:[0,100)", h1), "0:[100,200)",
	)
	// Thanos reads the raw block twice here.
	f(
		"one block, two gaps", []*Block{b(0, 0, 400), b(m5, 100, 200)}, 0, 399, m5, "0:[0,400)",
		fmt.Sprintf("%d:[100,200)", m5),
	)
	// Thanos goes back to 500 after the inner block and reads raw [500,599] again.
	f("nested", []*Block{b(m5, 300, 600), b(m5, 400, 500), b(0, 300, 600)}, 300, 599, m5,
		fmt.Sprintf("%d:[300,600)", m5), fmt.Sprintf("%d:[400,500)", m5))
	f(
		"replicas of one range", []*Block{b(0, 0, 100), b(0, 0, 100)}, 0, 99, 0, "0:[0,100)",
		"0:[0,100)",
	)
	f(
		"ends of time",
		[]*Block{b(0, math.MinInt64, math.MaxInt64), b(m5, -5, 5)},
		math.MinInt64,
		math.MaxInt64,
		h1,
		fmt.Sprintf(
			"0:[%d,%d)", int64(math.MinInt64), int64(math.MaxInt64),
		),
		fmt.Sprintf("%d:[-5,5)", m5),
	)
}

// definition implements the contract of Choose millisecond by millisecond: a block is chosen if
// some requested millisecond of its range is in no chosen block of a coarser allowed level.
func definition(set *Set, mint, maxt, maxResolution int64) []*Block {
	covered := map[int64]bool{}
	var out []*Block
	for level := len(resolutions) - 1; level >= 0; level-- {
		if resolutions[level] > maxResolution && level > 0 {
			continue
		}
		var chosen []*Block
		for _, b := range set.ByResolution[level] {
			for ms := max(mint, b.MinTime); ms <= maxt && ms < b.MaxTime; ms++ {
				if !covered[ms] {
					chosen = append(chosen, b)
					break
				}
			}
		}
		for _, b := range chosen {
			for ms := b.MinTime; ms < b.MaxTime; ms++ {
				covered[ms] = true
			}
		}
		out = append(out, chosen...)
	}
	slices.SortFunc(out, compareBlocks)
	return out
}

// recursion implements Thanos's choice: the gaps before each block and after the last are filled
// from the next finer level. The start follows every block, backwards too.
func recursion(set *Set, mint, maxt int64, level int) []*Block {
	if mint > maxt {
		return nil
	}
	var out []*Block
	start := mint
	for _, b := range set.ByResolution[level] {
		if b.MaxTime <= mint || b.MinTime > maxt {
			continue
		}
		if level > 0 {
			out = append(out, recursion(set, start, b.MinTime-1, level-1)...)
		}
		out = append(out, b)
		start = b.MaxTime
	}
	if level > 0 {
		out = append(out, recursion(set, start, maxt, level-1)...)
	}
	return out
}

func TestChooseAgainstModels(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	duplicates, nested, filled := 0, 0, 0
	for round := range 20_000 {
		// Half of the layouts have no block inside another of its level; there Thanos's recursion
		// must agree.
		flat := round%2 == 0
		var blocks []*Block
		n := uint64(0)
		for _, res := range resolutions {
			at := rng.Int64N(10)
			for range rng.IntN(6) {
				length := 1 + rng.Int64N(12)
				mint := at
				if flat {
					at += 1 + rng.Int64N(length+3) // overlaps, touches, or leaves a gap
					length = max(length, 1)
				} else {
					mint = rng.Int64N(40)
				}
				n++
				blocks = append(
					blocks,
					&Block{ID: testID(n), Resolution: res, MinTime: mint, MaxTime: mint + length},
				)
			}
		}
		v, set := oneSet(t, blocks)
		if flat && !monotone(set) {
			continue
		}
		mint := rng.Int64N(45) - 2
		maxt := mint + rng.Int64N(45)
		level := rng.IntN(len(resolutions))
		maxRes := resolutions[level] + rng.Int64N(2)

		got := v.Choose(set, mint, maxt, maxRes, nil)
		if diff := cmp.Diff(describe(definition(set, mint, maxt, maxRes)),
			describe(got)); diff != "" {
			t.Fatalf(
				"round %d: [%d,%d] up to %d of %v: (-want +got)\n%s", round, mint, maxt, maxRes,
				describe(blocks), diff,
			)
		}
		seen := map[*Block]bool{}
		for _, b := range got {
			if seen[b] {
				t.Fatalf("round %d: block %v chosen twice", round, describe([]*Block{b}))
			}
			seen[b] = true
			if b.Resolution < maxRes && level > 0 {
				filled++
			}
		}
		theirs := recursion(set, mint, maxt, level)
		unique := map[*Block]bool{}
		for _, b := range theirs {
			unique[b] = true
		}
		if len(unique) < len(theirs) {
			duplicates++
		}
		for b := range seen {
			if !unique[b] {
				t.Fatalf("round %d: chose %v, which Thanos does not", round, describe([]*Block{b}))
			}
		}
		if flat && len(unique) != len(seen) {
			t.Fatalf(
				"round %d: [%d,%d] up to %d of %v: got %v, Thanos has %v", round, mint, maxt,
				maxRes, describe(blocks), describe(got), describe(theirs),
			)
		}
		if len(unique) != len(seen) {
			nested++
		}
	}
	if duplicates < 100 || nested < 10 || filled < 1000 {
		t.Errorf(
			"layouts are too tame: %d with duplicates, %d nested, %d filled", duplicates, nested,
			filled,
		)
	}
}

// monotone reports whether, level by level, blocks end in the order in which they begin.
func monotone(set *Set) bool {
	for _, blocks := range set.ByResolution {
		if !slices.IsSortedFunc(
			blocks, func(a, b *Block) int { return int(a.MaxTime - b.MaxTime) },
		) {
			return false
		}
	}
	return true
}

func TestChooseAppendsAndDoesNotAllocate(t *testing.T) {
	var blocks []*Block
	for i := range int64(1000) {
		blocks = append(blocks, &Block{ID: testID(uint64(i)), MinTime: i * 10, MaxTime: i*10 + 10})
	}
	v, set := oneSet(t, blocks)
	mark := &Block{}
	got := v.Choose(set, 5000, 5019, 0, []*Block{mark})
	if len(got) != 3 || got[0] != mark || got[1].MinTime != 5000 || got[2].MinTime != 5010 {
		t.Errorf("got %v", describe(got))
	}
	dst := make([]*Block, 0, 100)
	if n := testing.AllocsPerRun(100, func() {
		v.Choose(set, 4000, 4500, Resolution1h, dst)
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func TestNewView(t *testing.T) {
	a, b := labels.FromStrings("replica", "a"), labels.FromStrings("replica", "b")
	blocks := []*Block{
		{ID: testID(3), MinTime: 20, MaxTime: 30, Labels: b},
		{ID: testID(2), MinTime: 0, MaxTime: 30, Labels: a, Resolution: Resolution5m},
		{ID: testID(1), MinTime: 0, MaxTime: 20, Labels: b},
		{ID: testID(5), MinTime: -5, MaxTime: 20},
		{ID: testID(4), MinTime: 0, MaxTime: 20, Labels: b},
	}
	v := NewView(blocks, true)
	var order []uint64
	for _, x := range v.Blocks {
		order = append(order, binary.BigEndian.Uint64(x.ID[8:]))
		if v.ByID(x.ID) != x {
			t.Errorf("ByID(%s) is not the block", x.ID)
		}
	}
	if diff := cmp.Diff([]uint64{5, 1, 4, 2, 3}, order); diff != "" {
		t.Errorf("order of blocks (-want +got)\n%s", diff)
	}
	var sets []string
	for _, s := range v.Sets {
		sets = append(
			sets,
			fmt.Sprintf("%s [%d,%d] raw=%d 5m=%d 1h=%d", s.Labels, s.MinTime, s.MaxTime,
				len(s.ByResolution[0]), len(s.ByResolution[1]), len(s.ByResolution[2])),
		)
	}
	want := []string{
		`{replica="a"} [0,30] raw=0 5m=1 1h=0`,
		`{replica="b"} [0,30] raw=3 5m=0 1h=0`,
		`{} [-5,20] raw=1 5m=0 1h=0`,
	}
	if diff := cmp.Diff(want, sets); diff != "" {
		t.Errorf("sets (-want +got)\n%s", diff)
	}
	if v.MinTime != -5 || v.MaxTime != 30 {
		t.Errorf("got [%d,%d], want [-5,30]", v.MinTime, v.MaxTime)
	}
	if e := NewView(nil, false); e.MinTime != math.MaxInt64 || e.MaxTime != math.MinInt64 ||
		e.Ready ||
		e.ByID(testID(1)) != nil {
		t.Errorf("empty view: %+v", e)
	}
	if blocks[0].MinTime != 20 {
		t.Error("NewView sorted the caller's slice")
	}
}
