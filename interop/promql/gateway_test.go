package promql

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"larder/interop/internal/fleet"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/promgen"
	"larder/interop/internal/settings"
)

const shards = 3

// side is one of the two gateways in every arrangement.
type side struct{ single, replicas, shards []string }

// arrange serves a bucket with one gateway, with two that serve all of it, and with several that
// each serve the blocks that hashmod of the id assigns to them.
func arrange(bucket string, start serve) side {
	x := side{single: []string{start(bucket)}}
	x.replicas = append(append([]string{}, x.single...), start(bucket))
	for i := range shards {
		x.shards = append(x.shards, start(bucket, "--selector.relabel-config="+shard(i)))
	}
	return x
}

func (x side) all() []string { return append(append([]string{}, x.replicas...), x.shards...) }

func shard(i int) string {
	return fmt.Sprintf(`
- {action: hashmod, source_labels: [__block_id], target_label: shard, modulus: %d}
- {action: keep, source_labels: [shard], regex: "%d"}`, shards, i)
}

// at restricts a query to some stores.
func at(p neighbour.Params, addrs []string) neighbour.Params {
	p.StoreMatch = []string{`{__address__=~"` + strings.Join(addrs, "|") + `"}`}
	return p
}

// replicated makes a bucket of two clusters, one of them with two replicas. It has blocks at every
// resolution: for the first two hours raw and downsampled blocks of which retention has removed the
// raw ones, for the next two both, for the rest raw blocks only.
func replicated(t *testing.T, s *stage, seed uint64) *fleet.Bucket {
	t.Helper()
	ctx := context.Background()
	w := s.writer(fleet.Thanos)
	bucket := &fleet.Bucket{Dir: s.folder("bucket")}
	for i, x := range []struct{ cluster, replica string }{{"eu", "0"}, {"eu", "1"}, {"us", "0"}} {
		dir := s.folder("head")
		sm := fleet.Samples{Seed: seed, Blocks: 3, Replica: i}
		if x.cluster == "us" {
			sm.Seed, sm.Replica = seed+1000, 0
		}
		if err := w.Write(ctx, dir, sm); err != nil {
			t.Fatal(err)
		}
		metas, err := bucket.Add(dir, map[string]string{"cluster": x.cluster, "replica": x.replica})
		if err != nil {
			t.Fatal(err)
		}
		scratch := s.folder("scratch")
		if err := os.MkdirAll(scratch, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, m := range metas[:2] {
			if _, err := bucket.Downsample(ctx, m, scratch, fleet.FiveMinutes,
				fleet.OneHour); err != nil {
				t.Fatal(err)
			}
		}
		if err := bucket.Delete(metas[0]); err != nil {
			t.Fatal(err)
		}
	}
	return bucket
}

// TestQueryGateway: a Querier over one larder, two replicas or hashmod shards gives the same
// answers as over as many of Thanos's own stores: with and without deduplication, with either
// engine, at every resolution, with compression. So do the label APIs and the statistics of
// queries.
func TestQueryGateway(t *testing.T) {
	s := newStage(t)
	seed := settings.Seed(t)
	bucket := replicated(t, s, seed)
	larder, thanos := arrange(bucket.Dir, s.larderOver), arrange(bucket.Dir, s.storeOver)
	flags := []string{"--query.replica-label=replica", "--query.auto-downsampling"}
	endpoints := append(larder.all(), thanos.all()...)
	plain := s.querier(endpoints, flags...)
	snappy := s.querier(endpoints, append(flags, "--grpc-compression=snappy")...)

	options := promgen.Options{
		From: fleet.From, To: fleet.From + 3*fleet.BlockMillis,
		External: map[string][]string{"cluster": {"eu", "us"}, "replica": {"0", "1"}},
	}
	t.Run("queries", func(t *testing.T) {
		for _, x := range []struct {
			name           string
			larder, thanos []string
		}{
			{"one gateway", larder.single, thanos.single},
			{"two replicas", larder.replicas, thanos.replicas},
			{"hashmod shards", larder.shards, thanos.shards},
		} {
			r := rand.New(rand.NewPCG(seed, uint64(len(x.name))))
			g := promgen.New(seed*100+uint64(len(x.name)), options)
			n := match{t: t}
			for range settings.Choose(150, 2000) {
				query := g.Next()
				p := neighbour.Params{
					Dedup: new(
						r.IntN(3) > 0,
					), Engine: []string{"prometheus", "prometheus", "thanos"}[r.IntN(3)],
					MaxSourceResolution: []string{"", "0s", "5m", "1h", "auto"}[r.IntN(5)],
					Stats:               true,
				}
				q := plain
				if r.IntN(4) == 0 {
					q = snappy
				}
				about := fmt.Sprintf(
					"seed %d: %s: %s with dedup=%t engine=%s max_source_resolution=%s", seed,
					x.name, query, *p.Dedup, p.Engine, p.MaxSourceResolution,
				)
				over := func(stores []string) answerer {
					return func(query promgen.Query) (*neighbour.Result, error) {
						return ask(q.Client, query, at(p, stores))
					}
				}
				differed := n.play(about, query, p.Engine, over(x.thanos), over(x.larder))
				if differed == maxReports {
					break
				}
			}
			n.check()
			t.Logf(
				"proved: a Querier over %s: %s equal those over Thanos's store (seed %d)", x.name,
				&n, seed,
			)
		}
	})
	t.Run("labels", func(t *testing.T) {
		n := 0
		for _, x := range [][2][]string{{larder.single, thanos.single},
			{larder.replicas, thanos.replicas}, {larder.shards, thanos.shards}} {
			n += compareLabels(t, plain.Client, options, seed, x[0], x[1])
		}
		t.Logf(
			"proved: %d answers of the label APIs equal those over Thanos's store (seed %d)", n,
			seed,
		)
	})
	t.Run("distributed", func(t *testing.T) {
		leaves := func(store string) []string {
			var addrs []string
			for _, cluster := range []string{"eu", "us"} {
				leaf := s.querier([]string{store}, append(
					flags,
					"--selector.relabel-config=\n- {action: keep, source_labels: [cluster], regex: "+cluster+"}",
				)...)
				addrs = append(addrs, leaf.Addr)
			}
			return addrs
		}
		root := func(store string) *neighbour.Component {
			return s.querier(leaves(store), append(flags, "--query.mode=distributed")...)
		}
		overLarder, overThanos := root(larder.single[0]), root(thanos.single[0])
		g := promgen.New(seed*100+77, options)
		n := match{t: t}
		for range settings.Choose(80, 1000) {
			query := g.Next()
			if n.play(fmt.Sprintf("seed %d: %s", seed, query), query, "thanos",
				func(query promgen.Query) (*neighbour.Result, error) {
					return ask(overThanos.Client, query, neighbour.Params{})
				},
				func(query promgen.Query) (*neighbour.Result, error) {
					return ask(overLarder.Client, query, neighbour.Params{})
				},
			) == maxReports {
				break
			}
		}
		n.check()
		t.Logf(
			"proved: a Querier in distributed mode over two Queriers over larder: %s equal those over Thanos's store (seed %d)",
			&n, seed,
		)
	})
}

// compareLabels sends the same requests to the label APIs over both and returns their number.
func compareLabels(
	t *testing.T, c *neighbour.Client, o promgen.Options, seed uint64, larder, thanos []string,
) int {
	t.Helper()
	ctx := context.Background()
	r := rand.New(rand.NewPCG(seed, 0x6c6162))
	matches := [][]string{
		nil, {`up`}, {`{job=~"a.*"}`}, {`http_requests_total{code!~"2.."}`, `pod_ready{zone=""}`},
		{`{cluster="eu"}`}, {`{__name__=~".+", replica="1"}`},
		{`{cluster="us", job="größe"}`}, {`nothing`}, {`mixed`},
	}
	n, empty := 0, 0
	for range settings.Choose(60, 600) {
		match := matches[r.IntN(len(matches))]
		start := o.From + r.Int64N(o.To-o.From)
		end := start + r.Int64N(o.To-start) + 1
		p := neighbour.Params{Dedup: new(r.IntN(2) == 0)}
		kind := r.IntN(3)
		name := []string{"__name__", "job", "pod", "le", "cluster", "replica", "version",
			"missing"}[r.IntN(8)]
		question := func(addrs []string) *neighbour.List {
			var l *neighbour.List
			var err error
			switch {
			case kind == 0:
				l, err = c.LabelNames(ctx, match, start, end, at(p, addrs))
			case kind == 1 || match == nil: // The series API wants a selector.
				l, err = c.LabelValues(ctx, name, match, start, end, at(p, addrs))
			default:
				l, err = c.Series(ctx, match, start, end, at(p, addrs))
			}
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		want, got := question(thanos), question(larder)
		if a, b := fmt.Sprint(want.Code, want.ErrorType, want.Warnings, want.Items),
			fmt.Sprint(got.Code, got.ErrorType, got.Warnings, got.Items); a != b {
			t.Errorf(
				"seed %d: label API %d (label %s) match %q from %d to %d dedup=%t:\nwant %.500s\ngot  %.500s",
				seed, kind, name, match, start, end, *p.Dedup, a, b,
			)
		}
		if n++; len(want.Items) == 0 {
			empty++
		}
	}
	if empty*2 > n {
		t.Errorf(
			"seed %d: %d of %d answers of the label APIs are empty: they show little", seed, empty,
			n,
		)
	}
	return n
}
