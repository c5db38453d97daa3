package interop

import (
	"context"
	"testing"

	"github.com/thanos-io/thanos/pkg/store/storepb"

	"larder/interop/internal/answer"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/query"
	"larder/interop/internal/trial"
)

// TestWhatThanosCannotAnswer: a negative max_resolution_window makes Thanos panic with its lock
// held. It can only mean raw; therefore larder must answer it as Thanos answers zero.
func TestWhatThanosCannotAnswer(t *testing.T) {
	ctx := context.Background()
	bin, err := gateway.BuildLarder(ctx, "..")
	if err != nil {
		t.Fatal(err)
	}
	l, err := layout.Write(ctx, t.TempDir(), 2000, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := trial.Start(ctx, l, t.TempDir(), trial.Larder(bin), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}()
	req := storepb.SeriesRequest{
		MinTime: 0, MaxTime: 1 << 52,
		Matchers: []storepb.LabelMatcher{{Type: storepb.LabelMatcher_RE, Name: "__name__",
			Value: ".+"}},
		// With hints, so that both send some.
		ResponseBatchSize: 64,
	}
	q := &query.Query{Series: &req}
	if err := q.SetHints(nil, false); err != nil {
		t.Fatal(err)
	}
	zero, err := tr.Ask(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	if len(zero.Thanos.Series) == 0 {
		t.Fatal("the answer is empty and compares nothing")
	}
	negative := q.Clone()
	negative.Series.MaxResolutionWindow = -1
	got, err := tr.AskSubject(ctx, negative)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range answer.Diff(zero.Thanos, got,
		answer.Options{BatchSize: 64, AskedHints: true}) {
		t.Error(d)
	}
	t.Log("proved: a negative max_resolution_window, which breaks Thanos, is answered as 0")
}
