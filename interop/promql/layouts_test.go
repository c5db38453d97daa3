package promql

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/promgen"
	"larder/interop/internal/settings"
)

// TestQueryLayouts: over the worst buckets a Querier gives the same answers over larder as over
// Thanos's store: the random layouts of the differential test, with blocks that overlap, are
// nested, marked or downsampled, and labels that clash.
func TestQueryLayouts(t *testing.T) {
	ctx := context.Background()
	s := newStage(t)
	seed := settings.Seed(t)
	layouts := settings.Choose(2, 12)
	n := match{t: t}
	for i := range layouts {
		l, err := layout.Write(ctx, t.TempDir(), seed*1000+uint64(i)+500, layout.Options{})
		if err != nil {
			t.Fatal(err)
		}
		bucket := func(name string) gateway.Bucket {
			return gateway.Bucket{
				Dir:     l.Dir,
				DataDir: s.folder(name),
				MinTime: l.MinTime,
				MaxTime: l.MaxTime,
			}
		}
		larder, err := gateway.StartLarder(ctx, s.larder, bucket("larder"))
		if err != nil {
			t.Fatal(err)
		}
		s.watch("larder", larder)
		thanos, err := neighbour.StartStore(ctx, s.thanos, bucket("store"))
		if err != nil {
			t.Fatal(err)
		}
		s.watch("thanos store", thanos)
		q := s.querier([]string{larder.Addr, thanos.Addr}, "--query.replica-label="+l.ReplicaLabel)
		r := rand.New(rand.NewPCG(l.Seed, 0x71))
		for range settings.Choose(80, 250) {
			query := layoutQuery(r, l)
			p := neighbour.Params{
				Dedup:               new(r.IntN(2) == 0),
				Engine:              "prometheus",
				MaxSourceResolution: resolution(r, l),
				Stats:               true,
			}
			about := fmt.Sprintf(
				"layout seed %d: %s with dedup=%t max_source_resolution=%s", l.Seed, query,
				*p.Dedup, p.MaxSourceResolution,
			)
			if n.play(about, query, p.Engine,
				func(query promgen.Query) (*neighbour.Result, error) {
					return ask(q.Client, query, at(p, []string{thanos.Addr}))
				},
				func(query promgen.Query) (*neighbour.Result, error) {
					return ask(q.Client, query, at(p, []string{larder.Addr}))
				},
			) == maxReports {
				return
			}
		}
	}
	n.check()
	t.Logf(
		"proved: a Querier over %d random layouts: %s equal those over Thanos's store (seed %d)",
		layouts, &n, seed,
	)
}

// resolution is a resolution for which both gateways choose the same blocks. Beside nested coarse
// blocks Thanos reads blocks that are not needed (see docs/compatibility.md), and a Querier uses
// what is in them.
func resolution(r *rand.Rand, l *layout.Layout) string {
	name := []string{"0s", "5m", "1h"}[r.IntN(3)]
	last := map[string]*layout.Block{}
	for _, b := range l.Served() { // By minimum time.
		if b.Resolution == layout.Raw {
			continue
		}
		group := fmt.Sprint(b.Resolution, b.Labels)
		if o := last[group]; o != nil && o.MaxTime > b.MaxTime {
			return "0s"
		}
		last[group] = b
	}
	return name
}

// layoutQuery asks for a series of the layout and those that share labels with it.
func layoutQuery(r *rand.Rand, l *layout.Layout) promgen.Query {
	served := l.Served()
	b := served[r.IntN(len(served))]
	var ms []string
	b.Series[r.IntN(len(b.Series))].Labels.Range(func(lb labels.Label) {
		if b.Labels.Has(lb.Name) || lb.Name == l.ReplicaLabel || len(ms) == 2 {
			return
		}
		m := strconv.Quote(lb.Name) + "=" + strconv.Quote(lb.Value)
		if r.IntN(4) == 0 {
			m = strconv.Quote(lb.Name) + `=~".+"`
		}
		ms = append(ms, m)
	})
	if len(ms) == 0 {
		ms = append(ms, `__name__=~".+"`)
	}
	text := fmt.Sprintf([]string{
		"%s", "%s offset 20m", "count(%s)", "sum(%s)", "max_over_time(%s[30m])",
		"count_over_time(%s[1h])", "avg_over_time(%s[20m])", "rate(%s[10m])",
		"sum_over_time(%s[45m])", "min(%s)",
	}[r.IntN(10)], "{"+strings.Join(ms, ", ")+"}")
	q := promgen.Query{Text: text, Start: b.MinTime + r.Int64N(b.MaxTime-b.MinTime)}
	if r.IntN(2) == 0 {
		q.Step = []int64{60_000, 300_000}[r.IntN(2)]
		q.End = q.Start + q.Step*r.Int64N(60)
	}
	return q
}
