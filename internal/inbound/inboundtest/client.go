// Package inboundtest provides clients with chosen addresses for tests.
package inboundtest

import (
	"net"
	"testing"

	"google.golang.org/grpc/peer"

	"larder/internal/inbound"
)

// ClientAt returns the peer of a request from the local address ip. shares are the shares of the
// listener, nil for none. The connection stays open until t ends.
func ClientAt(t *testing.T, ip string, shares inbound.Shares) *peer.Peer {
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
