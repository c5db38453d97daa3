package store_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/thanos-io/objstore"

	"larder/internal/faultstore"
)

// TestBucketFaultsAreNotKept breaks the reads that fill the caches. The cached data must be right:
// so must be the answers, both from a working bucket and from the caches alone.
func TestBucketFaultsAreNotKept(t *testing.T) {
	dir, metas := blocksOf(t, fewSeries(), 60_000)
	var want []string
	synctest.Test(t,
		func(t *testing.T) { want = startPatient(t, dir, metas, gatewayOptions{}).want })
	seeds, requests := uint64(2), 16
	if testing.Short() {
		seeds, requests = 1, 6
	}
	for _, k := range readKinds {
		t.Run(k.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for seed := range seeds {
					p := newPatient(t, dir, metas, gatewayOptions{pageSize: 1 << 10})
					p.want = want
					p.faults.Set(faultstore.Rule{
						Kind:        k,
						Ops:         []string{objstore.OpGetRange},
						Probability: 0.25,
					})
					r := rand.New(rand.NewPCG(seed, uint64(k)))
					var wg sync.WaitGroup
					for range requests {
						i := r.IntN(len(p.asks))
						wg.Go(func() { p.check(t, context.Background(), i, &outcome{}) })
					}
					wg.Wait()
					if p.faults.Total() == 0 {
						t.Error("no read has failed")
					}
					p.faults.Heal()
					for i := range p.asks {
						var out outcome
						if p.check(t, context.Background(), i, &out); out.right != 1 {
							t.Errorf("%s, healed: not answered", p.asks[i].name)
						}
					}
					p.faults.Set(faultstore.Rule{Kind: faultstore.ServerError})
					for i := range p.asks {
						p.check(t, context.Background(), i, &outcome{})
					}
					p.holdsNothing(t)
				}
			})
		})
	}
}
