package trips

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"
	"google.golang.org/protobuf/proto"

	"larder/benchmarks"
	"larder/benchmarks/dataset"
	"larder/benchmarks/inprocess"
	"larder/benchmarks/objectstore"
	"larder/benchmarks/scenario"
	"larder/internal/bucket/cost"
	"larder/store/storepb"
)

// The guard holds the queries of `larder bench` to a committed table of what they cost: counts that
// depend on no machine.
const (
	scenariosTable = "testdata/scenarios.txt"
	// perQuery is the number of requests drawn from each query. Figures are sums over them.
	perQuery = 2
	// warmRuns is how often a warm request is asked. The run with the fewest allocations counts,
	// because others include work of the runtime.
	warmRuns = 5
	// slack is the part by which allocations may differ from the table. They depend on the random
	// seeds of maps, and on what is left in pools.
	slack = 0.15
)

// costs are what the requests of a query cost.
type costs struct {
	answers, reads int
	bytes          int64
	trips          int
	allocations    uint64
}

// exceeds compares costs with those of the table. The first four figures are exact.
func (c costs) exceeds(want costs) []string {
	var out []string
	exact := func(what string, got, want int64) {
		if got != want {
			out = append(out, fmt.Sprintf("%s: %d, the table has %d", what, got, want))
		}
	}
	exact("answers", int64(c.answers), int64(want.answers))
	exact("reads", int64(c.reads), int64(want.reads))
	exact("bytes", c.bytes, want.bytes)
	exact("trips", int64(c.trips), int64(want.trips))
	got, has := float64(c.allocations), float64(want.allocations)
	if got > has*(1+slack) || got < has*(1-slack) {
		out = append(out, fmt.Sprintf("allocations: %d, the table has %d, and allows %.0f %% more "+
			"or less", c.allocations, want.allocations, 100*slack))
	}
	return out
}

// guarded is the data set of the guard, and what its queries are about.
type guarded struct {
	place
	document *scenario.Document
	about    scenario.Subject
}

// newGuarded writes the bucket of `larder bench`.
func newGuarded(t *testing.T) *guarded {
	t.Helper()
	d, err := scenario.Parse(benchmarks.Scenarios())
	if err != nil {
		t.Fatal(err)
	}
	l := dataset.Demo(1, time.UnixMilli(dataset.Epoch))
	g := &guarded{place: write(t, l), document: d}
	const metric = "http_request_duration_seconds_bucket"
	g.about = scenario.Subject{
		MinTime: g.from, MaxTime: g.to, Metric: metric, Label: "pod", Other: "namespace",
	}
	values := map[string]map[string]bool{"pod": {}, "namespace": {}}
	for _, b := range l.Blocks {
		if b.MaxTime != g.to+1 {
			continue
		}
		for s := range b.Series.Series() {
			if s.Labels.Get(labels.MetricName) != metric || s.From != 0 || s.To != 0 {
				continue
			}
			all := labels.NewBuilder(s.Labels)
			b.Labels.Range(func(l labels.Label) { all.Set(l.Name, l.Value) })
			g.about.Series = append(g.about.Series, all.Labels())
			for name := range values {
				values[name][s.Labels.Get(name)] = true
			}
		}
	}
	g.about.Values = slices.Sorted(maps.Keys(values["pod"]))
	g.about.OtherValues = slices.Sorted(maps.Keys(values["namespace"]))
	return g
}

// cost asks new gateways the requests of a query, each first with empty caches, then again.
func (gd *guarded) cost(
	t *testing.T, query string, change func(*inprocess.Options),
) (cold, warm costs) {
	t.Helper()
	s := &scenario.Scenario{Query: query, Cache: scenario.Cold, Requests: perQuery}
	requests, err := gd.document.Schedule(s, &gd.about, 1)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(_ *testing.T, o *inprocess.Options) {
		if change != nil {
			change(o)
		}
	}
	for _, r := range requests {
		withGateway(t, gd.place, changed, func(
			t *testing.T, g *inprocess.Gateway, b *objectstore.Bucket,
		) {
			cold.add(once(t, g, b, r.Message))
			best := once(t, g, b, r.Message)
			for range warmRuns - 1 {
				if c := once(t, g, b, r.Message); c.allocations < best.allocations {
					best = c
				}
			}
			warm.add(best)
		})
	}
	return cold, warm
}

func (c *costs) add(b costs) {
	c.answers += b.answers
	c.reads += b.reads
	c.bytes += b.bytes
	c.trips += b.trips
	c.allocations += b.allocations
}

// once asks once.
func once(
	t *testing.T, g *inprocess.Gateway, b *objectstore.Bucket, m proto.Message,
) (c costs) {
	t.Helper()
	synctest.Wait() // for what earlier requests have left running
	b.Record(true)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	answers, err := send(t.Context(), g, m)
	synctest.Wait()
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	reads := b.Reads()
	c = costs{
		answers: answers, reads: len(reads), trips: objectstore.Trips(reads),
		allocations: after.Mallocs - before.Mallocs,
	}
	for _, r := range reads {
		c.bytes += r.Bytes
	}
	return c
}

// send sends a request. It returns the number of frames or strings of the answer.
func send(ctx context.Context, g *inprocess.Gateway, m proto.Message) (int, error) {
	switch m := m.(type) {
	case *storepb.LabelValuesRequest:
		v, err := g.Server.LabelValues(ctx, m)
		return len(v.GetValues()), err
	case *storepb.LabelNamesRequest:
		v, err := g.Server.LabelNames(ctx, m)
		return len(v.GetNames()), err
	}
	s := &counter{ctx: ctx}
	err := g.Server.Series(m.(*storepb.SeriesRequest), s)
	return s.bytes, err
}

