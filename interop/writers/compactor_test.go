package writers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/store/storepb"

	"larder/interop/internal/answer"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/process"
	"larder/interop/internal/programs"
	"larder/interop/internal/query"
	"larder/interop/internal/samples"
	"larder/interop/internal/settings"
)

const (
	day = 24 * layout.OneHour
	// step gives a window of five minutes two or three samples.
	step = 2 * 60 * 1000
)

// producer is a Prometheus server with its external labels. Its replicas report the same values.
type producer struct {
	external labels.Labels
	series   []labels.Labels
}

// block is what the producer uploads for a range of time.
func (p *producer) block(mint, maxt int64) *layout.Plain {
	return &layout.Plain{
		External: p.external,
		MinTime:  mint,
		MaxTime:  maxt,
		Step:     step,
		Series:   p.series,
		Value:    value,
	}
}

// full is the label set under which one of its series is served, except for some labels.
func (p *producer) full(ls labels.Labels, without ...string) labels.Labels {
	b := labels.NewBuilder(ls)
	p.external.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Del(without...).Labels()
}

func value(series int, t int64) float64 {
	// Whole numbers: the sums of a window are exact in any order of addition.
	return float64((t/step*int64(series+3))%1009 + int64(series))
}

// twoClusters are a pair of replicas and a single server.
func twoClusters() []producer {
	one := func(n int) (out []labels.Labels) {
		for i := range n {
			out = append(
				out,
				labels.FromStrings(
					labels.MetricName, "requests_total", "instance", fmt.Sprint("i", i),
				),
			)
		}
		return out
	}
	return []producer{
		{labels.FromStrings("cluster", "pair", "replica", "a"), one(4)},
		{labels.FromStrings("cluster", "pair", "replica", "b"), one(4)},
		{labels.FromStrings("cluster", "solo"), one(3)},
	}
}

// write writes the producers' blocks, each from one edge to the next, and adds their samples to the
// truth, in which replicas are one.
func write(t *testing.T, bucket string, truth samples.Set, edges ...int64) (ids []ulid.ULID) {
	t.Helper()
	for n, p := range twoClusters() {
		for i := range len(edges) - 1 {
			id, err := p.block(edges[i], edges[i+1]).Write(t.Context(), bucket)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		if n == 1 {
			continue
		}
		for i, ls := range p.series {
			for at := edges[0]; at < edges[len(edges)-1]; at += step {
				truth.Add(p.full(ls, "replica"), samples.Point{T: at, V: value(i, at)})
			}
		}
	}
	return ids
}

// compact runs the compactor once, to its end.
func compact(t *testing.T, bin string, b gateway.Bucket, dir string, extra ...string) {
	t.Helper()
	http, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "thanos compact", bin, append([]string{
		"compact", "--data-dir=" + dir, objstore(b), "--http-address=" + http[0],
		"--log.level=warn", "--consistency-delay=0s",
	}, extra...)...)
}

// watch asks for everything repeatedly and compares each answer with the truth.
type watch struct {
	t       *testing.T
	ctx     context.Context
	cancel  context.CancelFunc
	asked   atomic.Int64
	windows atomic.Int64
	wg      sync.WaitGroup
}

func newWatch(t *testing.T) *watch {
	w := &watch{t: t}
	w.ctx, w.cancel = context.WithCancel(t.Context())
	return w
}

// loop asks until the watch is stopped or an answer is wrong.
func (w *watch) loop(what string, ask func(ctx context.Context) error) {
	w.wg.Go(func() {
		for w.ctx.Err() == nil {
			// This is longer than any answer should take: an answer that never ends is a failure.
			ctx, done := context.WithTimeout(context.WithoutCancel(w.ctx), time.Minute)
			err := ask(ctx)
			done()
			if err != nil {
				w.t.Errorf("%s failed after %d right answers: %v", what, w.asked.Load(), err)
				return
			}
			w.asked.Add(1)
		}
	})
}

