package membership

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/config"

	"larder/internal/panics"
	"larder/shard"
)

// The outcomes of a question, in metrics.
const (
	answered = "answered"
	failed   = "failed"
	foreign  = "foreign" // for another cluster
)

const (
	// maxConcurrent bounds the questions that are in flight.
	maxConcurrent = 16
	// askTimeout bounds one question.
	askTimeout = 5 * time.Second
	// maxAddresses bounds the addresses of all peers.
	maxAddresses = 4096
)

// ClientConfig is how peers are asked, in the format of Prometheus's HTTP clients.
type ClientConfig = config.HTTPClientConfig

// Peer is an address of one or more members: a host, whose addresses are looked up, and a port.
type Peer struct {
	scheme, host, port string
}

func (p Peer) String() string { return p.scheme + "://" + net.JoinHostPort(p.host, p.port) }

// ParsePeer parses host:port, http://host:port or https://host:port.
func ParsePeer(s string) (Peer, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "http", s
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil || host == "" || port == "" || scheme != "http" && scheme != "https" {
		return Peer{}, fmt.Errorf("%q is not host:port, http://host:port or https://host:port", s)
	}
	return Peer{scheme, host, port}, nil
}

// polls asks peers. Only the goroutine that polls uses it.
type polls struct {
	names []peerName
}

// peerName is a Peer with the client for it and what was found behind it.
type peerName struct {
	Peer
	client  *http.Client
	last    []netip.Addr        // the last answer of DNS
	members map[string]shard.ID // by address, of the last poll
	was     map[string]shard.ID // by address, of the last answer
}

func newPolls(peers []Peer, conf *ClientConfig) (*polls, error) {
	p := &polls{}
	for _, peer := range peers {
		client, err := NewClient(conf, peer.host)
		if err != nil {
			return nil, err
		}
		p.names = append(p.names, peerName{
			Peer: peer, client: client, members: map[string]shard.ID{},
			was: map[string]shard.ID{},
		})
	}
	return p, nil
}

// NewClient returns a client for peers at a host. conf may be nil. The certificates of peers are
// verified for the host unless conf names another, because connections go to its addresses.
func NewClient(conf *ClientConfig, host string) (*http.Client, error) {
	c := config.DefaultHTTPClientConfig
	if conf != nil {
		c = *conf
	}
	c.FollowRedirects = false
	if c.TLSConfig.ServerName == "" {
		c.TLSConfig.ServerName = host
	}
	client, err := config.NewClientFromConfig(c, "larder-shard", config.WithHTTP2Disabled())
	if err != nil {
		return nil, err
	}
	client.Timeout = askTimeout
	return client, nil
}

// target is one address to ask.
type target struct {
	name     *peerName
	address  string
	url      string
	question []ulid.ULID
	from     sender
}

// result is the answer of one address, or its error.
type result struct {
	target
	sent   time.Duration
	report report
	err    error
}

// poll asks all peers once.
func (d *Driver) poll(ctx context.Context) {
	targets, silent := d.polls.targets(ctx)
	questions := map[int][]ulid.ULID{}
	var own sender
	for _, t := range targets {
		if id, ok := t.name.members[t.address]; ok {
			questions[id.Ordinal] = nil
		}
	}
	if !d.do(ctx, func() {
		own = sender{d.member.ID(), d.instance, d.opts.Identity}
		for _, ordinal := range slices.Collect(maps.Keys(questions)) {
			questions[ordinal] = d.member.Question(ordinal)
		}
	}) {
		return
	}
	for i := range targets {
		t := &targets[i]
		t.from = own
		if id, ok := t.name.members[t.address]; ok {
			t.question = questions[id.Ordinal]
		}
	}
	results := d.ask(ctx, targets)
	if ctx.Err() != nil {
		return
	}
	var others []result
	for i := range results {
		r := &results[i]
		if r.err == nil && own.Identity.differs(r.report.Identity) {
			delete(r.name.members, r.address)
			delete(r.name.was, r.address)
			others = append(others, *r)
			r.err = errForeign
			d.metrics.questions.WithLabelValues(foreign).Inc()
			continue
		}
		if r.err != nil {
			delete(r.name.members, r.address)
			silent = append(silent, shard.Silence{Address: r.address, Of: r.name.was[r.address]})
			d.metrics.questions.WithLabelValues(failed).Inc()
			d.log.Debug("peer does not answer", "address", r.address, "err", r.err)
			continue
		}
		r.name.members[r.address], r.name.was[r.address] = r.report.ID, r.report.ID
		d.metrics.questions.WithLabelValues(answered).Inc()
	}
	slices.SortFunc(silent, func(a, b shard.Silence) int {
		return strings.Compare(a.Address, b.Address)
	})
	d.do(ctx, func() {
		d.refuse(others)
		d.handle(results, silent)
	})
}

