package promql

import (
	"context"
	"fmt"
	"regexp"
	"testing"

	"larder/interop/internal/fleet"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/promgen"
	"larder/interop/internal/settings"
)

// TestPrometheusBlocks: larder and a Querier give the same answers as Prometheus's engine over the
// same blocks. Prometheus's TSDB cuts the blocks: in the version that Thanos pins, in the one that
// larder pins, and in that one with its newest encodings. The answers are equal except for
// rounding, because the engine is the same and sees the same series in the same order. Only the
// newer version can open the newest encodings; there the reference is the same samples written by
// the older one.
//
// A Querier straightens counters before the engine sees them, which makes a difference at resets.
// There the reference is the same Querier over Thanos's own store.
func TestPrometheusBlocks(t *testing.T) {
	ctx := context.Background()
	s := newStage(t)
	seed := settings.Seed(t)
	old, current := s.writer(fleet.Thanos), s.writer(fleet.Larder)

	var addrs []string
	servers := []struct {
		name      string
		writer    *fleet.Writer
		newest    bool
		reference int // index of the server whose blocks the reference opens
		queries   int
	}{
		{"thanos-pinned", old, false, 0, settings.Choose(300, 4000)},
		{"larder-pinned", current, false, 1, settings.Choose(150, 1500)},
		{"newest-encodings", current, true, 0, settings.Choose(150, 1500)},
	}
	var dirs, thanos []string
	for _, x := range servers {
		dir := s.folder(x.name)
		if err := x.writer.Write(
			ctx, dir, fleet.Samples{Seed: seed, Blocks: 3, Newest: x.newest}); err != nil {
			t.Fatal(err)
		}
		bucket := fleet.Bucket{Dir: s.folder("bucket")}
		if _, err := bucket.Add(dir, map[string]string{"cluster": x.name}); err != nil {
			t.Fatal(err)
		}
		dirs, addrs = append(dirs, dir), append(addrs, s.larderOver(bucket.Dir))
		readable := fleet.Bucket{Dir: s.folder("readable")}
		if _, err := readable.Add(dirs[x.reference],
			map[string]string{"cluster": x.name}); err != nil {
			t.Fatal(err)
		}
		thanos = append(thanos, s.storeOver(readable.Dir))
	}
	q := s.querier(append(addrs, thanos...))
	for i, x := range servers {
		t.Run(x.name, func(t *testing.T) {
			compare(t, &comparison{
				seed: seed*10 + uint64(
					i,
				), queries: x.queries, about: "blocks of the TSDB (" + x.name + ")",
				options: promgen.Options{
					From: fleet.From, To: fleet.From + 3*fleet.BlockMillis,
					External: map[string][]string{"cluster": {x.name, "nowhere"}},
				},
				prometheus: s.openPrometheus(
					dirs[x.reference], map[string]string{"cluster": x.name},
				),
				larder: func(query promgen.Query) (*neighbour.Result, error) {
					return ask(q.Client, query, at(neighbour.Params{}, addrs[i:i+1]))
				},
				thanos: func(query promgen.Query) (*neighbour.Result, error) {
					return ask(q.Client, query, at(neighbour.Params{}, thanos[i:i+1]))
				},
			})
		})
	}
}

// counterFunction matches queries for which a Querier straightens counters.
var counterFunction = regexp.MustCompile(`\b(rate|increase|irate|resets)\(`)

// rounding is the largest relative difference of two sums of the same numbers in another order.
// Prometheus's engine iterates over hash maps of inner series; therefore its own answers differ in
// the last digit from one evaluation to the next.
const rounding = 1e-9

// answerer sends a query to a server.
type answerer func(promgen.Query) (*neighbour.Result, error)

// comparison compares larder's answers with Prometheus's.
type comparison struct {
	// seed is the generator's seed: ten times INTEROP_SEED plus a number for the test.
	seed       uint64
	queries    int
	about      string
	options    promgen.Options
	prometheus *fleet.Prometheus
	// larder and thanos are Queriers over the two gateways.
	larder, thanos answerer
	// each is called with every query and larder's answer; nil for no call.
	each func(promgen.Query, *neighbour.Result) (difference string)
}

func compare(t *testing.T, c *comparison) {
	t.Helper()
	g := promgen.New(c.seed, c.options)
	var n tally
	differences, rounded, straightened, undetermined := 0, 0, 0, 0
	for range c.queries {
		query := g.Next()
		reference := func() *neighbour.Result {
			r, err := evaluate(context.Background(), c.prometheus, query)
			if err != nil {
				t.Fatalf("seed %d: Prometheus: %v", c.seed, err)
			}
			return r
		}
		got, err := c.larder(query)
		if err != nil {
			t.Fatalf("seed %d: %s: %v", c.seed, query, err)
		}
		want := reference()
		n.add(want)
		d := differ(want, got, 0)
		switch {
		case d == "":
		case differ(want, got, rounding) == "":
			d = ""
			rounded++
		case counterFunction.MatchString(query.Text):
			straight, err := c.thanos(query)
			if err != nil {
				t.Fatalf("seed %d: %s: %v", c.seed, query, err)
			}
			d = differ(straight, got, rounding)
			straightened++
		case unsteady(want, reference):
			d = ""
			undetermined++
		}
		if d == "" && c.each != nil {
			d = c.each(query, got)
		}
		if d != "" {
			t.Errorf("INTEROP_SEED=%d: %s: %s", c.seed/10, query, d)
			if differences++; differences == maxReports {
				return
			}
		}
	}
	n.check(t)
	if straightened*10 > n.queries || rounded*25 > n.queries || undetermined*50 > n.queries+100 {
		t.Errorf(
			"of %d queries %d were compared with Thanos's store, %d differ in the last digits, %d have no stable answer: too many",
			n.queries, straightened, rounded, undetermined,
		)
	}
	t.Logf(
		"proved: %s: %s equal Prometheus's engine bit for bit, but %d in the last digits of sums; for %d, about counters that a Querier straightens, Thanos's store is the reference; %d Prometheus answers in several ways (seed %d)",
		c.about, &n, rounded, straightened, undetermined, c.seed/10,
	)
}

// unsteady reports whether the reference changes its answer when it is asked again.
func unsteady(want *neighbour.Result, reference func() *neighbour.Result) bool {
	const asks = 10
	for range asks {
		if differ(want, reference(), 0) != "" {
			return true
		}
	}
	return false
}

// differ describes where two answers differ, in data or in success.
func differ(want, got *neighbour.Result, tolerance float64) string {
	if want.OK() != got.OK() {
		return fmt.Sprintf("want error %q, got error %q", want.Error, got.Error)
	}
	return neighbour.Diff(want, got, tolerance)
}

func evaluate(
	ctx context.Context, p *fleet.Prometheus, q promgen.Query,
) (*neighbour.Result, error) {
	if q.Step == 0 {
		return p.Instant(ctx, q.Text, q.Start)
	}
	return p.Range(ctx, q.Text, q.Start, q.End, q.Step)
}
