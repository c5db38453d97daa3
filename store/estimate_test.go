package store_test

import (
	"context"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// heldSink compares the live heap with the reserved bytes while an answer is sent.
type heldSink struct {
	sink
	reg           *prometheus.Registry
	before        int64
	every, frames int
	// The largest live heap, and the reserved bytes at that time.
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

// heapAtRest returns the live heap once the request's other goroutines are blocked. Otherwise it
// would count garbage that they produce during the collection.
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

// idleHeap returns the live heap while no request runs. It collects several times, because pools
// drop their buffers only after two collections, and finalizers need another.
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

// aloneEnv is set in the child process that measures its heap.
const aloneEnv = "LARDER_TEST_ALONE"

// TestRequestsHoldWhatTheyReserve checks that, without caches, a request uses at most a quarter
// more memory than it has reserved (pooled buffers survive a collection), and at least a fifth of
// it.
func TestRequestsHoldWhatTheyReserve(t *testing.T) {
	if testing.Short() {
		t.Skip("under the race detector a request holds more")
	}
	if os.Getenv(aloneEnv) == "" {
		// In this process, garbage of other tests would be freed during the measurement.
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		child.Env = append(os.Environ(), aloneEnv+"=1")
		out, err := child.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	const series = 60_000
	for _, l := range []dataset.Layout{
		dataset.WholeMetric("dense", 1, series, 120_000), dataset.ManyValues("values", 2, series),
	} {
		if _, err := l.Write(context.Background(), filepath.Join(dir, "bucket"),
			dataset.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	g := startGateway(t, filepath.Join(dir, "bucket"),
		gatewayOptions{indexBytes: -1, setBytes: -1, chunkBytes: -1, postingsBytes: -1})
	f := func(name string, batch int64, every int, ms ...*storepb.LabelMatcher) {
		t.Helper()
		req := wholeMetric(batch)
		req.Matchers = ms
		if held, reserved := heldOf(t, g, name, req, every); held < reserved/5 {
			t.Errorf("%s: a request held %d bytes of %d that it had reserved", name, held, reserved)
		}
	}
	is := func(name, value string) *storepb.LabelMatcher {
		return &storepb.LabelMatcher{Name: name, Value: value}
	}
	f("all of a metric", 64, series/64/20, is("__name__", dataset.WholeMetricName))
	f("all of a metric, in large frames", 100_000, 2, is("__name__", dataset.WholeMetricName))
	f("one in ten", 64, series/640/10, is("__name__", dataset.WholeMetricName),
		is("handler", "/api/v1/orders"))
	f("a value of its own for each", 64, series/64/20, is("__name__", dataset.ManyValuesName))
	f("a regex over all values", 64, series/64/20, &storepb.LabelMatcher{
		Type:  storepb.LabelMatcher_RE,
		Name:  dataset.ManyValuesLabel,
		Value: ".+[02468ace]",
	})
	holdLongRecords(t)
	holdLongLabels(t, series/10)
	holdLongEntries(t)
}

// heldOf answers a request. It returns the largest memory that the request used, and what it had
// reserved then. It fails the test if more than 5/4 of the reserved bytes were used.
func heldOf(
	t *testing.T, g *gateway, name string, req *storepb.SeriesRequest, every int,
) (held, reserved int64) {
	t.Helper()
	// The first answer fills the pools.
	if err := g.Server.Series(req, &sink{ctx: t.Context()}); err != nil {
		t.Fatal(err)
	}
	s := &heldSink{sink: sink{ctx: t.Context()}, reg: g.reg, every: every, before: idleHeap()}
	if err := g.Server.Series(req, s); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: held %d KiB of %d KiB reserved, %d frames",
		name, s.held>>10, s.reserved>>10, s.frames)
	if s.reserved == 0 || s.held > s.reserved*5/4 {
		t.Errorf("%s: a request held %d bytes of %d that it had reserved", name, s.held, s.reserved)
	}
	return s.held, s.reserved
}