// errForeign is the error of an answer that is refused.
var errForeign = errors.New("the answer is of another cluster")

// refuse records the answers of a poll that are of other clusters, and logs those that are new.
// They are not silent: no member can be behind such an address.
func (d *Driver) refuse(others []result) {
	before := d.foreign
	d.foreign = nil
	for _, r := range others {
		d.foreign = append(d.foreign, r.address)
		if !slices.Contains(before, r.address) {
			d.log.Error("address of a peer belongs to another cluster, its answers are refused",
				"address", r.address, "peer", r.report.ID.String(),
				"cluster", r.report.Cluster, "bucket", r.report.Bucket,
				"own_cluster", d.opts.Identity.Cluster, "own_bucket", d.opts.Identity.Bucket)
		}
	}
	slices.Sort(d.foreign)
}

// handle passes the results of a poll to the Member.
func (d *Driver) handle(results []result, silent []shard.Silence) {
	for _, r := range results {
		if r.err != nil {
			continue
		}
		d.member.HandleReport(d.now(), r.sent, r.question, r.report.Report)
		// An address that no longer answers for the member is one that it had before.
		maps.DeleteFunc(d.seen, func(address string, s seen) bool {
			return s.id == r.report.ID && !slices.ContainsFunc(results, func(o result) bool {
				return o.err == nil && o.address == address
			})
		})
		d.seen[r.address] = seen{
			r.report.ID, r.address, r.report.Instance, r.sent, r.report.State, r.report.ReadyFor,
			r.name.client, strings.TrimSuffix(r.url, "report"),
		}
	}
	maps.DeleteFunc(d.seen, func(_ string, s seen) bool {
		return d.now()-s.at > d.opts.QuerierWait+time.Minute
	})
	maps.DeleteFunc(d.callers, func(_ uint64, c caller) bool {
		return d.now()-c.at > time.Minute
	})
	d.member.HandleSilent(d.now(), silent)
}

// ask sends all questions, a few at a time.
func (d *Driver) ask(ctx context.Context, targets []target) []result {
	results := make([]result, len(targets))
	places := make(chan struct{}, maxConcurrent)
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			results[i] = result{target: t, sent: d.now()}
			results[i].err = panics.Contained(func() (err error) {
				results[i].report, err = askReport(ctx, t)
				return err
			})()
		})
	}
	wg.Wait()
	return results
}

// targets looks up all names. It returns the addresses, and the names that cannot be looked up:
// these keep the addresses of their last answer.
func (p *polls) targets(ctx context.Context) (targets []target, silent []shard.Silence) {
	had := map[string]bool{}
	for i := range p.names {
		n := &p.names[i]
		addrs, err := n.lookUp(ctx)
		if err != nil {
			silent = append(silent, shard.Silence{Address: n.String(), Name: true})
		} else {
			n.last = addrs
			for _, known := range []map[string]shard.ID{n.was, n.members} {
				maps.DeleteFunc(known, func(address string, _ shard.ID) bool {
					return !slices.ContainsFunc(addrs, func(a netip.Addr) bool {
						return address == n.join(a)
					})
				})
			}
		}
		for _, a := range n.last {
			address := n.join(a)
			if !had[address] && len(targets) < maxAddresses {
				had[address] = true
				u := url.URL{Scheme: n.scheme, Host: address, Path: Prefix + "report"}
				targets = append(targets, target{name: n, address: address, url: u.String()})
			}
		}
	}
	return targets, silent
}

// join returns an address of the name with its port.
func (n *peerName) join(a netip.Addr) string {
	return net.JoinHostPort(a.Unmap().String(), n.port)
}

func (n *peerName) lookUp(ctx context.Context) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(n.host); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", n.host)
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return nil, nil // there are no members
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs, err
}
