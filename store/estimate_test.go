package store_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// heldSink compares what is alive with what requests have reserved, while an answer is being sent.
type heldSink struct {
	sink
	reg           *prometheus.Registry
	before        int64
	every, frames int
	// What was held where it was the most, and what was reserved then.
	held, reserved int64
}

func (s *heldSink) SendMsg(m any) error {
	if s.frames++; s.frames%s.every == 0 {
		if held := int64(heapAtRest()) - s.before; s.reserved == 0 || held > s.held {
			s.held, s.reserved = held, int64(
				gaugeOf(s.reg, "larder_request_allowance_bytes", "in_use"),
			)
		}
	}
	return s.sink.SendMsg(m)
}

var _ storepb.Store_SeriesServer = (*heldSink)(nil)

// heapAtRest is what is alive when the request's other goroutines have gone as far as they can:
// what they drop while the collector runs would be weighed too.
func heapAtRest() (n uint64) {
	const little = 256 << 10
	for range 100 {
		before := allocated()
		if n = liveHeap(); allocated()-before < little {
			break
		}
	}
	return n
}

// idleHeap is what is alive while nothing runs. Pools keep what they hold for two collections, and
// what a request has left on its way may take another.
func idleHeap() int64 {
	least := int64(math.MaxInt64)
	for range 4 {
		least = min(least, int64(liveHeap()))
	}
	return least
}

// gaugeOf returns a gauge that has one label with the given value.
func gaugeOf(reg *prometheus.Registry, name, label string) float64 {
	families, err := reg.Gather()
	if err != nil {
		return math.NaN()
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && len(m.GetLabel()) == 1 &&
				m.GetLabel()[0].GetValue() == label {
				return m.GetGauge().GetValue()
			}
		}
	}
	return math.NaN()
}

// aloneEnv is set for a process of its own, which measures its heap.
const aloneEnv = "LARDER_TEST_ALONE"

// TestRequestsHoldWhatTheyReserve: without caches, whose pages requests share, a request holds at
// most a quarter more than what it has reserved (buffers that a collection has not emptied), and
// not less than a fifth of it.
func TestRequestsHoldWhatTheyReserve(t *testing.T) {
	if os.Getenv(aloneEnv) == "" {
		// What other tests have left would go while it is measured.
		child := exec.CommandContext(
			t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v",
			fmt.Sprintf("-test.short=%t", testing.Short()),
		)
		child.Env = append(os.Environ(), aloneEnv+"=1")
		out, err := child.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	series := 60_000
	if testing.Short() {
		series = 15_000
	}
	for _, l := range []dataset.Layout{
		dataset.WholeMetric("dense", 1, series, 120_000), dataset.ManyValues("values", 2, series),
	} {
		if _, err := l.Write(context.Background(), filepath.Join(dir, "bucket"), dataset.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	g := startGateway(
		t, filepath.Join(dir, "bucket"),
		gatewayOptions{indexBytes: -1, setBytes: -1, chunkBytes: -1, postingsBytes: -1},
	)
	f := func(name string, batch int64, every int, ms ...*storepb.LabelMatcher) {
		t.Helper()
		req := wholeMetric(batch)
		req.Matchers = ms
		if held, reserved := heldOf(t, g, name, req, every); held < reserved/5 {
			t.Errorf("%s: a request held %d bytes of %d that it had reserved", name, held, reserved)
		}
	}
	is := func(name, value string) *storepb.LabelMatcher { return &storepb.LabelMatcher{Name: name, Value: value} }
	f("all of a metric", 64, series/64/20, is("__name__", dataset.WholeMetricName))
	f("all of a metric, in large frames", 100_000, 2, is("__name__", dataset.WholeMetricName))
	f(
		"one in ten", 64, series/640/10, is("__name__", dataset.WholeMetricName),
		is("handler", "/api/v1/orders"),
	)
	f("a value of its own for each", 64, series/64/20, is("__name__", dataset.ManyValuesName))
	f(
		"a regex over all values",
		64,
		series/64/20,
		&storepb.LabelMatcher{
			Type:  storepb.LabelMatcher_RE,
			Name:  dataset.ManyValuesLabel,
			Value: ".+[02468ace]",
		},
	)
	holdLongRecords(t)
	holdLongLabels(t, series/10)
	holdLongEntries(t)
}

// heldOf answers a request and returns what it held where that was the most, and had reserved then:
// of which it must hold no more than 5/4.
func heldOf(
	t *testing.T, g *gateway, name string, req *storepb.SeriesRequest, every int,
) (held, reserved int64) {
	t.Helper()
	// The first time makes what is pooled.
	if err := g.Server.Series(req, &sink{ctx: t.Context()}); err != nil {
		t.Fatal(err)
	}
	s := &heldSink{sink: sink{ctx: t.Context()}, reg: g.reg, every: every, before: idleHeap()}
	if err := g.Server.Series(req, s); err != nil {
		t.Fatal(err)
	}
	t.Logf(
		"%s: held %d KiB of %d KiB reserved, %d frames", name, s.held>>10, s.reserved>>10, s.frames,
	)
	if s.reserved == 0 || s.held > s.reserved*5/4 {
		t.Errorf("%s: a request held %d bytes of %d that it had reserved", name, s.held, s.reserved)
	}
	return s.held, s.reserved
}
