package inbound

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxShares bounds the shares of one client: more than there is of anything.
const maxShares = 1000

// Share says that the clients in a network have so many shares each.
type Share struct {
	Network netip.Prefix
	Shares  int
}

// Shares are those of clients that have more than one: a proxy that carries many clients is one
// address. The longest prefix decides.
type Shares []Share

// Of returns the shares of a client, 1 by default.
func (s Shares) Of(client netip.Prefix) int {
	shares, bits := 1, -1
	for _, o := range s {
		if o.Network.Bits() > bits && o.Network.Contains(client.Addr()) {
			shares, bits = o.Shares, o.Network.Bits()
		}
	}
	return shares
}

// ParseShare parses ADDRESS=N or NETWORK=N.
func ParseShare(s string) (Share, error) {
	network, number, ok := strings.Cut(s, "=")
	if !ok {
		return Share{}, errors.New(
			"want an address or a network, = and a number, such as 10.0.0.7=8",
		)
	}
	var o Share
	var err error
	if strings.Contains(network, "/") {
		o.Network, err = netip.ParsePrefix(network)
	} else {
		var ip netip.Addr
		if ip, err = netip.ParseAddr(network); err == nil {
			o.Network = networkOf(ip)
		}
	}
	if err != nil {
		return Share{}, fmt.Errorf("%q is no address and no network", network)
	}
	o.Network = o.Network.Masked()
	if o.Shares, err = strconv.Atoi(number); err != nil || o.Shares < 1 || o.Shares > maxShares {
		return Share{}, fmt.Errorf("%q is no number from 1 to %d", number, maxShares)
	}
	return o, nil
}

// String is what ParseShare parses.
func (s Share) String() string { return fmt.Sprintf("%s=%d", s.Network, s.Shares) }
