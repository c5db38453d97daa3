package bench

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"larder/benchmarks/scenario"
)

// Estimates of parts of a run.
const (
	perFresh = 300 * time.Millisecond // a request with a start of the gateway before it
	perCold  = 50 * time.Millisecond
	perWarm  = 20 * time.Millisecond
	// tellEvery is the time between two lines about the same scenario.
	tellEvery = 5 * time.Second
)

// estimate guesses the time of a scenario.
func estimate(s *scenario.Scenario) time.Duration {
	if s.Fresh() {
		return time.Duration(s.Requests) * perFresh
	}
	each := perWarm
	if s.Cache != scenario.Warm {
		each = perCold
	}
	d := time.Duration(s.Requests) * each
	if s.Rate > 0 && s.Requests > 0 {
		d = time.Duration(float64(s.Requests) / s.Rate * float64(time.Second))
	}
	if s.Duration > 0 && (d == 0 || s.Duration < d) {
		d = s.Duration
	}
	switch s.Cache {
	case scenario.Warm:
		d += time.Second // each request once before
	case scenario.Restart:
		d *= 1 + fills
	}
	return d
}

// progress tells how far a run is. It learns from finished scenarios how wrong the estimates are.
type progress struct {
	w     io.Writer
	total int

	mu            sync.Mutex // guards what follows, and one line at a time
	done          int
	name          string
	guessed, took time.Duration // of finished scenarios
	left, current time.Duration // guesses: after the current scenario, and of it
	currentBegan  time.Time
	// expected is the number of requests of the current scenario, 0 if only its time is known.
	expected int64

	answered atomic.Int64 // requests of the current scenario
}

func newProgress(w io.Writer, all []*scenario.Scenario) *progress {
	p := &progress{w: w, total: len(all)}
	for _, s := range all {
		p.left += estimate(s)
	}
	return p
}

// begin tells that a scenario begins. Call the returned function when it has ended.
func (p *progress) begin(s *scenario.Scenario) (end func()) {
	p.mu.Lock()
	p.done++
	p.name, p.current, p.currentBegan = s.Name, estimate(s), time.Now()
	p.left -= p.current
	p.expected = 0
	p.answered.Store(0)
	p.tell()
	p.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for wait(ctx, tellEvery) == nil {
			p.mu.Lock()
			p.tell()
			p.mu.Unlock()
		}
	})
	return func() {
		stop()
		wg.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.guessed += p.current
		p.took += time.Since(p.currentBegan)
	}
}

// expect tells how many requests the current scenario has. Once some are answered, they tell more
// than a guess.
func (p *progress) expect(requests int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = int64(requests)
}

// tell writes a line. The caller holds mu.
func (p *progress) tell() {
	scale := 1.0
	if p.guessed > 0 {
		scale = float64(p.took) / float64(p.guessed)
	}
	ran := time.Since(p.currentBegan)
	rest := max(time.Duration(scale*float64(p.current))-ran, 0)
	if n := p.answered.Load(); n > 0 && n <= p.expected {
		rest = time.Duration(float64(ran) * float64(p.expected-n) / float64(n))
	}
	left := time.Duration(scale*float64(p.left)) + rest
	fmt.Fprintf(p.w, "[%d/%d] %s: %s, about %s left\n", p.done, p.total, p.name,
		ran.Round(time.Second), left.Round(time.Second))
}