func (w *watch) stop() {
	w.cancel()
	w.wg.Wait()
}

// watching watches raw samples, aggregates and labels of one gateway.
func watching(t *testing.T, s *serving, truth samples.Set) *watch {
	w := newWatch(t)
	w.loop("raw samples", func(ctx context.Context) error {
		got, _, err := raw(ctx, s.client, "replica")
		if err != nil {
			return err
		}
		if d := truth.Diff(got); d != "" {
			return fmt.Errorf("wrong answer: %s", d)
		}
		return nil
	})
	w.loop("aggregates and labels", func(ctx context.Context) error {
		for _, resolution := range []int64{layout.FiveMinutes, layout.OneHour} {
			req := everything()
			req.MaxResolutionWindow, req.WithoutReplicaLabels = resolution, []string{"replica"}
			a, err := series(ctx, s.client, req)
			if err != nil {
				return fmt.Errorf("at %d ms: %w", resolution, err)
			}
			n, err := truth.Aggregates(a.Series)
			if err != nil {
				return fmt.Errorf("wrong answer at %d ms: %w", resolution, err)
			}
			w.windows.Add(int64(n))
		}
		return labelsAre(ctx, s.client, "instance", "i0", "i1", "i2", "i3")
	})
	return w
}

func labelsAre(ctx context.Context, c *gateway.Client, name string, want ...string) error {
	a, err := answer.Ask(ctx, c, &query.Query{Values: &storepb.LabelValuesRequest{
		Label: name, End: 1 << 50,
		Matchers: []storepb.LabelMatcher{
			{Type: storepb.LabelMatcher_EQ, Name: labels.MetricName, Value: "requests_total"}},
	}})
	switch {
	case err != nil:
		return err
	case !slices.Equal(a.List, want):
		return fmt.Errorf(
			"values of %s: %v (%s %s), want %v", name, a.List, a.Code, a.Message, want,
		)
	}
	return nil
}

