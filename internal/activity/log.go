package activity

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

const (
	// maxSlowest bounds the slowest requests that a Log keeps.
	maxSlowest = 12
	// maxFailures bounds the failures that a Log keeps, the newest ones.
	maxFailures = 50
	// recent is how long a slow request or a failure is kept.
	recent = time.Hour
	// MaxRunning bounds the requests that Running returns: the oldest ones.
	MaxRunning = 100
)

// Live is a request that runs or waits. It must be a pointer.
type Live interface {
	// Started returns when the request began.
	Started() time.Time
	// Activity describes the request. It is called concurrently with the request, and may be called
	// after its end.
	Activity() Request
}

// Request describes a request.
type Request struct {
	Method, Tenant, Peer string
	Matchers             string // as in PromQL, bounded; "" if the request never began
	MinTime, MaxTime     int64  // in milliseconds
	Start                time.Time
	// Stage is what the request does now, Waiting that it waits for its turn.
	Stage   string
	Waiting bool
}

// Ended describes a request that has ended.
type Ended struct {
	Request
	Duration time.Duration
	// Code and Err say how it failed. Err is empty if it succeeded.
	Code, Err string
	Stages    []Stage
	TraceID   string
	// Queried is the number of blocks. Requests, Bytes and USD are reads of the bucket.
	Queried         int
	Series          int64
	Requests, Bytes int64
	USD             float64
}

// Stage is the time of a stage: Total, between From and Until after the start of the request.
type Stage struct {
	Name               string
	Total, From, Until time.Duration
	// Blocks are the slowest blocks of the stage.
	Blocks []Block
}

// Block is the time that a stage took for one block.
type Block struct {
	ID          string
	From, Until time.Duration
}

// Log is the activity of a process. It is safe for concurrent use. A nil Log knows nothing.
type Log struct {
	mu       sync.Mutex // guards what follows; nothing is called under it
	running  map[Live]struct{}
	slowest  []Ended // slowest first
	failures []Ended // newest last
}

// New returns an empty log.
func New() *Log { return &Log{running: map[Live]struct{}{}} }

// Begin adds a request.
func (l *Log) Begin(r Live) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running[r] = struct{}{}
}

// End removes a request that took d. describe is called if the request failed, or if it is one of
// the slowest, with d.
func (l *Log) End(
	r Live, d time.Duration, failed bool, describe func(d time.Duration) Ended,
) {
	if l == nil {
		return
	}
	slow := l.remove(r, d)
	if !slow && !failed {
		return
	}
	e := describe(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	if failed {
		l.fail(e)
	}
	if slow {
		at, _ := slices.BinarySearchFunc(l.slowest, e, func(a, b Ended) int {
			return cmp.Compare(b.Duration, a.Duration)
		})
		l.slowest = slices.Insert(l.slowest, at, e)
		l.slowest = slices.Delete(l.slowest, min(maxSlowest, len(l.slowest)), len(l.slowest))
	}
}

// Reject adds the failure of a request that never began.
func (l *Log) Reject(e Ended) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail(e)
}

// fail keeps a failure. The caller holds l.mu.
func (l *Log) fail(e Ended) {
	if len(l.failures) == maxFailures {
		l.failures = slices.Delete(l.failures, 0, 1)
	}
	l.failures = append(l.failures, e)
}

// remove removes a request, and reports whether it is one of the slowest.
func (l *Log) remove(r Live, d time.Duration) (slow bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, r)
	if len(l.slowest) < maxSlowest {
		return true
	}
	l.expire(time.Now())
	return len(l.slowest) < maxSlowest || d > l.slowest[maxSlowest-1].Duration
}

// expire drops what is no longer recent. The caller holds l.mu.
func (l *Log) expire(now time.Time) {
	old := func(e Ended) bool { return now.Sub(e.Start) > recent }
	l.slowest = slices.DeleteFunc(l.slowest, old)
	l.failures = slices.DeleteFunc(l.failures, old)
}

// Running returns the requests that run or wait, the oldest first, and how many there are.
func (l *Log) Running() (out []Request, total int) {
	if l == nil {
		return nil, 0
	}
	live := l.live()
	slices.SortFunc(live, func(a, b Live) int { return a.Started().Compare(b.Started()) })
	for _, r := range live[:min(len(live), MaxRunning)] {
		out = append(out, r.Activity())
	}
	return out, len(live)
}

func (l *Log) live() []Live {
	l.mu.Lock()
	defer l.mu.Unlock()
	live := make([]Live, 0, len(l.running))
	for r := range l.running {
		live = append(live, r)
	}
	return live
}

// Slowest returns the slowest requests of the last hour, the slowest first.
func (l *Log) Slowest() []Ended {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(time.Now())
	return slices.Clone(l.slowest)
}

// Failures returns the last failures of the last hour, the newest first.
func (l *Log) Failures() []Ended {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(time.Now())
	out := slices.Clone(l.failures)
	slices.Reverse(out)
	return out
}
