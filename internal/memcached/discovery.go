package memcached

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"larder/internal/redaction"
)

// address is a configured address.
type address struct {
	text   string // as configured
	scheme string // dns, dnsdualstack, dnssrv, dnssrvnoa; "" if no look-up is needed
	host   string
	port   string // "" if the SRV record contains it
}

// parseAddress parses a configured address. An address that can never lead to a server is an error.
func parseAddress(text string) (address, error) {
	text = strings.TrimSpace(text)
	if shown := redaction.Address(text); shown != text && !strings.HasPrefix(text, "/") {
		return address{}, fmt.Errorf("memcached: address %q has a user, a password or a query: "+
			"give host:port alone: this client does not authenticate", shown)
	}
	scheme, rest, ok := strings.Cut(text, "+")
	if !ok {
		scheme, rest = "", text
	}
	a := address{text: text, scheme: scheme, host: rest}
	if scheme == "" && strings.HasPrefix(rest, "/") {
		return a, nil // a Unix socket
	}
	if host, port, err := net.SplitHostPort(rest); err == nil {
		a.host, a.port = host, port
	}
	srv := scheme == "dnssrv" || scheme == "dnssrvnoa"
	switch {
	case scheme != "" && scheme != "dns" && scheme != "dnsdualstack" && !srv:
		return a,
			fmt.Errorf("memcached: address %q: unknown prefix %q, "+
				"want dns, dnsdualstack, dnssrv or dnssrvnoa, or none",
				text, redaction.Value(scheme))
	case a.host == "":
		return a, fmt.Errorf("memcached: address %q has no host", text)
	case a.port == "" && !srv:
		return a, fmt.Errorf("memcached: address %q has no port: memcached's default is 11211",
			text)
	}
	if err := a.check(srv); err != nil {
		return a, fmt.Errorf("memcached: address %q: %w", text, err)
	}
	return a, nil
}

// check returns an error for an address that no name server and no network can make valid.
func (a *address) check(srv bool) error {
	if !validPort(a.port) && a.port != "" {
		return fmt.Errorf("port %q is neither a number from 1 to 65535 nor the name of a service",
			a.port)
	}
	if ip, err := netip.ParseAddr(a.host); err == nil {
		if srv {
			return fmt.Errorf("%s is an address, which has no SRV records: remove the prefix",
				ip)
		}
		return nil
	}
	if !validHost(a.host) {
		return fmt.Errorf("%q is no host name: want host:port", a.host)
	}
	return nil
}

// validPort reports whether a port, given as a number or by name, is valid.
func validPort(port string) bool {
	if n, err := strconv.Atoi(port); err == nil {
		return n >= 1 && n <= 65535
	}
	if strings.Trim(port, hostLetters) != "" { // C's resolver accepts blanks
		return false
	}
	n, err := net.LookupPort("tcp", port) // reads local tables, without the network
	return err == nil && n > 0
}

// validHost reports whether Go's resolver would look up a name.
func validHost(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, hostLetters) != "" {
			return false
		}
	}
	return true
}

// hostLetters are the characters of names; DNS names of services contain underscores.
const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// discovery finds the endpoints of the configured addresses. Only one goroutine may use it.
type discovery struct {
	addresses []address
	resolver  Resolver
	log       *slog.Logger
	metrics   *metrics

	// last holds the results of earlier look-ups by name, seen those of the round that runs. A
	// failed look-up keeps its last result: a name server that is down removes no memcached.
	last, seen found
	failing    map[string]bool // by configured address
	now        []endpoint

	lookups, failures atomic.Int64
}

// found holds the results of look-ups.
type found struct {
	hosts   map[string][]string
	records map[string][]*net.SRV
}

func newFound() found {
	return found{hosts: map[string][]string{}, records: map[string][]*net.SRV{}}
}

func newDiscovery(o *Options) (*discovery, error) {
	d := &discovery{
		resolver: o.Resolver,
		log:      o.Logger.With("client", o.Name),
		last:     newFound(),
		failing:  map[string]bool{},
	}
	for _, text := range o.Addresses {
		a, err := parseAddress(text)
		if err != nil {
			return nil, err
		}
		d.addresses = append(d.addresses, a)
	}
	return d, nil
}

// dynamic reports whether any address needs a look-up.
func (d *discovery) dynamic() bool {
	return slices.ContainsFunc(d.addresses, func(a address) bool { return a.scheme != "" })
}

// listed returns the endpoints that need no look-up.
func (d *discovery) listed() []endpoint {
	for _, a := range d.addresses {
		if a.scheme == "" {
			d.now = append(d.now, a.endpoint())
		}
	}
	d.now = unique(d.now)
	return d.now
}

