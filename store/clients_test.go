package store

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"

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
