package store

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"larder/internal/inbound"
)

// clientAt returns the peer that a request has whose client is at an address of this host.
func clientAt(t *testing.T, ip string, shares inbound.Shares) *peer.Peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := inbound.New(l, inbound.Options{Shares: shares})
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := bounded.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = accepted.Close()
		_ = bounded.Close()
	})
	return &peer.Peer{Addr: accepted.RemoteAddr()}
}

// TestMadeUpTenantsOfOneClientKeepNoOtherOut: where too many wait, the client address that has most
// waiting is refused, however many tenants it calls itself, unless it counts as many clients.
func TestMadeUpTenantsOfOneClientKeepNoOtherOut(t *testing.T) {
	proxy, err := inbound.ParseShare("127.0.0.4=100")
	if err != nil {
		t.Fatal(err)
	}
	crowd := clientAt(t, "127.0.0.2", nil)
	honest := clientAt(t, "127.0.0.3", nil)
	many := clientAt(t, "127.0.0.4", inbound.Shares{proxy})
	synctest.Test(t, func(t *testing.T) {
		a := NewAdmission(
			GateOptions{MaxConcurrent: 1, MaxWaiting: 10},
			AllowanceOptions{},
			nil,
			nil,
		)
		first := enter(t, a)
		var wg sync.WaitGroup
		var mu sync.Mutex
		refused := map[*peer.Peer]int{}
		come := func(from *peer.Peer, tenant string) {
			wg.Go(func() {
				turn, err := a.Enter(peer.NewContext(t.Context(), from), tenant, seriesRequest)
				if err == nil {
					turn.Release()
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
			come(honest, defaultTenant)
		}
		come(crowd, "made-up") // it has as many as the other now: its own goes
		come(many, defaultTenant)
		for range 9 {
			come(many, defaultTenant)
		}
		if c, h, m := refused[crowd], refused[honest], refused[many]; c != 13 || h != 5 || m != 0 {
			t.Errorf(
				"refused: %d of the crowd, %d of the honest, %d of the proxy; want 13, 5, 0",
				c,
				h,
				m,
			)
		}
		first.Release()
		wg.Wait()
		checkIdle(t, a)
	})
}

// BenchmarkSendingAway is what a request costs that comes when 1000 wait.
func BenchmarkSendingAway(b *testing.B) {
	var q fairQueue
	for i := range 1000 {
		q.push(&waiter{tenant: fmt.Sprint(i), weight: 1, cost: 1, age: uint64(i), turn: &Turn{}})
	}
	last := &waiter{tenant: "last", weight: 1, cost: 1, age: 1001, turn: &Turn{}}
	q.push(last)
	for b.Loop() {
		if q.toSendAway(last) == nil {
			b.Fatal(context.Canceled)
		}
	}
}

// TestAClientLeavesPlacesToOthers: while another client waits, one has three quarters of the places
// at the gate at most.
func TestAClientLeavesPlacesToOthers(t *testing.T) {
	crowd, honest := clientAt(t, "127.0.0.2", nil), clientAt(t, "127.0.0.3", nil)
	synctest.Test(t, func(t *testing.T) {
		a := NewAdmission(GateOptions{MaxConcurrent: 4}, AllowanceOptions{}, nil, nil)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var order []*peer.Peer
		enter := func(from *peer.Peer, tenant string) *Turn {
			turn, err := a.Enter(peer.NewContext(t.Context(), from), tenant, seriesRequest)
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
			wg.Go(func() { turns <- enter(honest, defaultTenant) })
			synctest.Wait()
		}
		running[0].Release() // the crowd has three of four
		synctest.Wait()
		if got := order[len(order)-1]; got != honest {
			t.Error("the place went to the client that has most of them")
		}
		for _, turn := range running[1:] {
			turn.Release()
		}
		for range 6 {
			(<-turns).Release()
		}
		wg.Wait()
		checkIdle(t, a)
		if len(a.clients) != 0 {
			t.Errorf("places are counted of clients that have none: %v", a.clients)
		}
	})
}

// slowStream takes a frame in 50 seconds.
type slowStream struct{ grpc.ServerStream }

func (slowStream) SendMsg(any) error {
	time.Sleep(50 * time.Second)
	return nil
}

// TestAClientThatDawdlesMakesRoom: it takes each frame within the stall time-out, and keeps every
// place so.
func TestAClientThatDawdlesMakesRoom(t *testing.T) {
	crowd, honest := clientAt(t, "127.0.0.2", nil), clientAt(t, "127.0.0.3", nil)
	synctest.Test(t, func(t *testing.T) {
		a := NewAdmission(GateOptions{MaxConcurrent: 4}, AllowanceOptions{}, nil, nil)
		s := newStalls(time.Minute, a.Crowds, nil, slog.New(slog.DiscardHandler), nil)
		var wg sync.WaitGroup
		ended := make(chan error, 4)
		stop := make(chan struct{})
		for range 4 {
			ctx := peer.NewContext(t.Context(), crowd)
			turn, err := a.Enter(ctx, defaultTenant, seriesRequest)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				defer turn.Release()
				w := s.watch(ctx)
				defer w.stop()
				for {
					if err := w.send(slowStream{}, nil); err != nil {
						ended <- err
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		time.Sleep(time.Hour)
		if len(ended) > 0 {
			t.Errorf("ended though no other client waits: %v", <-ended)
		}
		began := time.Now()
		turn, err := a.Enter(peer.NewContext(t.Context(), honest), defaultTenant, seriesRequest)
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited > time.Minute {
			t.Errorf("another client waited %s for a place", waited)
		}
		if err := <-ended; status.Code(err) != codes.Aborted {
			t.Errorf("got %v, want Aborted", err)
		}
		time.Sleep(time.Hour)
		if len(ended) > 0 {
			t.Errorf("another request was ended though no client waits: %v", <-ended)
		}
		turn.Release()
		close(stop)
		wg.Wait()
		checkIdle(t, a)
	})
}
