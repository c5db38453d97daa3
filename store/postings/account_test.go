package postings

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestExpansionsAreBounded checks that an expansion waits until its bytes are free. A small one
// does not wait for large ones. One that can never fit is rejected, and one that gives up leaves
// nothing reserved.
func TestExpansionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAccount(16<<20, prometheus.NewRegistry()) // 4 MiB for small ones
		reserve := func(n int64) (*reservation, chan error) {
			r, done := a.reservation(), make(chan error, 1)
			go func() { done <- r.reserve(t.Context(), n) }()
			synctest.Wait()
			return r, done
		}
		reserved := func(done chan error) bool {
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
		first, done := reserve(10 << 20)
		if !reserved(done) {
			t.Error("an expansion waits in an idle process")
		}
		second, waits := reserve(4 << 20)
		if reserved(waits) {
			t.Error("expansions reserved more bytes than the account has")
		}
		small, done := reserve(smallExpansion)
		if !reserved(done) {
			t.Error("a small expansion waits for a large one")
		}
		first.release()
		synctest.Wait()
		if !reserved(waits) {
			t.Error("an expansion waits for bytes that are free")
		}
		err := a.reservation().reserve(t.Context(), 13<<20)
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one that never fits: got %v, want ResourceExhausted", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		third := a.reservation()
		go func() { waits <- third.reserve(ctx, 12<<20) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if err := <-waits; !errors.Is(err, context.Canceled) {
			t.Errorf("one that gave up: got %v, want %v", err, context.Canceled)
		}
		for _, r := range []*reservation{first, second, small, third} {
			r.release() // first for the second time
		}
		s, l, queued := a.small.in.Load(), a.large.in.Load(), a.large.queued.Load()
		if s != 0 || l != 0 || queued != 0 {
			t.Errorf("still reserved: %d small, %d large; still queued: %d", s, l, queued)
		}
		if err := (*Account)(nil).reservation().reserve(t.Context(), 1<<50); err != nil {
			t.Errorf("without an account: %v", err)
		}
	})
}

// TestExpansionsReserveDistinctPages checks that an estimate counts each page once: the lists of a
// regular expression's values share pages, even though they are not adjacent.
func TestExpansionsReserveDistinctPages(t *testing.T) {
	b := wideIndex(t, 20_000)
	req := request{
		matchers: parseMatchers(t, `pod=~".*7"`),
		object:   b.object,
		eager:    true,
	}
	p, err := newPlan(t.Context(), b, &req)
	if err != nil {
		t.Fatal(err)
	}
	spans := p.spans()
	got := p.neededBytes(spans, defaultPageBytes)
	if len(spans) < 1000 || got > b.object.Size+1<<20 {
		t.Errorf("%d separate lists are estimated to need %d bytes; the index has %d",
			len(spans), got, b.object.Size)
	}
}
