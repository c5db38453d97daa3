package pagecache

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"larder/internal/bucket/cost"
)

// parsePages parses page numbers such as "1 3-5 9".
func parsePages(t *testing.T, s string) []int64 {
	t.Helper()
	var out []int64
	for _, f := range strings.Fields(s) {
		from, to, isRange := strings.Cut(f, "-")
		if !isRange {
			to = from
		}
		a, err := strconv.ParseInt(from, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		b, err := strconv.ParseInt(to, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for ; a <= b; a++ {
			out = append(out, a)
		}
	}
	return out
}

// TestPlan: `plan [size=<bytes>] [max=<bytes>] [gap=<bytes>] [price=<duration>]` plans reads for
// the pages of 1 KiB in its input.
func TestPlan(t *testing.T) {
	datadriven.RunTest(t, "testdata/plan", func(t *testing.T, d *datadriven.TestData) string {
		size, m := int64(1<<40), cost.Model{}
		d.MaybeScanArgs(t, "size", &size)
		d.MaybeScanArgs(t, "max", &m.MaxRead)
		d.MaybeScanArgs(t, "gap", &m.MaxGap)
		if d.HasArg("price") {
			var s string
			d.ScanArgs(t, "price", &s)
			var err error
			if m.PerRequest, err = time.ParseDuration(s); err != nil {
				t.Fatal(err)
			}
		}
		g := geometry{shift: 10, size: size}
		need := parsePages(t, d.Input)
		var b strings.Builder
		var read, needed int64
		for _, no := range need {
			needed += g.pageLen(no)
		}
		for _, r := range plan(g, need, m) {
			off, end := g.bounds(r)
			fmt.Fprintf(&b, "%d-%d [%d,%d)\n", r.first, r.last, off, end)
			read += end - off
		}
		fmt.Fprintf(&b, "%d bytes for %d", read, needed)
		return b.String()
	})
}

// TestPlanKeepsItsBounds checks the promises of plan on random input.
func TestPlanKeepsItsBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		pages := 1 + rng.Int64N(200)
		g := geometry{shift: 10, size: pages<<10 - rng.Int64N(1024)}
		m := cost.Model{MaxRead: (1 + rng.Int64N(20)) << 10, MaxGap: rng.Int64N(5)<<10 - 1}
		density := rng.Float64()
		var need []int64
		for no := range pages {
			if rng.Float64() < density {
				need = append(need, no)
			}
		}
		reads := plan(g, need, m)
		at, prev := 0, int64(-1)
		for _, r := range reads {
			off, end := g.bounds(r)
			if r.first <= prev || r.last < r.first || end > g.size || end-off > m.MaxRead {
				t.Fatalf("%+v: reads %v of pages %v, %d bytes", m, reads, need, g.size)
			}
			prev = r.last
			if at == len(need) || need[at] != r.first {
				t.Fatalf("a read does not start with a needed page: %v of %v", reads, need)
			}
			for at < len(need) && need[at] <= r.last {
				at++
			}
			if need[at-1] != r.last {
				t.Fatalf("a read does not end with a needed page: %v of %v", reads, need)
			}
		}
		if at != len(need) {
			t.Fatalf("reads %v do not cover pages %v", reads, need)
		}
	}
}
