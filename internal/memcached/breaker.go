package memcached

import (
	"sync"
	"time"
)

// breakerState of a server in one direction.
type breakerState int

const (
	breakerClosed breakerState = iota
	breakerHalfOpen
	breakerOpen
)

func (s breakerState) String() string {
	return [...]string{"closed", "half-open", "open"}[s]
}

// seen is the state as it is told outside. Only use probes a server: one that nobody has asked
// since its open state ended is not one that is left alone, however long ago that was, but one that
// the next use tries.
func (s breakerState) seen(until time.Time) breakerState {
	if s == breakerOpen && !time.Now().Before(until) {
		return breakerHalfOpen
	}
	return s
}

// verdict is what an operation says about its server.
type verdict int

const (
	verdictGood    verdict = iota
	verdictNothing         // neither: the connection was stale, the time too short
	verdictStrike          // bad if it happens again
	verdictBad
)

const (
	firstPeriod = 250 * time.Millisecond
	maxStrikes  = 3 // in a row
)

// ticket is the permission for one operation; what it reports counts only for the state that it was
// given in.
type ticket uint64

// readBreaker keeps reads from servers that do not answer. The first read that waited for nothing
// opens it: whoever waits for a cache that hangs loses its deadline. While it is open every read is
// a miss, at once; then one read is the probe.
type readBreaker struct {
	longest time.Duration
	// changed is told when the server is given up and when it is back, not of every probe in
	// between.
	changed func(open bool, cause error)

	mu      sync.Mutex
	state   breakerState
	period  time.Duration
	until   time.Time
	strikes int
	current ticket // of the state: all given in another are void
	opened  int64
}

// allow tells whether a read may go ahead; then its verdict must be reported.
func (b *readBreaker) allow() (ticket, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case breakerOpen:
		if time.Now().Before(b.until) {
			return 0, false
		}
		b.enter(breakerHalfOpen)
	case breakerHalfOpen:
		return 0, false
	case breakerClosed:
	}
	return b.current, true
}

// blocked tells whether no read would be allowed now, and asks for none.
func (b *readBreaker) blocked() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state == breakerHalfOpen || b.state == breakerOpen && time.Now().Before(b.until)
}

func (b *readBreaker) enter(s breakerState) {
	b.state = s
	b.strikes = 0
	b.current++
}

// report takes in what came of a read.
func (b *readBreaker) report(t ticket, v verdict, cause error) {
	switch opened, closed := b.judge(t, v); {
	case opened:
		b.changed(true, cause)
	case closed:
		b.changed(false, nil)
	}
}

// judge tells whether the server is given up with this, or is back.
func (b *readBreaker) judge(t ticket, v verdict) (opened, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case t != b.current:
	case b.state == breakerHalfOpen && v == verdictGood:
		b.enter(breakerClosed)
		return false, true
	case b.state == breakerHalfOpen && v == verdictNothing:
		b.enter(breakerOpen) // its time is over: the next read is the probe
	case b.state == breakerHalfOpen:
		b.period = min(2*b.period, b.longest)
		b.open()
	case v == verdictGood:
		b.strikes = 0
	case v == verdictBad || v == verdictStrike && b.strikes+1 >= maxStrikes:
		b.period = min(firstPeriod, b.longest)
		b.open()
		return true, false
	case v == verdictStrike:
		b.strikes++
	}
	return false, false
}

func (b *readBreaker) open() {
	b.enter(breakerOpen)
	b.until = time.Now().Add(b.period)
	b.opened++
}

// now returns the state, and how often it has been opened.
func (b *readBreaker) now() (breakerState, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.seen(b.until), b.opened
}

// countInterval is how long writes are counted before the counts begin anew.
const countInterval = 10 * time.Second

// writeBreaker keeps writes from servers that fail them. Nobody waits for a write, so it counts
// before it judges. But all servers share the workers, and one that hangs holds each for as long as
// a write may take: ConsecutiveFailures that took too long open it alone, however slowly they come,
// and while it is half-open a single write finds out whether it still hangs.
type writeBreaker struct {
	o       BreakerOptions
	changed func(open bool, cause error) // as of readBreaker

	mu      sync.Mutex
	state   breakerState
	until   time.Time // of the open state; of the counts, while closed
	current ticket

	requests, failures, consecutive, successes int // in this state
	// failures in a row, in this state, that took too long
	late   int
	opened int64
}

// allow tells whether a write may go ahead; then its verdict must be reported.
func (b *writeBreaker) allow() (ticket, bool) {
	if b.o.Disabled {
		return 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	switch {
	case b.state == breakerClosed && !now.Before(b.until):
		b.requests, b.failures, b.consecutive = 0, 0, 0
		b.until = now.Add(countInterval)
	case b.state == breakerOpen && now.Before(b.until):
		return 0, false
	case b.state == breakerOpen:
		b.enter(breakerHalfOpen)
	case b.state == breakerHalfOpen && (b.successes == 0 || b.requests >= b.o.HalfOpenMaxRequests):
		return 0, false
	}
	b.requests++
	return b.current, true
}

func (b *writeBreaker) enter(s breakerState) {
	b.state = s
	b.current++
	b.requests, b.failures, b.consecutive, b.successes, b.late = 0, 0, 0, 0, 0
	b.until = time.Now().Add(countInterval)
}

// report takes in what came of a write.
func (b *writeBreaker) report(t ticket, v verdict, cause error) {
	if b.o.Disabled {
		return
	}
	switch opened, closed := b.judge(t, v == verdictGood, kindOf(cause) == kindTimeout); {
	case opened:
		b.changed(true, cause)
	case closed:
		b.changed(false, nil)
	}
}

// judge tells whether the server is given up with this, or is back.
func (b *writeBreaker) judge(t ticket, good, late bool) (opened, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t != b.current {
		return false, false
	}
	if late {
		b.late++
	} else {
		b.late = 0
	}
	if good {
		b.consecutive = 0
		if b.successes++; b.state == breakerHalfOpen && b.successes >= b.o.HalfOpenMaxRequests {
			b.enter(breakerClosed)
			return false, true
		}
		return false, false
	}
	b.failures++
	b.consecutive++
	if b.state == breakerHalfOpen {
		b.open()
		return false, false
	}
	share := float64(b.failures) / float64(b.requests)
	if b.late >= b.o.ConsecutiveFailures || b.requests >= b.o.MinRequests &&
		(b.consecutive >= b.o.ConsecutiveFailures || share >= b.o.FailurePercent) {
		b.open()
		return true, false
	}
	return false, false
}

func (b *writeBreaker) open() {
	b.enter(breakerOpen)
	b.until = time.Now().Add(b.o.OpenDuration)
	b.opened++
}

// now returns the state, and how often it has been opened.
func (b *writeBreaker) now() (breakerState, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.seen(b.until), b.opened
}
