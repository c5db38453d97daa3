package memcached

import (
	"sync"
	"time"
)

// breakerState is the state of a server in one direction.
type breakerState int

const (
	breakerClosed breakerState = iota
	breakerHalfOpen
	breakerOpen
)

func (s breakerState) String() string {
	return [...]string{"closed", "half-open", "open"}[s]
}

// seen returns the state as metrics report it. Only use of a server probes it. A server that had no
// request since its open state ended is half-open: the next request tries it.
func (s breakerState) seen(until time.Time) breakerState {
	if s == breakerOpen && !time.Now().Before(until) {
		return breakerHalfOpen
	}
	return s
}

// verdict is the conclusion about a server from one operation.
type verdict int

const (
	verdictGood    verdict = iota
	verdictNothing         // no conclusion: the connection was stale, or the time too short
	verdictStrike          // bad if it is repeated
	verdictBad
)

const (
	firstPeriod = 250 * time.Millisecond
	maxStrikes  = 3 // in a row
)

// ticket is the permission for one operation. Its report counts only in the state that issued it.
type ticket uint64

// readBreaker stops reads from a server that does not answer. The first read that waited in vain
// opens it, because each further one would lose its deadline too. While it is open every read is an
// immediate miss. After that one read is the probe.
type readBreaker struct {
	longest time.Duration
	// changed is called when the server is given up and when it is back, not for each probe in
	// between.
	changed func(open bool, cause error)

	mu      sync.Mutex
	state   breakerState
	period  time.Duration
	until   time.Time
	strikes int
	current ticket // of the state: tickets of earlier states are void
	opened  int64
}

// allow reports whether a read may go ahead. If it may, its verdict must be reported.
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

// blocked reports whether allow would refuse a read now, without issuing a ticket.
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

// report records the result of a read.
func (b *readBreaker) report(t ticket, v verdict, cause error) {
	switch opened, closed := b.judge(t, v); {
	case opened:
		b.changed(true, cause)
	case closed:
		b.changed(false, nil)
	}
}

// judge records a verdict and reports whether it opens or closes the breaker.
func (b *readBreaker) judge(t ticket, v verdict) (opened, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case t != b.current:
	case b.state == breakerHalfOpen && v == verdictGood:
		b.enter(breakerClosed)
		return false, true
	case b.state == breakerHalfOpen && v == verdictNothing:
		b.enter(breakerOpen) // the period is over: the next read is the probe
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

// now returns the state, and how often the breaker has opened.
func (b *readBreaker) now() (breakerState, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.seen(b.until), b.opened
}

// countInterval is the period after which the counts of writes are reset.
const countInterval = 10 * time.Second

// writeBreaker stops writes to a server that fails them. No caller waits for a write, so it counts
// before it opens. But all servers share the workers, and a server that hangs blocks each of them
// for as long as a write may take. Therefore ConsecutiveFailures timeouts in a row open it, however
// slowly they arrive, and while it is half-open a single write finds out whether the server still
// hangs.
type writeBreaker struct {
	o       BreakerOptions
	changed func(open bool, cause error) // same as in readBreaker

	mu      sync.Mutex
	state   breakerState
	until   time.Time // end of the open state, or of the counts while closed
	current ticket

	requests, failures, consecutive, successes int // in this state
	// late is the number of timeouts in a row, in this state.
	late   int
	opened int64
}

// allow reports whether a write may go ahead. If it may, its verdict must be reported.
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

// report records the result of a write.
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

// judge records a result and reports whether it opens or closes the breaker.
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

// now returns the state, and how often the breaker has opened.
func (b *writeBreaker) now() (breakerState, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.seen(b.until), b.opened
}
