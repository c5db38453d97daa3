package run

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"larder/interop/internal/compare/client"
	"larder/interop/internal/compare/server"
	"larder/interop/internal/compare/stats"
	"larder/interop/internal/compare/trips"
	"larder/interop/internal/compare/workload"
)

const (
	// turn is about how long a system is asked in one round; maxCalls bounds the calls in it.
	turn     = 300 * time.Millisecond
	maxCalls = 200
	// warmUps is how often a warm system is asked before it is measured.
	warmUps = 3
	// leastRounds is how many rounds a row has even if its time is used up.
	leastRounds = 3
)

// cell measures one row.
func (r *runner) cell(ctx context.Context, s *session, c cell) error {
	call, err := c.query.Call()
	if err != nil {
		return err
	}
	r.done++
	begun, limit := time.Now(), r.RowTime
	if r.Time > 0 {
		limit = r.plan.limit(r.cellTime(c), r.Time-time.Since(r.planned), limit)
	}
	row := &Row{
		Query: c.query.Name, Mode: c.mode, Concurrency: c.concurrency,
		Systems: map[string]*Figure{},
	}
	systems := s.measured()
	if len(systems) == 0 {
		return nil // of the floor alone, in a mode that has none
	}
	calls := map[string]int{}
	for _, sys := range systems {
		row.Systems[sys.name] = &Figure{}
		calls[sys.name] = c.concurrency
		if !cold(c.mode) && !r.Untimed {
			if calls[sys.name], err = sys.warmUp(ctx, call, c.concurrency); err != nil {
				return fmt.Errorf("%s: %w", sys.name, err)
			}
		}
	}
	least := leastRounds
	if c.query.Slow {
		least = 1
	}
	for round := range r.Rounds {
		if round >= least && time.Since(begun) > limit {
			break
		}
		// No system may always find the machine as the same one left it.
		turns := slices.Clone(systems)
		for range round % len(turns) {
			turns = append(turns[1:], turns[0])
		}
		for _, sys := range turns {
			if cold(c.mode) {
				if err := s.restart(ctx, sys); err != nil {
					return fmt.Errorf("%s: %w", sys.name, err)
				}
			}
			f := row.Systems[sys.name]
			if c.mode == S3Disk && !r.Untimed {
				if err := s.later(ctx, sys, call, f); err != nil {
					return fmt.Errorf("%s: %w", sys.name, err)
				}
				if err := s.restart(ctx, sys); err != nil {
					return fmt.Errorf("%s: %w", sys.name, err)
				}
			}
			if c.concurrency == 1 && (round == 0 || sys.bucket != nil) {
				if err := sys.once(ctx, call, f, c.mode, r.Untimed); err != nil {
					return fmt.Errorf("%s: %w", sys.name, err)
				}
			}
			if c.concurrency == 1 && cold(c.mode) || r.Untimed {
				continue
			}
			if err := sys.batch(ctx, call, f, calls[sys.name], c.concurrency); err != nil {
				return fmt.Errorf("%s: %w", sys.name, err)
			}
		}
	}
	row.Took = time.Since(begun)
	r.plan.passed(r.cellTime(c))
	r.results.Rows = append(r.results.Rows, row)
	r.progress("%d/%d %s%s", r.done, r.total, line(row), r.remaining())
	return r.save()
}

// line is a row's progress line.
func line(row *Row) string {
	s := fmt.Sprintf("%-5s %-7s %2d clients", row.Query, row.Mode, row.Concurrency)
	for _, name := range []string{server.Thanos, server.Larder, server.Floor} {
		f := row.Systems[name]
		if f == nil {
			continue
		}
		s += "  " + name + ":"
		if len(f.CPU) > 0 {
			s += fmt.Sprintf(" %.1f ms, CPU %.1f", stats.Median(f.Latency), stats.Median(f.CPU))
		}
		if len(f.Bucket) > 0 {
			a := f.Asked()
			mb := float64(a.Bytes()) / 1e6
			s += fmt.Sprintf(" %d requests, %.2f MB, %d trips", a.Requests(), mb, a.Trips)
		} else if len(f.Requests) > 0 {
			s += fmt.Sprintf(" %.1f requests", stats.Median(f.Requests))
		}
	}
	return s
}

// restart makes the caches of a system empty: it starts again with its data directory. A disk cache
// loses its chunks.
func (s *session) restart(ctx context.Context, sys *system) error {
	if err := sys.stop(); err != nil {
		return err
	}
	if s.mode != S3Disk {
		return s.start(ctx, sys)
	}
	if err := os.RemoveAll(s.disk(sys, "chunks")); err != nil {
		return err
	}
	if err := s.start(ctx, sys); err != nil {
		return err
	}
	return s.prefetched(ctx, sys)
}

