package inbound

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"larder/internal/panics"
)

// of returns the context of a request of a client.
func of(t *testing.T, ip string) context.Context {
	addr := &Addr{
		Addr: &net.TCPAddr{},
		conn: &Conn{client: netip.MustParsePrefix(ip + "/32"), source: &source{}},
	}
	return peer.NewContext(t.Context(), &peer.Peer{Addr: addr})
}

// TestPool checks that a client with many streams loses one to a second client.
func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{Max: 3}
		wait := func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		ended := make(chan error, 10)
		watch := func(ip string) context.CancelFunc {
			ctx, cancel := context.WithCancel(of(t, ip))
			go func() { ended <- p.Around(ctx, wait) }()
			synctest.Wait()
			return cancel
		}
		for range 3 {
			watch("10.0.0.1")
		}
		if err := p.Around(of(t, "10.0.0.1"), wait); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a fourth stream of the same client got %v", err)
		}
		watch("10.0.0.2")
		if err := <-ended; status.Code(err) != codes.ResourceExhausted {
			t.Errorf("the replaced stream got %v", err)
		}
		// The clients have two streams and one. The first stream of a third client replaces the
		// second of the first.
		watch("10.0.0.3")
		if err := <-ended; status.Code(err) != codes.ResourceExhausted {
			t.Errorf("the replaced stream got %v", err)
		}
		if err := p.Around(of(t, "10.0.0.4"), wait); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a stream replaced the only stream of a client: %v", err)
		}
		time.Sleep(defaultLifetime)
		for range 3 {
			if err := <-ended; status.Code(err) != codes.Unavailable {
				t.Errorf("a stream at its maximum age got %v", err)
			}
		}
		cancel := watch("10.0.0.1")
		cancel()
		if err := <-ended; status.Code(err) != codes.Canceled {
			t.Errorf("a stream that its client ended got %v", err)
		}
		if p.open != 0 || len(p.clients) != 0 {
			t.Errorf("%d streams of %d clients are remembered", p.open, len(p.clients))
		}
	})
}

// TestPoolHandlers checks that errors and panics of a handler are passed on.
func TestPoolHandlers(t *testing.T) {
	p := &Pool{}
	want := errors.New("of the handler")
	if err := p.Around(of(t, "10.0.0.1"), func(context.Context) error { return want }); !errors.Is(
		err,
		want,
	) {
		t.Errorf("got %v", err)
	}
	defer func() {
		if p, ok := recover().(*panics.Error); !ok || p.Value != "boom" {
			t.Errorf("recovered %v", p)
		}
		if p.open != 0 {
			t.Errorf("%d streams are remembered", p.open)
		}
	}()
	_ = p.Around(of(t, "10.0.0.1"), func(context.Context) error { panic("boom") })
}

func TestParseShare(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.7=8": "10.0.0.7/32=8", "10.1.2.3/8=2": "10.0.0.0/8=2",
		"2001:db8::1=3": "2001:db8::/64=3",
		"10.0.0.7":      "", "=3": "", "host=3": "",
		"10.0.0.7=0": "", "10.0.0.7=x": "", "10.0.0.7=1001": "",
	} {
		got, err := ParseShare(in)
		switch {
		case want == "" && err == nil:
			t.Errorf("%s: got %s, want an error", in, got)
		case want != "" && (err != nil || got.String() != want):
			t.Errorf("%s: got %s, %v", in, got, err)
		}
	}
	s := Shares{{netip.MustParsePrefix("10.0.0.0/8"), 2}, {netip.MustParsePrefix("10.0.0.7/32"), 5}}
	for ip, want := range map[string]int{"10.0.0.7": 5, "10.9.0.7": 2, "11.0.0.1": 1} {
		if got := s.Of(netip.MustParsePrefix(ip + "/32")); got != want {
			t.Errorf("%s has %d shares, want %d", ip, got, want)
		}
	}
}
