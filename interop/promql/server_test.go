package promql

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"larder/interop/internal/fleet"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/programs"
	"larder/interop/internal/promgen"
	"larder/interop/internal/settings"
)

// TestPrometheusServer: a Prometheus server receives samples, cuts blocks, and answers PromQL. Over
// these blocks, with the meta.json of a shipper, larder and a Querier give the same answers: bit
// for bit those of the Querier's engine over the same blocks. For queries that mean the same in the
// server's version they are also those of the server, except for the last digits of sums, which
// versions add differently.
func TestPrometheusServer(t *testing.T) {
	ctx := context.Background()
	s := newStage(t)
	bin := programs.Debian(t, "prometheus", "prometheus")
	seed := settings.Seed(t)

	source := s.openPrometheus(s.heads(seed), nil)
	server, err := fleet.StartServer(ctx, bin, s.folder("server"))
	if err != nil {
		t.Fatal(err)
	}
	s.watch("prometheus", server)
	if err := server.Write(ctx, source, func(l labels.Labels) bool {
		// Prometheus 2 does not know histograms with custom bounds, or treats series differently
		// that become histograms.
		name := l.Get(labels.MetricName)
		return name == "batch_seconds" || name == "mixed"
	}); err != nil {
		t.Fatal(err)
	}
	blocks, err := server.Snapshot(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	bucket := &fleet.Bucket{Dir: s.folder("bucket")}
	metas, err := bucket.Add(blocks, map[string]string{"replica": "debian"})
	if err != nil {
		t.Fatal(err)
	}
	// The server knows samples after its last block, and a negative offset looks there.
	to := metas[len(metas)-1].MaxTime - 15*60*1000
	larder, thanos := s.larderOver(bucket.Dir), s.storeOver(bucket.Dir)
	// The only external label is the replica label. Deduplication removes it; the rest is what the
	// server shows.
	q := s.querier([]string{larder, thanos}, "--query.replica-label=replica")
	asked := 0
	compare(t, &comparison{
		seed: seed*10 + 5, queries: settings.Choose(400, 4000),
		about:      fmt.Sprintf("%d blocks of the Prometheus server", len(metas)),
		options:    promgen.Options{From: fleet.From, To: to},
		prometheus: s.openPrometheus(blocks, nil),
		larder: func(query promgen.Query) (*neighbour.Result, error) {
			return ask(q.Client, query, at(neighbour.Params{}, []string{larder}))
		},
		thanos: func(query promgen.Query) (*neighbour.Result, error) {
			return ask(q.Client, query, at(neighbour.Params{}, []string{thanos}))
		},
		each: func(query promgen.Query, got *neighbour.Result) string {
			if !query.Old || counterFunction.MatchString(query.Text) {
				return ""
			}
			want, err := ask(server.Client, query, neighbour.Params{})
			if err != nil {
				return err.Error()
			}
			asked++
			if !want.OK() && !got.OK() {
				return ""
			}
			if !want.OK() || !got.OK() {
				return fmt.Sprintf("the server says %q, the Querier %q", want.Error, got.Error)
			}
			if d := neighbour.Diff(want, got, rounding); d != "" {
				return "the server answers otherwise: " + d
			}
			return ""
		},
	})
	// Only unmodified native histograms: calculations with them were redefined.
	for _, text := range []string{`rpc_duration_seconds`, `rpc_wait_seconds{job=~"api|db"}`,
		`rpc_duration_seconds offset 1h`} {
		query := promgen.Query{Text: text, Start: fleet.From + 777, End: to, Step: 300_000}
		want, err := ask(server.Client, query, neighbour.Params{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := ask(q.Client, query, at(neighbour.Params{}, []string{larder}))
		if err != nil {
			t.Fatal(err)
		}
		if d := differ(want, got, 0); d != "" || len(want.Series) == 0 {
			t.Errorf("%s: %d series, difference %q", query, len(want.Series), d)
		}
		asked++
	}
	if asked < 50 {
		t.Errorf("only %d queries were sent to the server", asked)
	}
	t.Logf("proved: %d queries equal the Prometheus server's own answers (seed %d)", asked, seed)
}

// TestPrometheusBackfill: blocks that promtool makes from OpenMetrics are served.
func TestPrometheusBackfill(t *testing.T) {
	s := newStage(t)
	promtool := programs.Debian(t, "promtool", "prometheus")
	var text strings.Builder
	fmt.Fprintln(&text, "# TYPE parcels counter\n# HELP parcels Parcels that were sent.")
	for i := range 3 {
		for at := fleet.From; at < fleet.From+3*fleet.BlockMillis; at += 60_000 {
			fmt.Fprintf(
				&text, "parcels_total{depot=\"d%d\",kind=\"größe %d\"} %d %d\n", i, i%2,
				(at-fleet.From)/1000*int64(i+1), at/1000,
			)
		}
	}
	fmt.Fprintln(&text, "# EOF")
	in, out := filepath.Join(s.dir, "parcels.txt"), s.folder("backfill")
	if err := os.WriteFile(in, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command(promtool, "tsdb", "create-blocks-from", "openmetrics", in, out).
		CombinedOutput(); err != nil {
		t.Fatalf("promtool: %v\n%s", err, msg)
	}
	bucket := &fleet.Bucket{Dir: s.folder("bucket")}
	metas, err := bucket.Add(out, map[string]string{"source": "backfill"})
	if err != nil {
		t.Fatal(err)
	}
	q := s.querier([]string{s.larderOver(bucket.Dir)})
	ref := s.openPrometheus(out, map[string]string{"source": "backfill"})
	n := 0
	for _, text := range []string{
		`parcels_total`, `sum by (kind) (increase(parcels_total[30m]))`,
		`parcels_total{depot!~"d[01]", source="backfill"}`, `count(parcels_total)`,
		`parcels_total{kind="größe 1"} offset 1h`,
	} {
		query := promgen.Query{
			Text:  text,
			Start: fleet.From + 777,
			End:   fleet.From + 3*fleet.BlockMillis,
			Step:  300_000,
		}
		want, err := evaluate(context.Background(), ref, query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ask(q.Client, query, neighbour.Params{})
		if err != nil {
			t.Fatal(err)
		}
		if d := differ(want, got, 0); d != "" || len(want.Series) == 0 {
			t.Errorf("%s: %d series, difference %q", query, len(want.Series), d)
		}
		n++
	}
	t.Logf(
		"proved: %d blocks of promtool's backfill: %d range queries equal Prometheus's engine bit for bit",
		len(metas), n,
	)
}