// TestCompactorRunsWhileLarderServes: blocks of replicas are merged, compacted to two days and two
// weeks, downsampled to five minutes and one hour, and deleted as soon as they are replaced.
// Meanwhile larder answers for all of it: no wrong answer, no gap, no failed query.
func TestCompactorRunsWhileLarderServes(t *testing.T) {
	t.Parallel()
	bin, thanos := larder(t), programs.Thanos(t)
	b, truth, dir := emptyBucket(t), samples.Set{}, t.TempDir()
	from := time.Now().UnixMilli()/(14*day)*(14*day) - 28*day
	const h = layout.OneHour
	hours := func(at ...int64) (edges []int64) {
		for _, x := range at {
			edges = append(edges, from+x*h)
		}
		return edges
	}
	// Of twelve days the compactor makes blocks of two days, and blocks of five minutes beside
	// them.
	first := hours(0, 2, 4, 6, 8, 16, 24, 48, 96, 144, 192, 240, 288)
	// With the remaining days they become blocks of two weeks, and blocks of one hour beside them.
	second := hours(288, 336, 338)
	if settings.Full() {
		first = first[:1]
		for x := int64(2); x <= 48; x += 2 {
			first = append(first, from+x*h)
		}
		first = append(first, hours(56, 64, 72, 80, 88, 96, 144, 192, 240, 288)...)
	}
	s := (*serving)(nil)
	asked, windows, deleted, missed := int64(0), int64(0), 0, 0.0
	for stage, edges := range [][]int64{first, second} {
		write(t, b.Dir, truth, edges...)
		if s == nil {
			s = startLarder(t, bin, b)
		}
		s.await(t, truth, "replica")
		// A larder that hardly ever syncs by itself and caches next to nothing: it meets every
		// block that is gone.
		own := b
		own.DataDir = t.TempDir()
		late := startLarder(
			t, bin, own, "--sync-block-duration=1h", "--index-cache-size=1MB",
			"--chunk-cache-size=1KB",
		)
		late.await(t, truth, "replica")
		before, _ := metas(t, b)
		w, l := watching(t, s, truth), watching(t, late, truth)
		// The compactor deletes marked blocks at the beginning of its next round; the last round's
		// marks need one more run.
		for range 2 {
			compact(t, thanos, b, dir, "--delete-delay=0s", "--deduplication.replica-label=replica")
		}
		after, marked := metas(t, b)
		s.await(t, truth, "replica")
		w.stop()
		late.await(t, truth, "replica")
		l.stop()
		if t.Failed() {
			t.Fatalf("stage %d; larder says:\n%s\nthe late one:\n%s", stage, s.Log(), late.Log())
		}
		for _, x := range []*serving{s, late} {
			missed += metric(t, x.httpAddr, "larder_catalog_tombstones_total")
		}
		for id := range before {
			if after[id] == nil {
				deleted++
			}
		}
		asked += w.asked.Load() + l.asked.Load()
		windows += w.windows.Load() + l.windows.Load()
		for _, id := range marked {
			delete(after, id)
		}
		shapes := map[string]bool{}
		for _, m := range after {
			if m.Thanos.Labels["replica"] != "" && m.MaxTime != edges[len(edges)-1] {
				t.Errorf("block %s of a replica was not merged", m.ULID)
			}
			shapes[fmt.Sprintf("%dh at %ds", (m.MaxTime-m.MinTime)/h,
				m.Thanos.Downsample.Resolution/1000)] = true
		}
		for _, want := range [][]string{{"48h at 0s", "48h at 300s"},
			{"336h at 0s", "336h at 300s", "336h at 3600s"}}[stage] {
			if !shapes[want] {
				t.Errorf(
					"stage %d: the compactor made no block of %s, but %v", stage, want,
					slices.Sorted(maps.Keys(shapes)),
				)
			}
		}
	}
	if windows == 0 {
		t.Error("no answer held aggregates")
	}
	if asked < 20 || deleted < 20 {
		t.Errorf("%d rounds of queries over %d deleted blocks are too few", asked, deleted)
	}
	if missed == 0 {
		t.Error("no block was found missing by a query")
	}
	t.Logf(
		"proved: %d rounds of queries, each over all of %d samples, while %d blocks were deleted, %v of them under a query",
		asked, truth.Points(), deleted, missed,
	)
	if log := s.Log(); strings.Contains(log, "level=ERROR") ||
		strings.Contains(log, "level=error") {
		t.Errorf("larder reports errors:\n%s", log)
	}
}

// TestCompactorMarksBlocks: a block that Thanos's own tool has marked for deletion leaves after
// --ignore-deletion-marks-delay and not before. A compactor with a delete delay does not change the
// answers under either delay.
func TestCompactorMarksBlocks(t *testing.T) {
	t.Parallel()
	bin, thanos := larder(t), programs.Thanos(t)
	b, truth := emptyBucket(t), samples.Set{}
	at := time.Now().UnixMilli()/day*day - 3*day
	const h = layout.OneHour
	ids := write(t, b.Dir, truth, at, at+2*h, at+4*h, at+6*h, at+8*h, at+10*h)
	patient := startLarder(t, bin, b)
	hasty := b
	hasty.DataDir = t.TempDir()
	impatient := startLarder(t, bin, hasty, "--ignore-deletion-marks-delay=1s")
	patient.await(t, truth, "replica")
	impatient.await(t, truth, "replica")

	p, i := watching(t, patient, truth), watching(t, impatient, truth)
	compact(
		t, thanos, b, t.TempDir(), "--delete-delay=48h", "--deduplication.replica-label=replica",
		"--downsampling.disable",
	)
	all, marked := metas(t, b)
	if len(marked) < len(ids)/2 {
		t.Errorf("the compactor marked %d blocks of %d", len(marked), len(all))
	}
	var unmarked []ulid.ULID
	for id := range all {
		if !slices.Contains(marked, id) {
			unmarked = append(unmarked, id)
		}
	}
	impatient.awaitBlocks(t, unmarked...)
	p.stop()
	i.stop()

	// The last block of the single server has not been compacted; no block replaces it.
	lone := ids[len(ids)-1]
	run(
		t, "thanos tools bucket mark", thanos, "tools", "bucket", "mark", objstore(b),
		"--id="+lone.String(), "--marker=deletion-mark.json", "--details=interop",
	)
	impatient.awaitBlocks(
		t,
		slices.DeleteFunc(unmarked, func(id ulid.ULID) bool { return id == lone })...)
	// By then the larder with the long delay has seen the mark, too: it syncs as often.
	if _, a, err := raw(t.Context(), patient.client); err != nil ||
		!slices.Contains(a.Hints.Blocks, lone.String()) {
		t.Errorf("larder does not serve a block that was just marked: %v", err)
	}
	patient.await(t, truth, "replica")
	t.Logf(
		"proved: %d marked blocks were served until the delay ended, and no longer; %d rounds of queries",
		len(marked)+1, p.asked.Load()+i.asked.Load(),
	)
}

