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
	// examples is the number of a round's wrong answers and unexpected failures that are printed.
	examples = 5
)

// load is workers that ask until they are stopped, and their results.
type load struct {
	w       *world
	allowed []codes.Code
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	asked int
	// slowest is the longest duration of a request, and slow its description.
	slowest time.Duration
	slow    string
	wrong   int
	empty   int // the wrong ones that are successes without content
	failed  map[codes.Code]int
	// unexpected is the number of failures with a code that does not fit the fault.
	unexpected int
	shown      []string
	healed     time.Time     // when the fault was undone; zero before
	streak     int           // successes in a row, of requests that started after that
	since      time.Time     // time of the first of them
	recovered  chan struct{} // closed when there are enough of them
}

// startLoad starts workers that ask the process under test.
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
		pause(ctx, 20*time.Millisecond) // a dead process refuses connections at once
	}
}

// count counts answers in a row. The caller holds mu.
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
	case <-l.recovered: // already closed
	default:
		close(l.recovered)
	}
}

// show keeps an example. The caller holds mu.
func (l *load) show(format string, args ...any) {
	if len(l.shown) < examples {
		l.shown = append(l.shown, fmt.Sprintf(format, args...))
	}
}

// heal records that the fault is undone, waits until answers arrive again, and returns how long
// that took.
func (l *load) heal(ctx context.Context, bound time.Duration) (took time.Duration, ok bool) {
	l.mu.Lock()
	l.healed = time.Now()
	l.mu.Unlock()
	// A request that started just before the bound may still succeed.
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

// failures returns how many requests failed, by code.
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
