package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/thanos-io/objstore"
	"google.golang.org/grpc/codes"

	"larder/internal/faultstore"
)

// bucketCodes are the codes of requests that fail because of the bucket: Series and label requests,
// and requests that their client gave up while the bucket did not answer.
func bucketCodes() []codes.Code {
	return []codes.Code{codes.Aborted, codes.Internal, codes.DeadlineExceeded}
}

// bucketFaults are faults of a bucket, and correct actions of a compactor. memcached is emptied all
// the time, because what it contains needs no bucket.
func bucketFaults() []fault {
	f := func(name string, rules ...faultstore.Rule) fault {
		return fault{name: name, codes: bucketCodes(), run: func(ctx context.Context, w *world,
			r *rand.Rand) (int, error) {
			before := w.faults.Total()
			w.faults.Set(rules...)
			_, err := repeat(ctx, r, 100*time.Millisecond, w.cache.flush)
			w.faults.Heal()
			return w.faults.Total() - before, err
		}}
	}
	often := func(k faultstore.Kind, share float64) faultstore.Rule {
		return faultstore.Rule{Kind: k, Probability: share}
	}
	slow := often(faultstore.SlowFirstByte, 0.2)
	slow.Delay = 2 * time.Second
	pausing := often(faultstore.StalledBody, 0.1)
	pausing.Delay = 2 * time.Second
	listings := []string{objstore.OpIter}
	// ofTheRoot selects the listings that show which blocks exist.
	ofTheRoot := func(_, name string) bool { return name == "" }
	short := func(at int64, share float64) faultstore.Rule {
		return faultstore.Rule{Kind: faultstore.ShortListing, Match: ofTheRoot, At: at,
			Probability: share}
	}
	return []fault{
		f("bucket-down", faultstore.Rule{Kind: faultstore.ServerError}),
		f("bucket-5xx", often(faultstore.ServerError, 0.3)),
		f("bucket-slow-down", often(faultstore.SlowDown, 0.3)),
		f("bucket-timeouts", often(faultstore.Timeout, 0.05)),
		f("bucket-slow-first-byte", slow),
		f("bucket-stalled-bodies", often(faultstore.StalledBody, 0.05)),
		f("bucket-pausing-bodies", pausing),
		f("bucket-truncated-bodies", often(faultstore.TruncatedBody, 0.2)),
		f("bucket-short-bodies", often(faultstore.ShortBody, 0.2)),
		f("bucket-long-bodies", often(faultstore.LongBody, 0.2)),
		f("bucket-flipped-bits", often(faultstore.FlippedBit, 0.2)),
		f("bucket-resets", often(faultstore.Reset, 0.2)),
		f("bucket-denied", often(faultstore.AccessDenied, 0.3)),
		f("bucket-not-found", often(faultstore.Vanished, 0.1)),
		f(
			"bucket-listings",
			faultstore.Rule{Kind: faultstore.ListingError, Ops: listings, Probability: 0.4},
			faultstore.Rule{
				Kind:        faultstore.Timeout,
				Ops:         listings,
				Probability: 0.2,
			},
			faultstore.Rule{Kind: faultstore.ServerError, Ops: listings, Probability: 0.5},
		),
		f(
			"bucket-listings-replaced", often(faultstore.HTMLPage, 0.5),
			faultstore.Rule{Kind: faultstore.ErrorDocument},
		),
		// Listings that are empty, of one block, or of any number of blocks.
		f("bucket-listings-short", short(-1, 0.4), short(1, 0.4), short(0, 0)),
		{
			name:  "compaction",
			codes: []codes.Code{codes.Aborted},
			run: func(ctx context.Context, w *world, r *rand.Rand) (int, error) {
				return repeat(ctx, r, 500*time.Millisecond, func() error {
					_, _, err := w.bucket.compact(r)
					return err
				})
			},
		},
	}
}

// cacheFaults are faults of memcached. No request may fail because of them.
func cacheFaults() []fault {
	relay := func(name string, m relayMode) fault {
		return fault{name: name, run: func(ctx context.Context, w *world, _ *rand.Rand) (int,
			error) {
			w.cache.relay.set(m)
			<-ctx.Done()
			return w.cache.relay.set(relayPasses), nil
		}}
	}
	return []fault{
		{name: "memcached-killed", run: func(ctx context.Context, w *world, r *rand.Rand) (int,
			error) {
			return repeat(ctx, r, 2*time.Second, func() error {
				w.cache.Kill()
				pause(ctx, time.Duration(r.Int64N(int64(2*time.Second))))
				return w.cache.start(context.WithoutCancel(ctx))
			})
		}},
		{name: "memcached-hangs", run: func(ctx context.Context, w *world, r *rand.Rand) (int,
			error) {
			return repeat(ctx, r, time.Second, func() error {
				w.cache.stop()
				defer w.cache.resume()
				pause(ctx, time.Duration(r.Int64N(int64(3*time.Second))))
				return nil
			})
		}},
		relay("memcached-flips-bits", relayFlips),
		relay("memcached-garbage", relayGarbage),
		relay("memcached-cuts", relayCuts),
	}
}
