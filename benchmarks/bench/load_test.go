package bench

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"larder/benchmarks/scenario"
	"larder/internal/budget"
)

// server answers one request at a time, as one processor would.
type server struct {
	turn  chan struct{} // has one token, because a mutex does not let virtual time pass
	calls int
	take  func(n int) time.Duration
}

func (s *server) ask(ctx context.Context, _ *call) (a answer, err error) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.calls++
	err = wait(ctx, s.take(s.calls))
	a.first, a.end, a.bytes = time.Now(), time.Now(), 1
	return a, err
}

// TestOpenLoop stalls a server for a second and compares what an open and a closed loop see. The
// open loop must count the time that requests wait because the server is late.
func TestOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stall := func(n int) time.Duration {
			if n == 50 {
				return time.Second
			}
			return time.Millisecond
		}
		run := func(s scenario.Scenario) (*recorder, *server) {
			srv := &server{take: stall, turn: make(chan struct{}, 1)}
			rec := newRecorder()
			l := &load{ask: srv.ask, calls: make([]call, 3), rec: rec, timeout: time.Minute}
			l.run(t.Context(), &s, 1)
			return rec, srv
		}
		p90 := func(r *recorder) time.Duration {
			return time.Duration(r.client[budget.Total].ValueAtQuantile(90)) * time.Microsecond
		}
		open, srv := run(scenario.Scenario{Rate: 100, Duration: 5 * time.Second})
		if srv.calls < 400 || srv.calls > 600 || open.requests != srv.calls {
			t.Errorf("%d calls in 5 s at 100 a second, %d recorded", srv.calls, open.requests)
		}
		// About 100 requests begin during the stall, and wait half a second on average.
		if got := p90(open); got < 300*time.Millisecond || got > time.Second {
			t.Errorf("open loop: p90 %v, want the time that requests waited", got)
		}
		closed, srv := run(scenario.Scenario{Concurrency: 1, Requests: 500})
		if srv.calls != 500 || closed.requests != 500 {
			t.Errorf("%d calls, %d recorded, want 500", srv.calls, closed.requests)
		}
		if got := p90(closed); got > 2*time.Millisecond {
			t.Errorf("closed loop: p90 %v, want 1 ms", got)
		}
		if got := closed.client[budget.Total].Max(); got < 1_000_000 {
			t.Errorf("closed loop: maximum %d µs, want 1 s", got)
		}
		timed, srv := run(scenario.Scenario{Concurrency: 8, Duration: 100 * time.Millisecond})
		if srv.calls < 50 || timed.requests != srv.calls {
			t.Errorf("%d calls in 100 ms and the stall", srv.calls)
		}
	})
}

// TestFailedRequests checks that requests that fail or time out are counted.
func TestFailedRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := newRecorder()
		n := 0
		broken := errors.New("broken")
		l := &load{calls: make([]call, 1), rec: rec, timeout: time.Second,
			ask: func(ctx context.Context, _ *call) (a answer, err error) {
				if n++; n == 1 {
					err = broken
				} else if n == 2 {
					err = wait(ctx, time.Hour)
				}
				a.end = time.Now()
				return a, err
			}}
		l.closed(t.Context(), 1, 3, 0)
		if rec.requests != 3 || rec.errors != 2 || !errors.Is(rec.err, broken) {
			t.Errorf("%d requests, %d failed, first %v", rec.requests, rec.errors, rec.err)
		}
		if got := rec.client[budget.Total].Max(); got < 1_000_000 {
			t.Errorf("maximum %d µs, want that of the request that timed out", got)
		}
	})
}

// TestReplayKeepsTimes replays requests at twice their speed. They begin at half of their times,
// and the time of one that waits for a slow server counts from there.
func TestReplayKeepsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		re := &Replay{Speed: 2}
		for _, at := range []time.Duration{0, time.Second, time.Second, 4 * time.Second} {
			re.Requests = append(re.Requests, scenario.Recorded{At: at})
		}
		start := time.Now()
		var began []time.Duration
		srv := &server{turn: make(chan struct{}, 1), take: func(int) time.Duration {
			began = append(began, time.Since(start))
			return 700 * time.Millisecond
		}}
		rec := newRecorder()
		l := &load{
			ask: srv.ask, calls: make([]call, len(re.Requests)), rec: rec, timeout: time.Minute,
		}
		l.replay(t.Context(), re.due)
		// The server has one processor: the second and third request wait for the one before them.
		want := []time.Duration{0, 700, 1400, 2100}
		for i, ms := range want {
			if began[i] != ms*time.Millisecond {
				t.Errorf("request %d began at %s, want %s", i, began[i], ms*time.Millisecond)
			}
		}
		if got := rec.client[budget.Total].Max(); got < 1_590_000 || got > 1_610_000 {
			t.Errorf("the slowest request took %d µs, want 1.6 s from its intended start", got)
		}
		if rec.requests != 4 {
			t.Errorf("%d requests, want 4", rec.requests)
		}
	})
}
