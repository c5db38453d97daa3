package store_test

import (
	"context"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/thanos-io/objstore"

	"larder/internal/budget"
	"larder/store"
)

// held returns budgets of one document.
func held(r budget.Requests) *budget.Current {
	return budget.NewCurrent(&budget.Document{Requests: r})
}

// TestOverrunsAreCounted makes requests in virtual time, where only reads of the bucket take time.
// Those that exceed a budget are counted by stage and kept, others are not.
func TestOverrunsAreCounted(t *testing.T) {
	if testing.Short() {
		t.Skip("requests one by one: the race detector finds more in others")
	}
	dir := wholeBlock(t, 2000)
	synctest.Test(t, func(t *testing.T) {
		budgets := held(budget.Requests{
			Series: budget.Times{Total: time.Hour, Chunks: time.Millisecond},
		})
		g := startGateway(t, dir, gatewayOptions{
			chunkBytes: -1, indexBytes: 64 << 20,
			wrap:   func(b objstore.Bucket) objstore.Bucket { return farBucket{b} },
			server: func(o *store.Options) { o.Budgets = budgets },
		})
		ask := func(skipChunks bool) {
			t.Helper()
			req := wholeMetric(64)
			req.SkipChunks = skipChunks
			if _, err := g.query(context.Background(), req); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the handler counts after it has answered
		}
		count := func(method, stage string) float64 {
			return g.metric(t, "larder_budget_overruns_total", method, stage)
		}
		if got := g.metric(t, "larder_budget_seconds", "Series", "total"); got != 3600 {
			t.Errorf("budget of the total: got %v seconds", got)
		}
		ask(false) // it waits for the bucket
		if got := count("Series", "chunks"); got != 1 {
			t.Errorf("overruns of chunks: got %v, want 1", got)
		}
		ask(true) // its index pages are cached: it takes no time
		for _, stage := range []string{"total", "first_frame", "postings", "send"} {
			if got := count("Series", stage); got != 0 {
				t.Errorf("overruns of %s: got %v, want 0", stage, got)
			}
		}
		if got := count("Series", "chunks"); got != 1 {
			t.Errorf("overruns of chunks after a request without chunks: got %v, want 1", got)
		}
		recent := g.Server.Overruns()
		if len(recent) != 1 || len(recent[0].Exceeded) != 1 {
			t.Fatalf("recent overruns: got %+v, want one of chunks", recent)
		}
		if o, e := recent[0], recent[0].Exceeded[0]; e.Stage != "chunks" ||
			e.Budget != time.Millisecond || e.Took < 20*time.Millisecond || o.Total < e.Took ||
			o.Method != "Series" || o.Asked != `{__name__="`+wholeMetric(1).Matchers[0].Value+`"}` {
			t.Errorf("recent overruns: got %+v", o)
		}

		for range 70 {
			ask(false)
		}
		if got := count("Series", "chunks"); got != 71 {
			t.Errorf("overruns of chunks: got %v, want 71", got)
		}
		if got := g.Server.Overruns(); len(got) != 64 || !slices.IsSortedFunc(got,
			func(a, b store.Overrun) int { return b.Ended.Compare(a.Ended) }) {
			t.Errorf("%d recent overruns, want the last 64, the newest first", len(got))
		}
		budgets.Set(nil)
		ask(false)
		if got := count("Series", "chunks"); got != 71 {
			t.Errorf("overruns without budgets: got %v, want 71 as before", got)
		}
	})
}

// stageHistogram returns the histogram of a stage of Series requests.
func stageHistogram(t *testing.T, g *gateway, stage string) *dto.Histogram {
	t.Helper()
	families, err := g.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "larder_stage_duration_seconds" &&
				m.Label[0].GetValue() == "Series" && m.Label[1].GetValue() == stage {
				return m.Histogram
			}
		}
	}
	t.Fatalf("no histogram of the stage %s", stage)
	return nil
}

// TestFlowControlIsOutsideTheBudget lets a client read nothing for a minute. That time is a stage
// of its own. It exceeds no budget, because the gateway was not slow.
func TestFlowControlIsOutsideTheBudget(t *testing.T) {
	dir := wholeBlock(t, 12_000)
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan store.Finished, 1)
		g := startGateway(t, dir, gatewayOptions{
			chunkBytes: 64 << 20, indexBytes: 64 << 20,
			server: func(o *store.Options) {
				second := budget.Times{Total: time.Second, FirstFrame: time.Second,
					Chunks: time.Second, Series: time.Second, Send: time.Second}
				o.Budgets = held(budget.Requests{Series: second})
				o.SendStallTimeout = -1
				o.Finished = func(f store.Finished) { ended <- f }
			},
		})
		stream, err := g.client.Series(context.Background(), wholeMetric(64))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for err == nil {
			_, err = stream.Recv()
		}
		if err != io.EOF {
			t.Fatal(err)
		}
		f := <-ended
		took := map[string]time.Duration{}
		for i, name := range store.StageNames() {
			took[name] = f.Stages[i]
		}
		if got := took["flow_control"]; got < 59*time.Second {
			t.Errorf("flow control: got %s, want the minute in which the client did not read", got)
		}
		stage := stageHistogram(t, g, "flow_control")
		if stage.GetSampleSum() < 59 || len(stage.Bucket) == 0 || stage.Schema == nil {
			t.Errorf("larder_stage_duration_seconds: %v, want classic and native buckets", stage)
		}
		if took["send"] > time.Second {
			t.Errorf("send: got %s, but the client did not read", took["send"])
		}
		if got := g.Server.Overruns(); len(got) > 0 {
			t.Errorf("a slow client is an overrun: %+v", got)
		}
	})
}