// counter is the client's end of a Series call that counts bytes, and allocates nothing.
type counter struct {
	sink
	ctx   context.Context
	bytes int
}

func (s *counter) Context() context.Context { return s.ctx }

func (s *counter) SendMsg(m any) error {
	s.bytes += len(m.(*storepb.Frame).Bytes())
	return nil
}

// TestScenarios compares what the queries of `larder bench` cost with testdata/scenarios.txt, and
// checks that this comparison catches regressions.
func TestScenarios(t *testing.T) {
	gd := newGuarded(t)
	// Collections would empty pools between requests.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, query := range []string{"values", "metric"} {
		gd.cost(t, query, nil) // what a process allocates once
	}
	t.Run("table", func(t *testing.T) { compareScenarios(t, gd) })
	if !*update {
		t.Run("regressions", func(t *testing.T) { catchRegressions(t, gd) })
	}
}

func compareScenarios(t *testing.T, gd *guarded) {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# What the queries of `larder bench` cost in virtual time, over the bucket "+
		"of the small profile:\n# sums of %d requests, cold from empty caches with index headers "+
		"on disk, then warm. Written by\n# `make trips`; see doc.go. answers: bytes of a Series "+
		"answer, strings of others. trips: the longest\n# chain of dependent reads of one block. "+
		"Allocations may differ by %.0f %%, all else must not.\n", perQuery, 100*slack)
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "query\tcache\tanswers\treads\tbytes\ttrips\tallocations\t")
	table := map[string]costs{}
	if !*update {
		table = readCosts(t)
	}
	seen := 0
	check := func(query, cache string, c costs) {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t\n",
			query, cache, c.answers, c.reads, c.bytes, c.trips, c.allocations)
		if *update {
			return
		}
		want, ok := table[query+" "+cache]
		if !ok {
			t.Errorf("%s has no row for %s %s: run `make trips`", scenariosTable, query, cache)
			return
		}
		seen++
		for _, e := range c.exceeds(want) {
			t.Errorf("%s %s: %s. If that is intended, run `make trips` and commit the table",
				query, cache, e)
		}
	}
	for _, q := range gd.document.Queries {
		cold, warm := gd.cost(t, q.Name, nil)
		check(q.Name, scenario.Cold, cold)
		check(q.Name, scenario.Warm, warm)
	}
	w.Flush()
	if *update {
		if err := os.WriteFile(scenariosTable, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if seen != len(table) {
		t.Errorf("%s has %d rows, %d of them of queries: run `make trips`",
			scenariosTable, len(table), seen)
	}
}

// readCosts reads the committed table.
func readCosts(t *testing.T) map[string]costs {
	t.Helper()
	text, err := os.ReadFile(scenariosTable)
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]costs{}
	for line := range strings.Lines(string(text)) {
		var query, cache string
		var c costs
		n, _ := fmt.Sscan(line, &query, &cache, &c.answers, &c.reads, &c.bytes, &c.trips,
			&c.allocations)
		if n == 7 {
			table[query+" "+cache] = c
		}
	}
	return table
}

// catchRegressions makes the gateway worse on purpose, in one way for each kind of figure. The
// guard must tell.
func catchRegressions(t *testing.T, gd *guarded) {
	table := readCosts(t)
	for _, c := range []struct {
		kind, query, cache string
		change             func(*inprocess.Options)
	}{
		// Reads that would share a gap are sent one by one.
		{"reads", "long", scenario.Cold, func(o *inprocess.Options) {
			none := cost.Fixed(cost.Model{MaxGap: -1})
			o.Index.Pages.Costs, o.Chunks.Pages.Costs = none, none
		}},
		// Larger pages read more than is needed.
		{"bytes", "alert", scenario.Cold, func(o *inprocess.Options) {
			o.Index.Pages.PageSize, o.Chunks.Pages.PageSize = 64<<10, 64<<10
		}},
		// Reads that could run side by side wait for each other.
		{"trips", "metric", scenario.Cold, func(o *inprocess.Options) {
			o.Bucket = &oneByOne{Bucket: o.Bucket, turn: make(chan struct{}, 1)}
		}},
		// Without series sets, each request decodes its series again.
		{"allocations", "metric", scenario.Warm, func(o *inprocess.Options) {
			o.SeriesSetBytes = -1
		}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			cold, warm := gd.cost(t, c.query, c.change)
			got := cold
			if c.cache == scenario.Warm {
				got = warm
			}
			want := table[c.query+" "+c.cache]
			found := got.exceeds(want)
			worse := map[string]bool{
				"reads": got.reads > want.reads, "bytes": got.bytes > want.bytes,
				"trips": got.trips > want.trips, "allocations": got.allocations > want.allocations,
			}
			if !worse[c.kind] || !slices.ContainsFunc(found, func(e string) bool {
				return strings.HasPrefix(e, c.kind+": ")
			}) {
				t.Errorf("the guard does not catch it: %+v, the table has %+v: %v",
					got, want, found)
			}
		})
	}
}

// oneByOne is a bucket with one open body at a time.
type oneByOne struct {
	objstore.Bucket
	turn chan struct{}
}

func (b *oneByOne) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	done := sync.OnceFunc(func() { <-b.turn })
	r, err := b.Bucket.GetRange(ctx, name, off, length)
	if err != nil {
		done()
		return nil, err
	}
	return &onesBody{ReadCloser: r, done: done}, nil
}

// onesBody gives the turn back when it is closed.
type onesBody struct {
	io.ReadCloser
	done func()
}

func (b *onesBody) ObjectSize() (int64, error) { return objstore.TryToGetSize(b.ReadCloser) }

func (b *onesBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}
