package admission

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"larder/internal/inbound"
	"larder/internal/inbound/inboundtest"
)

// TestInventedTenantsOfOneClientDoNotBlockOthers checks that a full queue rejects a request of the
// client address with the most waiting requests per share, whatever tenants it names.
func TestInventedTenantsOfOneClientDoNotBlockOthers(t *testing.T) {
	proxy, err := inbound.ParseShare("127.0.0.4=100")
	if err != nil {
		t.Fatal(err)
	}
	crowd := inboundtest.ClientAt(t, "127.0.0.2", nil)
	honest := inboundtest.ClientAt(t, "127.0.0.3", nil)
	many := inboundtest.ClientAt(t, "127.0.0.4", inbound.Shares{proxy})
	synctest.Test(t, func(t *testing.T) {
		a := New(GateOptions{MaxConcurrent: 1, MaxWaiting: 10}, AllowanceOptions{}, nil, nil)
		first := enter(t, a)
		var wg sync.WaitGroup
		var mu sync.Mutex
		refused := map[*peer.Peer]int{}
		come := func(from *peer.Peer, tenant string) {
			wg.Go(func() {
				turn, err := a.Enter(peer.NewContext(t.Context(), from), tenant, SeriesRequest)
				if err == nil {
					turn.Close()
					return
				}
				if status.Code(err) != codes.ResourceExhausted {
					t.Error(err)
				}
				mu.Lock()
				refused[from]++
				mu.Unlock()
			})
			synctest.Wait()
		}
		for i := range 12 {
			come(crowd, fmt.Sprint("made-up-", i))
		}
		for range 5 {
			come(honest, DefaultTenant)
		}
		come(crowd, "made-up") // both clients have as many: the request of this one is rejected
		come(many, DefaultTenant)
		for range 9 {
			come(many, DefaultTenant)
		}
		if c, h, m := refused[crowd], refused[honest], refused[many]; c != 13 || h != 5 || m != 0 {
			t.Errorf("rejected: %d of the crowd, %d of the honest, %d of the proxy; want 13, 5, 0",
				c, h, m)
		}
		first.Close()
		wg.Wait()
		checkIdle(t, a)
	})
}

// TestAClientLeavesPlacesToOthers: a client holds at most three quarters of the places while
// another client waits.
func TestAClientLeavesPlacesToOthers(t *testing.T) {
	crowd, honest := inboundtest.ClientAt(
		t,
		"127.0.0.2",
		nil,
	), inboundtest.ClientAt(t, "127.0.0.3", nil)
	synctest.Test(t, func(t *testing.T) {
		a := New(GateOptions{MaxConcurrent: 4}, AllowanceOptions{}, nil, nil)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var order []*peer.Peer
		enter := func(from *peer.Peer, tenant string) *Turn {
			turn, err := a.Enter(peer.NewContext(t.Context(), from), tenant, SeriesRequest)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			order = append(order, from)
			mu.Unlock()
			return turn
		}
		running := []*Turn{
			enter(crowd, "1"),
			enter(crowd, "2"),
			enter(crowd, "3"),
			enter(crowd, "4"),
		}
		turns := make(chan *Turn, 10)
		for i := range 4 {
			wg.Go(func() { turns <- enter(crowd, fmt.Sprint(i)) })
			synctest.Wait()
		}
		for range 2 {
			wg.Go(func() { turns <- enter(honest, DefaultTenant) })
			synctest.Wait()
		}
		running[0].Close() // the crowd still has three of four
		synctest.Wait()
		if got := order[len(order)-1]; got != honest {
			t.Error("the client with most places got another one")
		}
		for _, turn := range running[1:] {
			turn.Close()
		}
		for range 6 {
			(<-turns).Close()
		}
		wg.Wait()
		checkIdle(t, a)
		if len(a.clients) != 0 {
			t.Errorf("places are counted of clients that have none: %v", a.clients)
		}
	})
}

// TestAClientLeavesPlacesForAWhile checks that a client leaves places free for some minutes after
// another one came, so that the other finds one at once when it returns.
func TestAClientLeavesPlacesForAWhile(t *testing.T) {
	crowd, honest := inboundtest.ClientAt(
		t,
		"127.0.0.2",
		nil,
	), inboundtest.ClientAt(t, "127.0.0.3", nil)
	synctest.Test(t, func(t *testing.T) {
		a := New(GateOptions{MaxConcurrent: 4, FailFast: true}, AllowanceOptions{}, nil, nil)
		var turns []*Turn
		enter := func(from *peer.Peer) bool {
			turn, err := a.Enter(peer.NewContext(t.Context(), from), DefaultTenant, SeriesRequest)
			if err == nil {
				turns = append(turns, turn)
			} else if status.Code(err) != codes.Unavailable {
				t.Error(err)
			}
			return err == nil
		}
		leave := func() {
			for _, turn := range turns {
				turn.Close()
			}
			turns = nil
		}
		places := func(from *peer.Peer) (n int) {
			defer leave()
			for enter(from) {
				n++
			}
			return n
		}
		if n := places(crowd); n != 4 {
			t.Errorf("a client that is alone has %d places, want 4", n)
		}
		enter(honest)
		leave()
		if n := places(crowd); n != 3 {
			t.Errorf("a client has %d places after another came, want 3", n)
		}
		time.Sleep(besideOthers + time.Second)
		if n := places(crowd); n != 4 {
			t.Errorf("a client has %d places a while after another came, want 4", n)
		}
		checkIdle(t, a)
	})
}

// TestAClientThatHasItsPlacesIsPassed checks that a client with its full share of places does not
// delay another client's request of the same tenant.
func TestAClientThatHasItsPlacesIsPassed(t *testing.T) {
	crowd := inboundtest.ClientAt(t, "127.0.0.2", nil)
	honest := inboundtest.ClientAt(t, "127.0.0.3", nil)
	synctest.Test(t, func(t *testing.T) {
		a := New(GateOptions{MaxConcurrent: 4}, AllowanceOptions{}, nil, nil)
		var wg sync.WaitGroup
		turns := make(chan *Turn, 10)
		enter := func(from *peer.Peer) {
			wg.Go(func() {
				ctx := peer.NewContext(t.Context(), from)
				turn, err := a.Enter(ctx, DefaultTenant, SeriesRequest)
				if err != nil {
					t.Error(err)
				}
				turns <- turn
			})
			synctest.Wait()
		}
		enter(honest)
		(<-turns).Close()
		for range 6 {
			enter(crowd)
		}
		if n := len(turns); n != 3 {
			t.Errorf("the client has %d places, want 3", n)
		}
		enter(honest)
		if n := len(turns); n != 4 {
			t.Error("a request of another client waits behind those of the one that has its places")
		}
		for range 7 {
			(<-turns).Close()
			synctest.Wait()
		}
		wg.Wait()
		checkIdle(t, a)
	})
}
