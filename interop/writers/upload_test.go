package writers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/thanos-io/thanos/pkg/block/metadata"
	"github.com/thanos-io/thanos/pkg/info/infopb"
	"github.com/thanos-io/thanos/pkg/store/storepb"

	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/process"
	"larder/interop/internal/programs"
	"larder/interop/internal/samples"
	"larder/interop/internal/settings"
)

// send writes the samples of some series from mint to before maxt to a remote-write receiver, in
// steps of half an hour: a head accepts no sample older than half a block.
func send(
	t *testing.T, url string, header http.Header, series []labels.Labels,
	value func(series int, t int64) float64, mint, maxt int64,
) {
	t.Helper()
	const batch = layout.OneHour / 2
	for from := mint; from < maxt; from += batch {
		var out []prompb.TimeSeries
		for i, ls := range series {
			ts := prompb.TimeSeries{Labels: prompb.FromLabels(ls, nil)}
			for at := from; at < min(from+batch, maxt); at += step {
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at, Value: value(i, at)})
			}
			out = append(out, ts)
		}
		if err := neighbour.RemoteWrite(t.Context(), url, header, out); err != nil {
			t.Fatal(err)
		}
	}
}

// live asks a Prometheus for all samples up to a time, with its external labels.
func live(t *testing.T, p *neighbour.Prometheus, external labels.Labels, until int64) samples.Set {
	t.Helper()
	r, err := p.Instant(t.Context(), `{__name__=~".+"}[2d]`, until, neighbour.Params{})
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK() {
		t.Fatalf("prometheus: %s", r.Error)
	}
	out := samples.Set{}
	for _, s := range r.Series {
		ls, err := parser.ParseMetric(s.Labels)
		if err != nil {
			t.Fatalf("%s: %v", s.Labels, err)
		}
		b := labels.NewBuilder(ls)
		external.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		for _, p := range s.Points {
			v, err := strconv.ParseFloat(p.Value, 64)
			if err != nil {
				t.Fatal(err)
			}
			out.Add(b.Labels(), samples.Point{T: p.Time, V: v})
		}
	}
	return out
}

