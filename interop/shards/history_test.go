package shards

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// history is a log of queries that run beside a test, in the phases of the test.
type history struct {
	t     *testing.T
	start time.Time

	mu      sync.Mutex
	phases  []string
	fault   int // the phase in which processes are killed, 0 for none
	queries []query
}

// query is one query of a history.
type query struct {
	began, ended time.Duration
	from, to     int // the phases in which it began and ended
	samples      int
	err          error
}

func (q *query) result() string {
	switch {
	case q.err != nil:
		return "failed: " + strings.Join(strings.Fields(q.err.Error()), " ")
	case q.samples != samples:
		return fmt.Sprintf("%d of %d samples", q.samples, samples)
	}
	return "complete"
}

func newHistory(t *testing.T, phase string) *history {
	return &history{t: t, start: time.Now(), phases: []string{phase}}
}

// enter begins a phase.
func (h *history) enter(phase string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phases = append(h.phases, phase)
}

// enterFault begins the phase in which queries may fail.
func (h *history) enterFault(phase string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = len(h.phases)
	h.phases = append(h.phases, phase)
}

// ask records one query. It returns false if the query was given up.
func (h *history) ask(ctx context.Context, ask func(context.Context) (int, error)) bool {
	h.mu.Lock()
	q := query{began: time.Since(h.start), from: len(h.phases) - 1}
	h.mu.Unlock()
	q.samples, q.err = ask(ctx)
	if ctx.Err() != nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	q.ended, q.to = time.Since(h.start), len(h.phases)-1
	h.queries = append(h.queries, q)
	return true
}

// wrong says what is wrong with a query, "" for nothing. A query that ran while processes were
// killed may fail. It must not lack samples without an error.
func (h *history) wrong(q *query) string {
	inFault := h.fault > 0 && q.from <= h.fault && q.to >= h.fault
	if q.result() == "complete" || q.err != nil && inFault {
		return ""
	}
	return q.result()
}

// check prints the log, one line for queries in a row with the same result, and fails the test for
// each query that is wrong, and if there were fewer than atLeast.
func (h *history) check(atLeast int) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	const maxLines = 100
	lines, inFault := 0, 0
	for i := 0; i < len(h.queries); {
		first := &h.queries[i]
		n := 0
		last := first.ended
		for ; i < len(h.queries); i++ {
			q := &h.queries[i]
			if q.from != first.from || q.to != first.to || q.result() != first.result() {
				break
			}
			n++
			last = max(last, q.ended)
			if h.fault > 0 && q.from <= h.fault && q.to >= h.fault {
				inFault++
			}
		}
		phase := h.phases[first.from]
		if first.to != first.from {
			phase += " to " + h.phases[first.to]
		}
		wrong := h.wrong(first)
		if wrong != "" {
			h.t.Errorf("%s: %d queries: %s", phase, n, wrong)
		}
		if lines++; lines <= maxLines {
			h.t.Logf("%7.2fs to %7.2fs  %-40s %5d queries: %.200s", first.began.Seconds(),
				last.Seconds(), phase, n, first.result())
		}
	}
	if len(h.queries) < atLeast {
		h.t.Errorf("%d queries, want at least %d", len(h.queries), atLeast)
	}
	if lines > maxLines {
		h.t.Logf("%d more lines", lines-maxLines)
	}
	if h.fault > 0 && inFault == 0 {
		h.t.Error("no query ran while processes were killed")
	}
}