// later times a call of a process that was started and has answered other questions.
func (s *session) later(ctx context.Context, sys *system, call client.Call, f *Figure) error {
	for _, q := range workload.RunIn() {
		other, err := q.Call()
		if err != nil {
			return err
		}
		if _, err := sys.client.Do(ctx, other, nil); err != nil {
			return err
		}
	}
	if err := sys.still(ctx); err != nil {
		return err
	}
	res, err := sys.client.Do(ctx, call, nil)
	if err != nil {
		return err
	}
	f.Later = append(f.Later, ms(res.Wall))
	f.LaterFirst = append(f.LaterFirst, ms(res.First))
	return nil
}

// warmUp asks a few times and returns how many calls fill a turn.
func (sys *system) warmUp(ctx context.Context, call client.Call, concurrency int) (int, error) {
	wall := time.Duration(0)
	for range warmUps {
		r, err := sys.client.Do(ctx, call, nil)
		if err != nil {
			return 0, err
		}
		wall = max(r.Wall, time.Microsecond)
	}
	n := min(max(int(turn/wall), 1), maxCalls)
	return (n + concurrency - 1) / concurrency * concurrency, nil
}

// once makes one call and counts what it asks of the bucket. A cold call is timed, too.
func (sys *system) once(
	ctx context.Context, call client.Call, f *Figure, mode string, untimed bool,
) error {
	m := sys.server.Meter
	if sys.bucket != nil {
		// What came before is not part of the query.
		if _, err := m.Quiet(); err != nil {
			return err
		}
		if _, err := sys.bucket.Requests(ctx); err != nil {
			return err
		}
	}
	var res client.Result
	ask := func() (err error) {
		res, err = sys.client.Do(ctx, call, nil)
		return err
	}
	var err error
	if cold(mode) && !untimed {
		err = sys.measured(ctx, f, 1, ask)
		f.Latency = append(f.Latency, ms(res.Wall))
		f.First = append(f.First, ms(res.First))
	} else {
		err = ask()
	}
	if err != nil {
		return err
	}
	f.Bytes, f.Frames = res.Bytes, res.Frames
	if sys.bucket == nil {
		return nil
	}
	// Reads ahead that the answer did not need are part of the query.
	if _, err := m.Quiet(); err != nil {
		return err
	}
	rs, err := sys.bucket.Requests(ctx)
	if err != nil {
		return err
	}
	f.Bucket = append(f.Bucket, trips.Of(rs))
	return nil
}

// batch makes n calls by so many clients and measures what they take. Of several clients it counts
// the requests to the bucket, too.
func (sys *system) batch(
	ctx context.Context, call client.Call, f *Figure, n, concurrency int,
) error {
	var mu sync.Mutex
	ask := func() error {
		var next atomic.Int64
		g, ctx := errgroup.WithContext(ctx)
		for range concurrency {
			g.Go(func() error {
				for next.Add(1) <= int64(n) {
					r, err := sys.client.Do(ctx, call, nil)
					if err != nil {
						return err
					}
					mu.Lock()
					f.Latency = append(f.Latency, ms(r.Wall))
					f.First = append(f.First, ms(r.First))
					mu.Unlock()
				}
				return nil
			})
		}
		return g.Wait()
	}
	if sys.bucket == nil || concurrency == 1 {
		return sys.measured(ctx, f, n, ask)
	}
	if _, err := sys.server.Meter.Quiet(); err != nil {
		return err
	}
	if _, err := sys.bucket.Requests(ctx); err != nil {
		return err
	}
	if err := sys.measured(ctx, f, n, ask); err != nil {
		return err
	}
	rs, err := sys.bucket.Requests(ctx)
	f.Requests = append(f.Requests, float64(len(rs))/float64(n))
	return err
}

// measured measures CPU time, allocations and memory of the server while ask makes n calls.
func (sys *system) measured(ctx context.Context, f *Figure, n int, ask func() error) error {
	m := sys.server.Meter
	a, err := m.Allocating(ctx, func() error {
		if err := m.ResetPeak(); err != nil {
			return err
		}
		before, err := m.Quiet()
		if err != nil {
			return err
		}
		if err := ask(); err != nil {
			return err
		}
		// Collecting what the calls left behind is part of their price.
		after, err := m.Quiet()
		if err != nil {
			return err
		}
		f.CPU = append(f.CPU, ms(after-before)/float64(n))
		peak, err := m.Peak()
		f.Peak = append(f.Peak, float64(peak))
		return err
	})
	f.Allocated = append(f.Allocated, a.Bytes/float64(n))
	f.Objects = append(f.Objects, a.Objects/float64(n))
	return err
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
