package store_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/faultstore"
)

// TestRetriesHideBucketFaults checks that requests with enough time succeed if fewer than one read
// in ten fails and a retry helps. Faults hit every phase, including header builds and page reads
// that requests share.
func TestRetriesHideBucketFaults(t *testing.T) {
	dir, metas := blocksOf(t, fewSeries(), 60_000)
	kinds := []faultstore.Kind{
		faultstore.ServerError, faultstore.SlowDown, faultstore.Timeout, faultstore.SlowFirstByte,
		faultstore.Reset,
		faultstore.StalledBody, faultstore.TruncatedBody, faultstore.ShortBody,
		faultstore.ListingError,
	}
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	synctest.Test(t, func(t *testing.T) {
		opts := cold()
		opts.wrap = retrying
		p := startPatient(t, dir, metas, opts)
		var rules []faultstore.Rule
		for _, k := range kinds {
			rules = append(rules, faultstore.Rule{Kind: k, Probability: 0.09 / float64(len(kinds))})
		}
		p.faults.Set(rules...)
		r := rand.New(rand.NewPCG(1, 2))
		var slowest time.Duration
		for round := range rounds {
			if round%2 == 0 {
				forgetHeaders(p)
			}
			var wg sync.WaitGroup
			began := time.Now()
			for range 8 {
				i := r.IntN(len(p.asks))
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
					defer cancel()
					var out outcome
					if p.check(t, ctx, i, &out); out.right != 1 {
						t.Errorf("%s was not answered", p.asks[i].name)
					}
				})
			}
			wg.Wait()
			slowest = max(slowest, time.Since(began))
			if err := p.Catalog.Sync(context.Background()); err != nil {
				t.Errorf("sync: %v", err)
			}
		}
		t.Logf("%d injections: %v; the slowest request took %s",
			p.faults.Total(), p.faults.Counts(), slowest)
		if p.faults.Total() < rounds {
			t.Errorf("only %d faults were injected", p.faults.Total())
		}
		p.recovered(t)
	})
}
