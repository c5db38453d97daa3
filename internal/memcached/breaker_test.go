package memcached

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// heard records the calls of a breaker's changed.
type heard struct{ log []string }

func (h *heard) changed(open bool, cause error) {
	if open {
		h.log = append(h.log, fmt.Sprintf("open: %v", cause))
		return
	}
	h.log = append(h.log, "closed")
}

var errHang = errors.New("hang")

func TestReadBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heard
		b := &readBreaker{longest: 2 * time.Second, changed: h.changed}
		try := func(v verdict) {
			t.Helper()
			ticket, ok := b.allow()
			if !ok {
				t.Fatalf("no read is allowed (%v)", b.state)
			}
			b.report(ticket, v, errHang)
		}
		closed := func() {
			t.Helper()
			if _, ok := b.allow(); ok {
				t.Errorf("a read is allowed while %v", b.state)
			}
		}
		// Strikes in a row count; verdictNothing does not count.
		const good, strike = verdictGood, verdictStrike
		for _, v := range []verdict{good, strike, strike, good, strike, verdictNothing, strike} {
			try(v)
		}
		try(verdictStrike)
		closed()
		time.Sleep(250 * time.Millisecond)
		try(verdictGood)

		// Concurrent reads: the first bad one opens the breaker, and the reports of the others are
		// void.
		first, _ := b.allow()
		second, _ := b.allow()
		third, _ := b.allow()
		b.report(first, verdictBad, errHang)
		b.report(second, verdictBad, errHang)
		b.report(third, verdictGood, nil)
		closed()
		// The period doubles with each failed probe, up to the longest. One probe runs at a time.
		for _, ms := range []int{250, 500, 1000, 2000, 2000} {
			period := time.Duration(ms) * time.Millisecond
			time.Sleep(period - time.Nanosecond)
			closed()
			time.Sleep(time.Nanosecond)
			probe, ok := b.allow()
			if !ok {
				t.Fatalf("no probe after %v", period)
			}
			closed()
			b.report(probe, verdictStrike, errHang)
		}
		// A probe without a verdict is followed by another at once.
		time.Sleep(2 * time.Second)
		try(verdictNothing)
		try(verdictGood)
		try(verdictGood)
		// The next time it starts with the short period. After it the state is half-open, even
		// without a request.
		try(verdictBad)
		if state, _ := b.now(); state != breakerOpen {
			t.Errorf("the state is %v, want open", state)
		}
		time.Sleep(250 * time.Millisecond)
		if state, _ := b.now(); state != breakerHalfOpen {
			t.Errorf("the state is %v when the next read is a probe, want half-open", state)
		}
		try(verdictGood)
		want := "open: hang closed open: hang closed open: hang closed"
		if got := strings.Join(h.log, " "); got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
		if _, opened := b.now(); opened != 8 {
			t.Errorf("opened %d times, want 8", opened)
		}
	})
}

func TestWriteBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heard
		o := Options{}.withDefaults().Breaker
		b := &writeBreaker{o: o, changed: h.changed}
		// write returns how many of n writes were allowed.
		write := func(n int, v verdict) (allowed int) {
			for range n {
				if ticket, ok := b.allow(); ok {
					allowed++
					b.report(ticket, v, errHang)
				}
			}
			return allowed
		}
		f := func(n int, v verdict, want int) {
			t.Helper()
			if got := write(n, v); got != want {
				t.Errorf("%d of %d writes were allowed, want %d", got, n, want)
			}
		}
		// Too few to open it, and the counts are reset after a while.
		f(40, verdictBad, 40)
		time.Sleep(countInterval)
		f(49, verdictBad, 49)
		f(10, verdictBad, 1) // the fiftieth opens it
		time.Sleep(o.OpenDuration - time.Nanosecond)
		f(10, verdictGood, 0)
		if state, _ := b.now(); state != breakerOpen {
			t.Errorf("the state is %v, want open", state)
		}
		time.Sleep(time.Nanosecond)
		if state, _ := b.now(); state != breakerHalfOpen {
			t.Errorf("the state is %v when the next write is a probe, want half-open", state)
		}
		// First a probe that fails, then ten that succeed: the first of them alone.
		f(10, verdictBad, 1)
		time.Sleep(o.OpenDuration)
		for _, want := range []int{1, o.HalfOpenMaxRequests - 1} {
			var tickets []ticket
			for range 20 {
				if ticket, ok := b.allow(); ok {
					tickets = append(tickets, ticket)
				}
			}
			if len(tickets) != want {
				t.Errorf("%d writes are tried at once, want %d", len(tickets), want)
			}
			for _, ticket := range tickets {
				b.report(ticket, verdictGood, nil)
			}
		}
		// A share of failures opens it too: one in twenty.
		f(95, verdictGood, 95)
		for range 4 {
			f(1, verdictBad, 1)
			f(1, verdictGood, 1)
		}
		f(1, verdictGood, 1)
		f(10, verdictBad, 2)
		want := "open: hang closed open: hang"
		if got := strings.Join(h.log, " "); got != want {
			t.Errorf("heard %q, want %q", got, want)
		}

		b = &writeBreaker{o: BreakerOptions{Disabled: true}, changed: h.changed}
		f(1000, verdictBad, 1000)
	})
}
