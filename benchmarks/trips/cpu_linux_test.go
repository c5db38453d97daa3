package trips

import (
	"syscall"
	"testing"
	"time"

	"github.com/thanos-io/objstore/providers/filesystem"
	"google.golang.org/protobuf/proto"

	"larder/benchmarks/inprocess"
	"larder/benchmarks/scenario"
	"larder/internal/extent"
)

// cpuRatio is a bound on the CPU time of a request, as a part of that of the same request to a
// gateway without what makes it cheap. Both are measured in one run, in turns. Therefore the ratio
// hardly depends on the machine.
type cpuRatio struct {
	name, query string
	// without removes what makes the request cheap.
	without func(*inprocess.Options)
	most    float64
}

func cpuRatios() []cpuRatio {
	return []cpuRatio{
		{"a repeated scan from its series set", "scan",
			func(o *inprocess.Options) { o.SeriesSetBytes = -1 }, 0.5},
		{"a repeated request from cached pages", "metric",
			func(o *inprocess.Options) {
				o.Index.NoPages, o.SeriesSetBytes, o.Chunks.MaxBytes = true, -1, -1
			}, 0.75},
	}
}

// slowed is how many times the CPU time of a gateway grows that the bounds must catch.
const slowed = 3

// TestCPURatios checks the bounds, and that they catch a gateway that works so many times longer,
// although it still has what makes requests cheap.
func TestCPURatios(t *testing.T) {
	gd := newGuarded(t)
	for _, c := range cpuRatios() {
		t.Run(c.name, func(t *testing.T) {
			s := &scenario.Scenario{Query: c.query, Cache: scenario.Cold, Requests: 1}
			requests, err := gd.document.Schedule(s, &gd.about, 1)
			if err != nil {
				t.Fatal(err)
			}
			m := requests[0].Message
			good, bad := openWarm(t, gd, m, nil), openWarm(t, gd, m, c.without)
			got := ratio(t, m, good, bad, 1)
			if got > c.most {
				t.Errorf("takes %.2f of the CPU time, want at most %.2f", got, c.most)
			}
			worse := ratio(t, m, good, bad, slowed)
			if worse <= c.most {
				t.Errorf("the guard does not catch a slow gateway: %.2f, bound %.2f", worse,
					c.most)
			}
			t.Logf("%.2f of the CPU time, %.2f if slow, bound %.2f", got, worse, c.most)
		})
	}
}

// openWarm opens a gateway that has answered a request.
func openWarm(
	t *testing.T, gd *guarded, m proto.Message, change func(*inprocess.Options),
) *inprocess.Gateway {
	t.Helper()
	fs, err := filesystem.NewBucket(gd.bucket)
	if err != nil {
		t.Fatal(err)
	}
	opts := inprocess.Options{Bucket: extent.Stating(fs), Dir: t.TempDir()}
	if change != nil {
		change(&opts)
	}
	g, err := inprocess.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	if err := g.Catalog.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := send(t.Context(), g, m); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// ratio returns the CPU time of a request to one gateway, divided by that to another. It asks in
// turns, and compares the cheapest turns, because others include work of the runtime. The first
// gateway does all its work so many times.
func ratio(t *testing.T, m proto.Message, one, other *inprocess.Gateway, times int) float64 {
	t.Helper()
	const turns, asks = 8, 5
	cheapest := [2]time.Duration{time.Hour, time.Hour}
	for range turns {
		for i, g := range []*inprocess.Gateway{one, other} {
			before := cpuTime(t)
			n := asks
			if i == 0 {
				n *= times
			}
			for range n {
				if _, err := send(t.Context(), g, m); err != nil {
					t.Fatal(err)
				}
			}
			cheapest[i] = min(cheapest[i], cpuTime(t)-before)
		}
	}
	return float64(cheapest[0]) / float64(cheapest[1])
}

// cpuTime returns the CPU time of the process.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
