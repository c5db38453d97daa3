package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"larder/benchmarks/bench/report"
	"larder/benchmarks/scenario"
)

// ReplayName is the name of the scenario that a replay is reported as.
const ReplayName = "replay"

// Replay are requests to send again at the times at which they were sent.
type Replay struct {
	// Requests are in the order of their beginnings.
	Requests []scenario.Recorded
	// Speed divides the times between requests. 0 = 1, as recorded. Larger = a higher load.
	Speed float64
	// About says where the requests come from.
	About string
}

// due is when the i-th request begins, after the first one.
func (r *Replay) due(i int) time.Duration {
	at := r.Requests[i].At
	if r.Speed > 0 {
		at = time.Duration(float64(at) / r.Speed)
	}
	return at
}

// length is the time between the first and the last request.
func (r *Replay) length() time.Duration { return r.due(len(r.Requests) - 1) }

// replay begins each call at its time, whatever happens to earlier ones.
func (l *load) replay(ctx context.Context, due func(i int) time.Duration) {
	running := make(chan struct{}, maxInFlight)
	start := time.Now()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range l.calls {
		at := start.Add(due(i))
		if wait(ctx, time.Until(at)) != nil {
			return
		}
		select {
		case running <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			l.one(ctx, i, at)
			<-running
		})
	}
}

// runReplay replays requests as one scenario.
func (r *Runner) runReplay(ctx context.Context, rep *report.Report) (err error) {
	re := r.opts.Replay
	if len(re.Requests) == 0 {
		return errors.New("there is nothing to replay")
	}
	if r.opts.Start != nil {
		defer func() { err = errors.Join(err, r.stop()) }()
		if err := r.restart(ctx, DiskKept); err != nil {
			return err
		}
		if err := r.settled(ctx); err != nil {
			return err
		}
	}
	var calls []call
	for i := range re.Requests {
		c, err := encode(&re.Requests[i].Request, r.opts.Start == nil)
		if err != nil {
			return err
		}
		c.tenant = re.Requests[i].Tenant
		calls = append(calls, c)
	}
	// Only its name and its duration are used.
	s := &scenario.Scenario{Name: ReplayName, Cache: scenario.Cold, Duration: re.length()}
	r.progress = newProgress(r.opts.Progress, []*scenario.Scenario{s})
	defer r.progress.begin(s)()
	out := &report.Scenario{
		Name: ReplayName, About: re.About,
		Load: fmt.Sprintf("Replay of %d requests in %s", len(calls),
			re.length().Round(time.Millisecond)),
	}
	m := &measured{rec: newRecorder()}
	m.rec.pause(true)
	r.current.Store(m.rec)
	defer r.current.Store(nil)
	peakKnown := r.opts.Start != nil && resetPeak()
	end := r.sampled(ctx, m)
	err = r.measure(ctx, calls, m, func(l *load) { l.replay(ctx, re.due) })
	end()
	if err != nil {
		return err
	}
	if peakKnown {
		m.peak, m.hasPeak = peak()
	}
	r.fill(out, s, m)
	rep.Scenarios = append(rep.Scenarios, *out)
	rep.Notes = r.notes()
	return nil
}
