package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// askTimeout is how long a worker waits for an answer.
	askTimeout = 20 * time.Second
	// examples is how many of a round's wrong answers and unexpected failures are shown.
	examples = 5
)

// load is workers that ask until they are stopped, and what came of it.
type load struct {
	w       *world
	allowed []codes.Code
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu    sync.Mutex // guards what follows
	asked int
	// slowest is the longest that a request took, and slow which it was.
	slowest time.Duration
	slow    string
	wrong   int
	empty   int // of the wrong ones, successes without content
	failed  map[codes.Code]int
	// unexpected failures have a code that says something else than what was broken.
	unexpected int
	shown      []string
	healed     time.Time     // when the fault was undone; zero before
	streak     int           // answers without a failure between, of requests that began after that
	since      time.Time     // when the first of them came
	recovered  chan struct{} // closed when enough of them came
}

// startLoad sets workers on the process under test.
func (w *world) startLoad(ctx context.Context, seed uint64, allowed []codes.Code) *load {
	l := &load{w: w, allowed: allowed, failed: map[codes.Code]int{}, recovered: make(chan struct{})}
	ctx, l.stop = context.WithCancel(ctx)
	for i := range w.conf.workers {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		l.wg.Go(func() {
			for ctx.Err() == nil {
				l.askOne(ctx, r.IntN(len(w.questions)))
			}
		})
	}
	return l
}

func (l *load) askOne(ctx context.Context, i int) {
	began := time.Now()
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	q := &l.w.questions[i]
	a, err := l.w.tested.ask(asking, q)
	if ctx.Err() != nil {
		return // the round is over
	}
	difference := a.differs(l.w.want[i], err)
	code := status.Code(err)

	l.mu.Lock()
	l.asked++
	if took := time.Since(began); took > l.slowest {
		l.slowest, l.slow = took, fmt.Sprintf("question %d, %s", i, q.name)
	}
	switch {
	case difference != "":
		l.wrong++
		if err == nil && a.size == 0 {
			l.empty++
		}
		l.show("question %d, %s: %s", i, q.name, difference)
	case err != nil:
		l.failed[code]++
		if !slices.Contains(l.allowed, code) {
			l.unexpected++
			l.show("question %d, %s: failed after %s: %v", i, q.name,
				time.Since(began).Round(time.Millisecond), err)
		}
	}
	if !l.healed.IsZero() && began.After(l.healed) {
		l.count(err == nil && difference == "")
	}
	l.mu.Unlock()
	if code == codes.Unavailable {
		pause(ctx, 20*time.Millisecond) // a process that is not there refuses thousands in no time
	}
}

// count counts answers in a row. mu is held.
func (l *load) count(ok bool) {
	if !ok {
		l.streak = 0
		return
	}
	if l.streak++; l.streak == 1 {
		l.since = time.Now()
	}
	if l.streak != l.w.conf.inARow {
		return
	}
	select {
	case <-l.recovered: // before
	default:
		close(l.recovered)
	}
}

// show keeps an example. mu is held.
func (l *load) show(format string, args ...any) {
	if len(l.shown) < examples {
		l.shown = append(l.shown, fmt.Sprintf(format, args...))
	}
}

// heal says that nothing is broken any more, waits until answers come again, and returns how long
// that took.
func (l *load) heal(ctx context.Context, bound time.Duration) (took time.Duration, ok bool) {
	l.mu.Lock()
	l.healed = time.Now()
	l.mu.Unlock()
	// A request that began just before the bound may still end well.
	t := time.NewTimer(bound + askTimeout)
	defer t.Stop()
	select {
	case <-l.recovered:
	case <-t.C:
		return bound, false
	case <-ctx.Done():
		return bound, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	took = l.since.Sub(l.healed)
	return took, took <= bound
}

// end stops the workers.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// failures says how many requests failed, and how.
func (l *load) failures() string {
	if len(l.failed) == 0 {
		return "0"
	}
	n := 0
	var parts []string
	for code, k := range l.failed {
		n += k
		parts = append(parts, fmt.Sprintf("%s %d", code, k))
	}
	slices.Sort(parts)
	return fmt.Sprintf("%d (%s)", n, strings.Join(parts, ", "))
}