func (a *address) endpoint() endpoint {
	if a.port == "" {
		return endpoint{addr: a.host}
	}
	return endpoint{addr: net.JoinHostPort(a.host, a.port), name: a.host}
}

// unique sorts endpoints and drops duplicates of one server.
func unique(es []endpoint) []endpoint {
	es = slices.Clone(es)
	slices.SortFunc(
		es, func(a, b endpoint) int {
			return strings.Compare(a.addr+" "+a.name,
				b.addr+" "+b.name)
		})
	return slices.CompactFunc(es, func(a, b endpoint) bool { return a.addr == b.addr })
}

// resolveAll looks up all names and returns the endpoints, and whether they have changed since the
// last call.
func (d *discovery) resolveAll(ctx context.Context) (endpoints []endpoint, changed bool) {
	bounded, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	d.seen = newFound()
	var all []endpoint
	for i := range d.addresses {
		a := &d.addresses[i]
		if a.scheme == "" {
			all = append(all, a.endpoint())
			continue
		}
		es, err := d.resolve(bounded, a)
		if ctx.Err() != nil {
			return d.now, false // the client is being closed
		}
		d.tell(a, err)
		d.metrics.results.WithLabelValues(a.text).Set(float64(len(es)))
		all = append(all, es...)
	}
	d.last = d.seen
	all = unique(all)
	if slices.Equal(all, d.now) {
		return all, false
	}
	d.log.Info("memcached servers changed", "servers", len(all), "before", len(d.now))
	d.now = all
	return all, true
}

// tell logs that the look-ups of an address fail or work again, once for each change.
func (d *discovery) tell(a *address, err error) {
	switch {
	case d.failing[a.text] == (err != nil):
		return
	case err != nil:
		d.log.Warn("memcached servers not found: keeping the last known ones", "address",
			a.text, "err", err)
	default:
		d.log.Info("memcached servers found again", "address", a.text)
	}
	d.failing[a.text] = err != nil
}

// resolve returns the endpoints of a name, the last known ones if a look-up fails.
func (d *discovery) resolve(ctx context.Context, a *address) ([]endpoint, error) {
	switch a.scheme {
	case "dns":
		ips, err := d.host(ctx, a.host)
		return join(oneFamily(ips), a.port, a.host), err
	case "dnsdualstack":
		ips, err := d.host(ctx, a.host)
		return join(ips, a.port, a.host), err
	}
	records, err := d.srv(ctx, a.host)
	var es []endpoint
	for _, r := range records {
		port := a.port
		if port == "" {
			port = strconv.Itoa(int(r.Port))
		}
		target := strings.TrimRight(r.Target, ".")
		if a.scheme == "dnssrvnoa" {
			es = append(es, endpoint{addr: net.JoinHostPort(target, port), name: target})
			continue
		}
		ips, hostErr := d.host(ctx, r.Target)
		if err == nil {
			err = hostErr
		}
		es = append(es, join(oneFamily(ips), port, target)...)
	}
	return es, err
}

// oneFamily returns the IPv6 addresses, or all if there are none: same as Thanos, which asks for A
// records only if there are no AAAA records. A memcached that listens on one family would otherwise
// count as two servers, one of them dead.
func oneFamily(ips []string) []string {
	var six []string
	for _, ip := range ips {
		if strings.Contains(ip, ":") {
			six = append(six, ip)
		}
	}
	if six == nil {
		return ips
	}
	return six
}

func join(ips []string, port, name string) []endpoint {
	var es []endpoint
	for _, ip := range ips {
		es = append(es, endpoint{addr: net.JoinHostPort(ip, port), name: name})
	}
	return es
}

// host returns the addresses of a host.
func (d *discovery) host(ctx context.Context, host string) ([]string, error) {
	d.lookups.Add(1)
	ips, err := d.resolver.LookupHost(ctx, host)
	if err == nil && len(ips) == 0 {
		err = fmt.Errorf("memcached: %s has no addresses", host)
	}
	if err != nil {
		d.failures.Add(1)
		ips = d.last.hosts[host]
	}
	d.seen.hosts[host] = ips
	return ips, err
}

// srv returns the SRV records of a name.
func (d *discovery) srv(ctx context.Context, name string) ([]*net.SRV, error) {
	d.lookups.Add(1)
	_, records, err := d.resolver.LookupSRV(ctx, "", "", name)
	if err == nil && len(records) == 0 {
		err = fmt.Errorf("memcached: %s has no SRV records", name)
	}
	if err != nil {
		d.failures.Add(1)
		records = d.last.records[name]
	}
	d.seen.records[name] = records
	return records, err
}
