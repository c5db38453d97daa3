package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// smallQueries are queries of a few series: of one of the many values, and of a dashboard's panel
// in the other block. They are chosen at random, so that many of their pages have to be read.
type smallQueries struct {
	rand      *rand.Rand
	sessions  []string
	instances []string
}

// latencies are the durations of small queries, counted from when they were due.
type latencies struct {
	took   []time.Duration
	failed []error
}

func (l *latencies) quantile(q float64) time.Duration {
	if len(l.took) == 0 {
		return 0
	}
	slices.Sort(l.took)
	return l.took[min(int(math.Ceil(q*float64(len(l.took))))-1, len(l.took)-1)]
}

func (l *latencies) String() string {
	ms := func(q float64) time.Duration { return l.quantile(q).Round(100 * time.Microsecond) }
	return fmt.Sprintf("%d, %d failed, p50 %s, p90 %s, p99 %s, slowest %s", len(l.took),
		len(l.failed), ms(0.5), ms(0.9), ms(0.99), ms(1))
}

// sampled is the number of label values from which small queries are made.
const sampled = 20_000

// smallQueries requests the values.
func (c config) smallQueries(ctx context.Context, conn *grpc.ClientConn) (*smallQueries, error) {
	q := &smallQueries{rand: rand.New(rand.NewPCG(1, 2))}
	lists := map[string]*[]string{dataset.ManyValuesLabel: &q.sessions, "instance": &q.instances}
	for label, into := range lists {
		every, n := max(1, c.values/sampled), 0
		if label == "instance" {
			every = 1
		}
		req := &storepb.LabelValuesRequest{Label: label, Start: math.MinInt64, End: math.MaxInt64}
		var bad error
		_, err := ask(ctx, conn, req, func(message []byte) {
			each(message, &bad, func(field int, value []byte) {
				if n++; field == 1 && n%every == 0 {
					*into = append(*into, string(value))
				}
			})
		})
		if err = errors.Join(err, bad); err != nil {
			return nil, fmt.Errorf("values of %s: %w", label, err)
		}
	}
	// Instances of the block of many values have another port.
	q.instances = slices.DeleteFunc(
		q.instances, func(v string) bool { return !bytes.HasSuffix([]byte(v), []byte(":8080")) })
	return q, nil
}

// next returns a query and the number of series in its answer.
func (q *smallQueries) next(n int) (req *storepb.SeriesRequest, want int) {
	const is = storepb.LabelMatcher_EQ
	if n%2 == 0 {
		return series(
			matcher(is, dataset.ManyValuesLabel, q.sessions[q.rand.IntN(len(q.sessions))])), 1
	}
	codes := []string{"200", "302", "404", "500", "503"}
	return series(
		matcher(is, "__name__", dataset.WholeMetricName),
		matcher(is, "instance", q.instances[q.rand.IntN(len(q.instances))]),
		matcher(is, "code", codes[q.rand.IntN(len(codes))]), matcher(is, "method", "GET"),
	), 10
}

// ask sends rate queries per second while more returns true, whether or not earlier ones have been
// answered.
func (q *smallQueries) ask(
	ctx context.Context, conn *grpc.ClientConn, rate int, more func(asked int) bool,
) latencies {
	var l latencies
	var mu sync.Mutex // guards l
	var wg sync.WaitGroup
	due := time.Now()
	for n := 0; more(n); n++ {
		time.Sleep(time.Until(due))
		req, want := q.next(n)
		was := due
		wg.Go(func() {
			a, err := ask(ctx, conn, req, nil)
			took := time.Since(was)
			if err == nil && a.series != want {
				err = fmt.Errorf("%v: got %s, want %d series", req.Matchers, a, want)
			}
			mu.Lock()
			defer mu.Unlock()
			l.took = append(l.took, took)
			if err != nil {
				l.failed = append(l.failed, err)
			}
		})
		due = due.Add(time.Second / time.Duration(rate))
	}
	wg.Wait()
	return l
}
