package block

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestExpansionsAreBounded: what does not fit waits for what runs, small ones not for large ones;
// what could never fit is refused, and what gives up leaves nothing behind.
func TestExpansionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewExpansions(16<<20, prometheus.NewRegistry()) // 4 MiB for small ones
		take := func(n int64) (*room, chan error) {
			r, done := e.room(), make(chan error, 1)
			go func() { done <- r.take(t.Context(), n) }()
			synctest.Wait()
			return r, done
		}
		ran := func(done chan error) bool {
			t.Helper()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
				return true
			default:
				return false
			}
		}
		first, done := take(10 << 20)
		if !ran(done) {
			t.Error("an expansion waits in an idle process")
		}
		second, waits := take(4 << 20)
		if ran(waits) {
			t.Error("expansions hold more than the account has")
		}
		small, done := take(smallExpansion)
		if !ran(done) {
			t.Error("a small expansion waits for a large one")
		}
		first.close()
		synctest.Wait()
		if !ran(waits) {
			t.Error("an expansion waits though there is room")
		}
		if err := e.room().take(t.Context(), 13<<20); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one that never fits: got %v, want ResourceExhausted", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		third := e.room()
		go func() { waits <- third.take(ctx, 12<<20) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if err := <-waits; !errors.Is(err, context.Canceled) {
			t.Errorf("one that gave up: got %v", err)
		}
		for _, r := range []*room{first, second, small, third} {
			r.close() // the first a second time
		}
		if s, l := e.small.in.Load(), e.large.in.Load(); s != 0 || l != 0 ||
			e.large.queued.Load() != 0 {
			t.Errorf("left behind: %d, %d bytes, %d waited for", s, l, e.large.queued.Load())
		}
		if err := (*Expansions)(nil).room().take(t.Context(), 1<<50); err != nil {
			t.Errorf("without an account: %v", err)
		}
	})
}

// TestExpansionsAskForDistinctPages: lists of a regular expression's values lie many on a page, and
// not one after the other.
func TestExpansionsAskForDistinctPages(t *testing.T) {
	b := postingsWideBlock(t, 20_000)
	req := postingsRequest{
		matchers: postingsMatchers(t, `pod=~".*7"`),
		object:   b.object,
		eager:    true,
	}
	p, err := planPostings(t.Context(), b, &req)
	if err != nil {
		t.Fatal(err)
	}
	spans := p.spans()
	if got, most := p.heldBytes(spans, defaultIndexPage), b.object.Size+1<<20; len(spans) < 1000 ||
		got > most {
		t.Errorf("%d lists apart: %d bytes, the index has %d", len(spans), got, b.object.Size)
	}
}
