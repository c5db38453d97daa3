package interop

import (
	"testing"

	"larder/interop/internal/allowed"
	"larder/interop/internal/answer"
	"larder/interop/internal/defect"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/query"
	"larder/interop/internal/trial"
)

// TestDefectsAreCaught makes a Thanos commit one mistake at a time. The comparison that larder
// passes, allowed differences included, must report each mistake in the right field.
func TestDefectsAreCaught(t *testing.T) {
	buckets := &shelf{dir: t.TempDir(), made: map[int]*layout.Layout{}}
	t.Run("mistakes", func(t *testing.T) {
		try := func(name string, opts gateway.ThanosOptions, field answer.Field) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				caught(t, buckets, opts, field)
			})
		}
		for _, d := range defect.All {
			try(d.Name, gateway.ThanosOptions{Wrap: d.Wrap}, d.Field)
		}
		// Thanos itself has an option for this one.
		try("no re-sort", gateway.ThanosOptions{DontResort: true}, answer.SeriesLabels)
	})
	t.Logf(
		"proved: that comparison reports each of %d mistakes, made one at a time",
		len(defect.All)+1,
	)
}

// caught compares Thanos with a Thanos of these options until it finds a difference in the field.
func caught(t *testing.T, buckets *shelf, opts gateway.ThanosOptions, field answer.Field) {
	t.Helper()
	list, err := allowed.Load("allowed_differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r := &run{
		subject: trial.Thanos(
			opts,
		), allowed: list, seed: defaultSeed, layouts: 6, requests: perLayout, shelf: buckets,
		kind: func(int) layout.Options { return layout.Options{} },
	}
	report, others := "", 0
	r.all(t, func(tr *trial.Trial, q *query.Query, res *trial.Result) bool {
		for _, x := range res.Differences {
			if x.Field == field {
				report = trial.Report(tr.Layout, q, res)
				return false
			}
		}
		others++
		return true
	})
	if report == "" {
		t.Errorf("not caught: no difference in %s (%d requests differed otherwise)", field, others)
	}
	t.Logf("caught:\n%s", report)
}
