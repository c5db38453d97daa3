package interop

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"larder/interop/internal/allowed"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/query"
	"larder/interop/internal/settings"
	"larder/interop/internal/trial"
)

// TestCases serves the buckets of testdata/cases, which other programs wrote, with both gateways
// and sends random requests to them.
func TestCases(t *testing.T) {
	ctx := context.Background()
	bin, err := gateway.BuildLarder(ctx, "..")
	if err != nil {
		t.Fatal(err)
	}
	list, err := allowed.Load("allowed_differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadDir(filepath.Join("testdata", "cases"))
	if err != nil {
		t.Fatal(err)
	}
	seed, total, buckets := settings.Seed(t), 0, 0
	for _, c := range cases {
		if !c.IsDir() {
			continue
		}
		t.Run(c.Name(), func(t *testing.T) {
			l, err := layout.Open(filepath.Join("testdata", "cases", c.Name()))
			if err != nil {
				t.Fatal(err)
			}
			tr, err := trial.Start(ctx, l, t.TempDir(), trial.Larder(bin), list)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := tr.Close(); err != nil {
					t.Error(err)
				}
			}()
			g, report := query.NewGenerator(seed, l), reporter(t, maxReports)
			answers, requests := 0, settings.Choose(150, 1500)
			for n := range requests {
				q := g.Next()
				res, err := tr.Ask(ctx, q)
				if err != nil {
					t.Fatalf("request %d (seed %d): %s: %v", n, seed, q, err)
				}
				if len(res.Differences) > 0 && !report(tr, q, res) {
					return
				}
				if !res.Thanos.Empty() {
					answers++
				}
				diff, err := tr.Again(ctx, q, res)
				if err != nil {
					t.Fatalf("request %d (seed %d), second answer: %s: %v", n, seed, q, err)
				}
				if len(diff) > 0 {
					t.Fatalf(
						"request %d (seed %d): the second answer to %s is another one: %v", n, seed,
						q, diff,
					)
				}
			}
			// A block of one instant answers only requests that begin before it.
			if answers*10 < requests {
				t.Errorf(
					"only %d of %d answers hold something: the test compares too little", answers,
					requests,
				)
			}
			total += requests
			buckets++
		})
	}
	t.Logf(
		"proved: %d random requests over %d buckets of other writers answered as Thanos's BucketStore does, seed %d",
		total, buckets, seed,
	)
}