// TestSidecarUploadsAreServed: a live Prometheus cuts blocks, and the sidecar beside it uploads
// them. After its next sync larder answers with the samples that Prometheus itself has, under its
// external labels.
func TestSidecarUploadsAreServed(t *testing.T) {
	t.Parallel()
	bin, thanos := larder(t), programs.Thanos(t)
	prometheus := programs.Debian(t, "prometheus", "prometheus")
	b := emptyBucket(t)
	s := startLarder(t, bin, b)
	p, err := neighbour.StartPrometheus(
		t.Context(), prometheus, t.TempDir(),
		"global: {external_labels: {cluster: live, replica: '0'}}\n",
	)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, "prometheus", p)
	external := labels.FromStrings("cluster", "live", "replica", "0")
	series := twoClusters()[0].series

	const block = 2 * layout.OneHour
	from := time.Now().UnixMilli()/block*block - 24*layout.OneHour
	sidecar := (*neighbour.Component)(nil)
	start := func() {
		sidecar, err = neighbour.Start(t.Context(), neighbour.Options{
			Bin: thanos, Name: "sidecar", Args: []string{"--prometheus.url=http://" + p.HTTPAddr, "--tsdb.path=" + p.Dir, objstore(b)},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	written := from
	for _, blocks := range []int64{2, 3} {
		// A head is cut when it is longer than one and a half blocks.
		until := from + blocks*block + block*3/2 + step
		send(t, "http://"+p.HTTPAddr+"/api/v1/write", nil, series, value, written, until)
		written = until
		err := p.Wait(t.Context(), func(context.Context) bool {
			local, err := localBlocks(p.Dir)
			return err == nil && int64(len(local)) >= blocks
		})
		if err != nil {
			t.Fatal(err)
		}
		// A sidecar uploads when it starts and every 30 seconds after. Only the long form waits
		// that long.
		if sidecar != nil && !settings.Full() {
			if err := sidecar.Close(); err != nil {
				t.Fatal(err)
			}
			sidecar = nil
		}
		if sidecar == nil {
			start()
		}
		for _, m := range awaitUploads(t, sidecar.Process, b, int(blocks)) {
			if m.Thanos.Source != metadata.SidecarSource {
				t.Errorf("block %s is from %s", m.ULID, m.Thanos.Source)
			}
		}
		s.nextSync(t)
		want := live(t, p, external, until).Within(from, from+blocks*block)
		if n := want.Points(); int64(n) != blocks*block/step*int64(len(series)) {
			t.Fatalf("Prometheus has %d samples", n)
		}
		a := s.answers(t, want)
		if int64(len(a.Hints.Blocks)) != blocks {
			t.Errorf("answered from blocks %v, want %d", a.Hints.Blocks, blocks)
		}
		t.Logf(
			"proved: %d blocks cut by a live Prometheus and uploaded by its sidecar, %d samples, after the next sync",
			blocks, want.Points(),
		)
	}
	if err := sidecar.Close(); err != nil {
		t.Error(err)
	}
}

// TestReceiveTenantsAreServed: a receiver accepts writes of several tenants, and cuts and uploads
// when it stops. larder answers for each tenant with only that tenant's samples.
func TestReceiveTenantsAreServed(t *testing.T) {
	t.Parallel()
	bin, thanos := larder(t), programs.Thanos(t)
	b := emptyBucket(t)
	s := startLarder(t, bin, b)
	ports, err := process.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	receive, err := neighbour.Start(
		t.Context(),
		neighbour.Options{Bin: thanos, Name: "receive", Args: []string{
			"--tsdb.path=" + t.TempDir(), objstore(b), `--label=receive="r0"`,
			"--remote-write.address=" + ports[0], "--receive.capnproto-address=" + ports[1],
		}},
	)
	if err != nil {
		t.Fatal(err)
	}
	const block = 2 * layout.OneHour
	from := time.Now().UnixMilli()/block*block - 24*layout.OneHour
	tenants := []string{"blue", "green", "red"}
	truth, of := samples.Set{}, map[string]samples.Set{}
	for n, tenant := range tenants {
		series := twoClusters()[0].series[n:]
		// The last tenant has more than two blocks, so that the receiver cuts some by itself.
		until := from + block*int64(n)*2 + block
		of[tenant] = samples.Set{}
		mine := func(i int, at int64) float64 { return value(i, at) + float64(n)*1e6 }
		send(
			t, "http://"+ports[0]+"/api/v1/receive", http.Header{"Thanos-Tenant": {tenant}}, series,
			mine, from, until,
		)
		for i, ls := range series {
			full := labels.NewBuilder(ls).Set("tenant_id", tenant).Set("receive", "r0").Labels()
			// When it stops, a receiver cuts its head up to the last millisecond, exclusive. That
			// millisecond stays in its log for the next start.
			for at := from; at < until-step; at += step {
				of[tenant].Add(full, samples.Point{T: at, V: mine(i, at)})
			}
			truth[full.String()] = of[tenant][full.String()]
		}
	}
	if err := receive.Close(); err != nil {
		t.Fatalf("%v\n%s", err, receive.Log())
	}
	all, _ := metas(t, b)
	blocks := map[string][]string{}
	for id, m := range all {
		blocks[m.Thanos.Labels["tenant_id"]] = append(
			blocks[m.Thanos.Labels["tenant_id"]], id.String(),
		)
	}
	s.nextSync(t)
	s.answers(t, truth)
	for _, tenant := range tenants {
		req := everything()
		req.Matchers = append(
			req.Matchers,
			storepb.LabelMatcher{Type: storepb.LabelMatcher_EQ, Name: "tenant_id", Value: tenant},
		)
		a, err := series(t.Context(), s.client, req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := samples.Raw(a.Series)
		if err != nil {
			t.Fatal(err)
		}
		if d := of[tenant].Diff(got); d != "" {
			t.Errorf("tenant %s: %s", tenant, d)
		}
		slices.Sort(blocks[tenant])
		if len(blocks[tenant]) == 0 || !slices.Equal(blocks[tenant], a.Hints.Blocks) {
			t.Errorf(
				"tenant %s is answered from %v, its blocks are %v", tenant, a.Hints.Blocks,
				blocks[tenant],
			)
		}
	}
	info, err := s.client.Info.Info(t.Context(), &infopb.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(info.LabelSets) != len(tenants) {
		t.Errorf("advertised label sets: %v", info.LabelSets)
	}
	t.Logf(
		"proved: %d blocks of %d tenants, %d samples, each tenant's apart", len(all), len(tenants),
		truth.Points(),
	)
}

// TestRuleBlocksAreServed: a ruler evaluates a recording rule through a Querier over larder, cuts
// blocks of the result and uploads them. larder serves them, too, under the ruler's labels. The
// expression reads one moment, so that its value is known.
func TestRuleBlocksAreServed(t *testing.T) {
	t.Parallel()
	bin, thanos := larder(t), programs.Thanos(t)
	b := emptyBucket(t)
	from := time.Now().UnixMilli()/day*day - 2*day
	solo := twoClusters()[2]
	if _, err := solo.block(from, from+2*layout.OneHour).Write(t.Context(), b.Dir); err != nil {
		t.Fatal(err)
	}
	at := from + layout.OneHour
	want := value(0, at) + value(1, at) + value(2, at)

	s := startLarder(t, bin, b)
	querier, err := neighbour.StartQuerier(t.Context(), thanos, []string{s.addr})
	if err != nil {
		t.Fatal(err)
	}
	closing(t, "thanos query", querier)
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.yml")
	if err := os.WriteFile(rules, fmt.Appendf(nil, `groups:
- name: interop
  interval: 250ms
  rules:
  - record: cluster:requests:sum
    expr: sum by (cluster) (requests_total @ %d)
    labels: {level: cluster}
`, at/1000), 0o644); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	start := func() *neighbour.Component {
		c, err := neighbour.Start(
			t.Context(),
			neighbour.Options{Bin: thanos, Name: "rule", Args: []string{
				"--data-dir=" + data, "--rule-file=" + rules, "--query=http://" + querier.HTTPAddr, `--label=ruler="r0"`, `--label=replica="a"`,
				"--alert.label-drop=replica", "--eval-interval=1s", "--tsdb.block-duration=1s",
				objstore(b),
			}},
		)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	// A ruler uploads when it starts and every 30 seconds after, and not when it stops: the second
	// one uploads the blocks of the first one.
	first := start()
	const blocks = 3
	err = first.Wait(t.Context(), func(context.Context) bool {
		local, err := localBlocks(data)
		return err == nil && len(local) >= blocks
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := start()
	uploaded := awaitUploads(t, second.Process, b, 1+blocks)
	var lo, hi int64
	ruled := 0
	for id, m := range uploaded {
		if m.Thanos.Source != metadata.RulerSource {
			continue
		}
		if ruled++; ruled == 1 || m.MinTime < lo {
			lo = m.MinTime
		}
		hi = max(hi, m.MaxTime)
		if m.Thanos.Labels["ruler"] != "r0" {
			t.Errorf("block %s has labels %v", id, m.Thanos.Labels)
		}
	}
	s.nextSync(t)

	// The ruler itself serves what it has recorded: blocks and head.
	recorded, err := ruledSamples(t, dial(t, second.Addr), lo, hi)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ruledSamples(t, s.client, lo, hi)
	if err != nil {
		t.Fatal(err)
	}
	if d := recorded.Diff(got); d != "" || got.Points() == 0 {
		t.Errorf(
			"larder's %d samples are not the ruler's %d: %s", got.Points(), recorded.Points(), d,
		)
	}
	name := labels.FromStrings(labels.MetricName, "cluster:requests:sum", "cluster", "solo",
		"level", "cluster", "ruler", "r0", "replica", "a").
		String()
	if len(got) != 1 || got[name] == nil {
		t.Errorf("larder has %v, want %s", got, name)
	}
	for _, p := range got[name] {
		if p.V != want {
			t.Fatalf("the rule's value is %v at %d, want %v", p.V, p.T, want)
		}
	}
	if n, failed := metric(t, second.HTTPAddr, "prometheus_rule_evaluations_total"),
		metric(t, second.HTTPAddr, "prometheus_rule_evaluation_failures_total"); n == 0 ||
		failed != 0 {
		t.Errorf("%v evaluations, of which %v failed", n, failed)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	t.Logf(
		"proved: %d blocks of a recording rule that was evaluated over larder, %d samples", ruled,
		got.Points(),
	)
}

// ruledSamples asks a StoreAPI for the series of the recording rule within a range.
func ruledSamples(t *testing.T, c *gateway.Client, mint, maxt int64) (samples.Set, error) {
	t.Helper()
	req := everything()
	req.MinTime, req.MaxTime = mint, maxt-1
	req.Matchers = []storepb.LabelMatcher{
		{Type: storepb.LabelMatcher_EQ, Name: labels.MetricName, Value: "cluster:requests:sum"},
	}
	a, err := series(t.Context(), c, req)
	if err != nil {
		return nil, err
	}
	set, err := samples.Raw(a.Series)
	if err != nil {
		return nil, err
	}
	return set.Within(mint, maxt), nil
}