// TestCompactorKeepsSiblingsWhole: gateways that share a bucket by hashmod of the block or by time
// serve all of it together, whichever owns a compacted block. The source blocks stay in the bucket,
// as with every delete delay that is longer than a sync.
func TestCompactorKeepsSiblingsWhole(t *testing.T) {
	t.Parallel()
	bin, thanos := larder(t), programs.Thanos(t)
	b, truth := emptyBucket(t), samples.Set{}
	from := time.Now().UnixMilli()/(2*day)*(2*day) - 6*day
	const h = layout.OneHour
	edges := []int64{
		from,
		from + 2*h,
		from + 4*h,
		from + 6*h,
		from + 8*h,
		from + 16*h,
		from + 24*h,
		from + 48*h,
		from + 50*h,
	}
	write(t, b.Dir, truth, edges...)
	start := func(args ...string) *serving {
		own := b
		own.DataDir = t.TempDir()
		return startLarder(t, bin, own, args...)
	}
	shard := func(n int) string {
		return fmt.Sprintf(
			`--selector.relabel-config=[{action: hashmod, source_labels: [__block_id], target_label: shard, modulus: 2}, `+
				`{action: keep, source_labels: [shard], regex: "%d"}]`,
			n,
		)
	}
	middle := time.UnixMilli(from + 7*h).UTC().Format(time.RFC3339)
	families := map[string][]*serving{
		"by block": {start(shard(0)), start(shard(1))},
		"by time":  {start("--max-time=" + middle), start("--min-time=" + middle)},
	}
	w := newWatch(t)
	together := func(ctx context.Context, family []*serving) error {
		all := samples.Set{}
		for _, s := range family {
			got, _, err := raw(ctx, s.client, "replica")
			if err != nil {
				return err
			}
			if len(got) == 0 {
				return errors.New("one of them has nothing")
			}
			if err := all.Merge(got); err != nil {
				return err
			}
		}
		if d := truth.Diff(all); d != "" {
			return errors.New(d)
		}
		return nil
	}
	for name, family := range families {
		w.loop(name, func(ctx context.Context) error { return together(ctx, family) })
	}
	compact(
		t, thanos, b, t.TempDir(), "--delete-delay=48h", "--deduplication.replica-label=replica",
	)
	for _, family := range families {
		for _, s := range family {
			s.nextSync(t)
		}
	}
	w.stop()
	for name, family := range families {
		if err := together(t.Context(), family); err != nil {
			t.Errorf("%s, afterwards: %v", name, err)
		}
	}
	all, marked := metas(t, b)
	if len(marked) < 10 {
		t.Errorf("the compactor marked %d blocks", len(marked))
	}
	t.Logf(
		"proved: two shards by block and two partitions by time had all of %d samples together, %d times, while %d blocks were compacted into %d",
		truth.Points(), w.asked.Load(), len(marked), len(all)-len(marked),
	)
}
