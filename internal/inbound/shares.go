package inbound

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxShares bounds the shares of one client, above every useful value.
const maxShares = 1000

// Share gives each client in a network a number of shares.
type Share struct {
	Network netip.Prefix
	Shares  int
}

// Shares lists networks whose clients have more than one share, because a proxy with many clients
// has one address. The longest matching prefix applies.
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
		return Share{}, errors.New("want ADDRESS=N or NETWORK=N, such as 10.0.0.7=8")
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
		return Share{}, fmt.Errorf("%q is not an address or a network", network)
	}
	o.Network = o.Network.Masked()
	if o.Shares, err = strconv.Atoi(number); err != nil || o.Shares < 1 || o.Shares > maxShares {
		return Share{}, fmt.Errorf("%q is not a number from 1 to %d", number, maxShares)
	}
	return o, nil
}

// String returns the share in the format of ParseShare.
func (s Share) String() string { return fmt.Sprintf("%s=%d", s.Network, s.Shares) }
