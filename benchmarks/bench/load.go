package bench

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"larder/benchmarks/scenario"
)

// load sends the requests of a scenario to a gateway.
type load struct {
	// ask makes a call and reads the answer to its end.
	ask     func(ctx context.Context, c *call) (answer, error)
	calls   []call
	rec     *recorder
	timeout time.Duration
}

// maxInFlight bounds the requests of an open loop that run at once. Further ones begin later, and
// their time counts from their intended start.
const maxInFlight = 2000

// one makes the i-th call. Its time counts from from.
func (l *load) one(ctx context.Context, i int, from time.Time) {
	c := &l.calls[i%len(l.calls)]
	within, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	a, err := l.ask(within, c)
	if ctx.Err() == nil {
		l.rec.answered(c, from, a, err)
	}
}

// closed runs clients that ask again once they have an answer, until the number of requests is
// reached or the time is over. 0 = no such bound.
func (l *load) closed(ctx context.Context, clients, requests int, d time.Duration) {
	var next atomic.Int64
	start := time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if requests > 0 && i >= requests || d > 0 && time.Since(start) >= d {
					return
				}
				l.one(ctx, i, time.Now())
			}
		})
	}
	wg.Wait()
}

// open begins requests at random times with the given mean rate, whatever happens to earlier ones:
// the times between them are exponential.
func (l *load) open(
	ctx context.Context, perSecond float64, requests int, d time.Duration, seed uint64,
) {
	r := rand.New(rand.NewPCG(seed, 0x6f70656e))
	running := make(chan struct{}, maxInFlight)
	start := time.Now()
	due := start
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := 0; requests == 0 || i < requests; i++ {
		due = due.Add(time.Duration(r.ExpFloat64() / perSecond * float64(time.Second)))
		if d > 0 && due.Sub(start) >= d {
			return
		}
		if wait(ctx, time.Until(due)) != nil {
			return
		}
		select {
		case running <- struct{}{}:
		case <-ctx.Done():
			return
		}
		at := due
		wg.Go(func() {
			l.one(ctx, i, at)
			<-running
		})
	}
}

// run runs the load of a scenario.
func (l *load) run(ctx context.Context, s *scenario.Scenario, seed uint64) {
	if s.Rate > 0 {
		l.open(ctx, s.Rate, s.Requests, s.Duration, seed)
		return
	}
	l.closed(ctx, s.Clients(), s.Requests, s.Duration)
}

// connect waits until the connection is usable, so that no request pays for it.
func connect(ctx context.Context, conn *grpc.ClientConn) error {
	conn.Connect()
	for {
		state := conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		if !conn.WaitForStateChange(ctx, state) {
			return ctx.Err()
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
