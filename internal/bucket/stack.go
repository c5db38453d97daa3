package bucket

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"larder/internal/bucket/hedge"
	"larder/internal/bucket/retry"
	"larder/internal/bucket/slots"
)

// Options of a Stack.
type Options struct {
	// Limiter bounds the concurrent reads of the bucket. Several stacks may share it.
	Limiter *slots.Limiter
	// WholeBytes bounds the memory of all objects that are read to their end before their first
	// byte is delivered.
	WholeBytes int64
	// Beside is an open stack with the same Registerer, nil if there is none. The metrics of the
	// new stack then have another value of the label bucket, even if both stacks read folders of
	// one bucket. Its hedges and retries are not counted, because their metrics have no such label
	// and no query waits for its reads.
	Beside *Stack
	// ReadBudget returns the time from which a read without a first byte may be hedged: see
	// hedge.Options. nil: none.
	ReadBudget func() time.Duration
	// Beneath, if set, wraps the provider's client, below hedges, metrics and retries: a model of
	// another bucket.
	Beneath func(objstore.Bucket) objstore.Bucket

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Stack is the client of a bucket with all layers but the slots: a caller acquires a slot before it
// reads, or uses Bound. A Stack is safe for concurrent use.
type Stack struct {
	objstore.InstrumentedBucket
	client  *client
	limiter *slots.Limiter
}

// Open builds the stack of a bucket. It sends no request, unless the provider's client does.
//
// The metrics thanos_objstore_bucket_* have the names that Thanos's dashboards and alerts read.
// Hedges are below them, same as in Thanos, and retries are above them. An operation is therefore
// one attempt with its own duration and failure. The alert on failing operations fires for a bucket
// that fails while retries still hide it from clients. Hedges and retries are counted in
// larder_bucket_hedges_total and larder_bucket_retries_total.
func Open(conf *Config, o Options) (*Stack, error) {
	c, err := newClient(conf, o.Logger)
	if err != nil {
		return nil, err
	}
	name, extra := c.Name(), o.Registerer
	if o.Beside != nil {
		if extra = nil; name == o.Beside.Name() {
			name += " (parquet)"
		}
	}
	var b objstore.Bucket = c
	if o.Beneath != nil {
		b = o.Beneath(b)
	}
	if h := conf.Hedging; h.Enabled {
		b = hedge.Wrap(b, hedge.Options{
			UpTo: h.UpTo, Quantile: h.Quantile, ReadBudget: o.ReadBudget, Limiter: o.Limiter,
			Logger: o.Logger, Registerer: extra,
		})
	}
	counted := prometheus.WrapRegistererWithPrefix("thanos_", o.Registerer)
	b = objstore.WrapWith(b, objstore.BucketMetrics(counted, name))
	repeated := retry.Wrap(b, retry.Options{
		Limiter: o.Limiter, WholeBytes: o.WholeBytes, Logger: o.Logger, Registerer: extra,
	})
	return &Stack{InstrumentedBucket: repeated, client: c, limiter: o.Limiter}, nil
}

// Bound returns the stack for callers that hold no slot: each operation acquires one.
func (s *Stack) Bound() objstore.InstrumentedBucket { return slots.Bound(s, s.limiter) }

// Replace makes conf the configuration of the client if it differs in credentials only and the
// bucket can be listed with it. After an error the former client stays in use. Calls must not
// overlap.
func (s *Stack) Replace(ctx context.Context, conf *Config) error {
	return s.client.replace(ctx, conf)
}

// ReportSilence waits until ctx ends or 2 s have passed, and then logs a warning if the bucket has
// answered no request since Open.
func (s *Stack) ReportSilence(ctx context.Context) { s.client.reportSilence(ctx) }
