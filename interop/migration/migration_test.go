package migration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"larder/interop/internal/gateway"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/process"
	"larder/interop/internal/programs"
)

// store is a store gateway, Thanos's or larder, that a chart starts.
type store struct {
	bin, dataDir, grpc, http string
}

// way is one chart with a bucket.
type way struct {
	t              *testing.T
	chart          []string // its arguments
	bucket         string   // configuration
	larder, thanos string   // binaries
	dir            string
}

// walk prepares the way from a chart. name begins the chart's entry in the file of argument lists
// that larder's own tests start it with. bucket is that of demoBucket.
func walk(t *testing.T, name, bucket string) *way {
	t.Helper()
	return &way{
		t: t, larder: larder(t), thanos: programs.Thanos(t), dir: t.TempDir(),
		chart:  arguments(t, name),
		bucket: fmt.Sprintf("type: FILESYSTEM\nconfig: {directory: %q}\n", bucket),
	}
}

func larder(t *testing.T) string {
	t.Helper()
	bin, err := gateway.BuildLarder(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// demoBucket makes a bucket and returns its folder.
func demoBucket(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	demo := exec.CommandContext(t.Context(), larder(t), "demo", "--once", "--dir="+dir)
	if out, err := demo.CombinedOutput(); err != nil {
		t.Fatalf("make the bucket: %v\n%s", err, out)
	}
	return filepath.Join(dir, "bucket")
}

func arguments(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile("../../cmd/larder/testdata/charts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var charts []struct {
		Chart string
		Args  []string
		Files map[string]string
	}
	if err := yaml.Unmarshal(text, &charts); err != nil {
		t.Fatal(err)
	}
	for _, c := range charts {
		if strings.HasPrefix(c.Chart, name) {
			return c.Args
		}
	}
	t.Fatalf("no chart begins with %q", name)
	return nil
}

// place returns where a store listens and keeps its files.
func (w *way) place(bin, dataDir string) store {
	w.t.Helper()
	addrs, err := process.FreePorts(2)
	if err != nil {
		w.t.Fatal(err)
	}
	return store{bin: bin, dataDir: filepath.Join(w.dir, dataDir), grpc: addrs[0], http: addrs[1]}
}

// start runs a store with the chart's arguments. Addresses, folders and the bucket are the test's.
func (w *way) start(s store) *process.Process {
	w.t.Helper()
	file := filepath.Join(w.dir, "objstore.yml")
	if err := os.WriteFile(file, []byte(w.bucket), 0o600); err != nil {
		w.t.Fatal(err)
	}
	var args []string
	for _, a := range w.chart {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "--grpc-address":
			a = name + "=" + s.grpc
		case "--http-address":
			a = name + "=" + s.http
		case "--data-dir":
			a = name + "=" + s.dataDir
		case "--objstore.config-file":
			a = name + "=" + file
		case "--objstore.config":
			a = name + "=" + strings.ReplaceAll(value, "$(OBJSTORE_CONFIG)", w.bucket)
		}
		args = append(args, a)
	}
	p, err := process.Start(w.t.Context(), process.Options{
		Name: filepath.Base(s.bin), Bin: s.bin, Args: args,
		Ready: process.HTTP("http://" + s.http + "/-/ready"),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *way) stop(p *process.Process) {
	w.t.Helper()
	if err := p.Close(); err != nil {
		w.t.Errorf("%v\n%s", err, p.Log())
	}
}

// query starts a Querier with endpoints.
func (w *way) query(endpoints ...string) *neighbour.Component {
	w.t.Helper()
	args := []string{"--query.replica-label=replica", "--endpoint.info-timeout=1m"}
	for _, e := range endpoints {
		args = append(args, "--endpoint="+e)
	}
	q, err := neighbour.Start(w.t.Context(), neighbour.Options{
		Bin: w.thanos, Name: "query", Args: args,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return q
}

// questions are evaluated over the last twelve hours before at, when both clusters have samples.
// Their answers are exact numbers. Thanos cannot read the newest chunk encoding, which the demo's
// third label set has.
var questions = []string{
	`count by (cluster) ({__name__=~".+",cluster=~".+"})`,
	`sum by (cluster, namespace) (http_requests_total{cluster=~".+"})`,
	`max by (cluster, pod) (count_over_time(up{cluster=~".+"}[30m]))`,
}

// ask returns the answers to all questions. It waits until the Querier knows its endpoints; after
// that, an error or a warning fails the test.
func (w *way) ask(q *neighbour.Component, endpoints int, at time.Time) [][]neighbour.Series {
	w.t.Helper()
	err := q.Wait(w.t.Context(), func(ctx context.Context) bool {
		stores, err := q.Stores(ctx)
		for _, s := range stores {
			if s.LastError != "" {
				return false
			}
		}
		return err == nil && len(stores) == endpoints
	})
	if err != nil {
		w.t.Fatalf("the Querier does not find %d endpoints: %v", endpoints, err)
	}
	partial := false
	var out [][]neighbour.Series
	for _, question := range questions {
		res, err := q.Range(w.t.Context(), question, at.Add(-12*time.Hour).UnixMilli(),
			at.UnixMilli(), (30 * time.Minute).Milliseconds(),
			neighbour.Params{PartialResponse: &partial, MaxSourceResolution: "0s"})
		if err != nil || !res.OK() || len(res.Warnings) > 0 || len(res.Series) == 0 {
			w.t.Fatalf("%s: %v, %+v", question, err, res)
		}
		out = append(out, res.Series)
	}
	return out
}

// TestSideBySide: larder joins Thanos's store, replaces it, and is replaced by it again. The charts
// have one image for all components, so that the store is switched off and larder is not part of
// the chart. Each step is one upgrade, which restarts the Querier with other endpoints.
func TestSideBySide(t *testing.T) {
	bucket := demoBucket(t)
	for _, chart := range []string{"thanos-community/helm-charts thanos", "bitnami/charts thanos"} {
		t.Run(chart, func(t *testing.T) {
			w := walk(t, chart, bucket)
			at := time.Now().Add(-2 * time.Hour).Truncate(time.Minute)
			thanos, larder := w.place(w.thanos, "thanos"), w.place(w.larder, "larder")
			inThanos := w.start(thanos)
			inLarder := w.start(larder)
			var want [][]neighbour.Series
			step := func(what string, endpoints ...string) {
				q := w.query(endpoints...)
				got := w.ask(q, len(endpoints), at)
				if want == nil {
					want = got
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: the answers differ from those of Thanos alone:\n%s", what,
						diff)
				}
				w.stop(q.Process)
			}
			step("before", thanos.grpc)
			step("larder added", thanos.grpc, larder.grpc)
			w.stop(inThanos)
			step("Thanos off", larder.grpc)
			inThanos = w.start(thanos)
			step("Thanos on again", thanos.grpc, larder.grpc)
			w.stop(inLarder)
			step("larder removed", thanos.grpc)
			w.stop(inThanos)
		})
	}
}

// TestImageChanges: the image of a StatefulSet is changed, and changed back. Arguments, data
// directory, address and Querier stay.
func TestImageChanges(t *testing.T) {
	w := walk(t, "thanos-io/kube-thanos, manifests", demoBucket(t))
	at := time.Now().Add(-2 * time.Hour).Truncate(time.Minute)
	pod := w.place(w.thanos, "data")
	q := w.query(pod.grpc)
	var want [][]neighbour.Series
	for i, bin := range []string{w.thanos, w.larder, w.thanos} {
		pod.bin = bin
		p := w.start(pod)
		got := w.ask(q, 1, at)
		if want == nil {
			want = got
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("image %d: the answers differ from those of the first:\n%s", i, diff)
		}
		w.stop(p)
	}
	w.stop(q.Process)
}
