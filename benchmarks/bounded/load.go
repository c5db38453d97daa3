package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/internal/faultstore/s3server"
	"larder/store/storepb"
)

// kind is a kind of large request.
type kind struct {
	name  string
	req   any
	count int
	// want is what is known of the answer in advance, and later the answer to the request when it
	// was sent alone.
	want  answer
	alone time.Duration

	right, wrong int
	codes        map[string]int // of failed requests
	durations    []time.Duration
	firstWrong   string
}

// batch is the batch size that Thanos's Queriers request.
const batch = 64

func series(ms ...*storepb.LabelMatcher) *storepb.SeriesRequest {
	return &storepb.SeriesRequest{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64, ResponseBatchSize: batch, Matchers: ms,
		Aggregates: []storepb.Aggr{storepb.Aggr_RAW},
	}
}

func matcher(t storepb.LabelMatcher_Type, name, value string) *storepb.LabelMatcher {
	return &storepb.LabelMatcher{Type: t, Name: name, Value: value}
}

func (c config) kinds() []*kind {
	const name, is, re = "__name__", storepb.LabelMatcher_EQ, storepb.LabelMatcher_RE
	values := func(ms ...*storepb.LabelMatcher) *storepb.LabelValuesRequest {
		return &storepb.LabelValuesRequest{Label: dataset.ManyValuesLabel, Start: math.MinInt64,
			End: math.MaxInt64, Matchers: ms}
	}
	all := matcher(is, name, dataset.ManyValuesName)
	whole := answer{series: c.values, chunks: c.values}
	return []*kind{
		{name: "label values", req: values(), count: c.beside, want: answer{values: c.values}},
		{name: "label values of matching series", req: values(matcher(is, "container", "frontend")),
			count: c.beside, want: answer{values: c.values}},
		{name: "regex that nothing matches",
			req:   series(matcher(re, dataset.ManyValuesLabel, ".*no-such-session.*")),
			count: c.beside},
		{name: "regex for a sixteenth", req: series(matcher(re, dataset.ManyValuesLabel, ".+7")),
			count: c.beside, want: answer{series: -1}},
		{name: "regex for all",
			req: series(matcher(re, dataset.ManyValuesLabel, "[0-9]+-[0-9a-f]+")), count: c.beside,
			want: whole},
		{name: "all series", req: series(all), count: c.all, want: whole},
	}
}

// load starts larder and sends small queries alone, each kind of large request alone, and then all
// at once.
func (c config) load(ctx context.Context, bucket, data string) (r *report, err error) {
	s3, err := s3server.Start(
		s3server.Options{Dir: bucket, Latency: s3server.Latency{FirstByte: c.first}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s3.Close()) }()
	p, err := c.start(ctx, s3.Config(), data)
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	var conns []*grpc.ClientConn
	defer func() {
		for _, conn := range conns {
			err = errors.Join(err, conn.Close())
		}
	}()
	for range 1 + clients {
		conn, err := dial(p.GRPC)
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
	}
	small, large := conns[0], conns[1:]

	r = &report{config: c, kinds: c.kinds(), cgroup: p.InCgroup()}
	q, err := c.smallQueries(ctx, small)
	if err != nil {
		return nil, err
	}
	r.quiet = q.ask(ctx, small, c.rate, func(asked int) bool { return asked < c.quiet })
	c.note("small queries alone: %s", r.quiet.String())
	for _, k := range r.kinds {
		if err := k.askAlone(ctx, large[0]); err != nil {
			return nil, fmt.Errorf("%s, alone: %w", k.name, err)
		}
		c.note("%s: %s in %s, %d bytes", k.name, k.want, k.alone.Round(time.Millisecond),
			k.want.bytes)
	}

	watched, err := watch(ctx, p, c)
	if err != nil {
		return nil, err
	}
	over := make(chan struct{})
	start := time.Now()
	go func() {
		defer close(over)
		c.askAtOnce(ctx, r.kinds, large)
	}()
	r.loaded = q.ask(ctx, small, c.rate, func(int) bool {
		select {
		case <-over:
			return false
		default:
			return ctx.Err() == nil
		}
	})
	r.took = time.Since(start)
	if r.memory, err = watched(); err != nil {
		return nil, err
	}
	return r, ctx.Err()
}

// clients is the number of connections for large requests, like that many Queriers.
const clients = 8

func (k *kind) askAlone(ctx context.Context, conn *grpc.ClientConn) error {
	start := time.Now()
	a, err := ask(ctx, conn, k.req, nil)
	k.alone = time.Since(start)
	if err != nil {
		return err
	}
	if want := k.want; a.series != want.series && want.series >= 0 ||
		a.chunks != want.chunks && want.series >= 0 ||
		a.values != want.values {
		return fmt.Errorf("got %s, want %s", a, want)
	}
	k.want = a
	return nil
}

// askAtOnce sends all large requests and waits for their ends.
func (c config) askAtOnce(ctx context.Context, kinds []*kind, conns []*grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	var mu sync.Mutex // guards kinds
	var wg sync.WaitGroup
	n := 0
	for _, k := range kinds {
		k.codes = map[string]int{}
		for range k.count {
			conn := conns[n%len(conns)]
			n++
			wg.Go(func() {
				start := time.Now()
				a, err := ask(ctx, conn, k.req, nil)
				took := time.Since(start)
				mu.Lock()
				defer mu.Unlock()
				k.durations = append(k.durations, took)
				switch {
				case err != nil:
					c.note("%s failed after %s: %v", k.name, took.Round(time.Millisecond), err)
					k.codes[status.Code(err).String()]++
				case a == k.want:
					c.note("%s after %s", k.name, took.Round(time.Millisecond))
					k.right++
				default:
					k.wrong++
					k.firstWrong = fmt.Sprintf("%s (%x), alone %s (%x)", a, a.hash, k.want,
						k.want.hash)
				}
			})
		}
	}
	wg.Wait()
}
