package shards

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"larder/interop/internal/flaky"
	"larder/interop/internal/process"
)

// clusterIP is a Service of Kubernetes with one address: each connection goes to the next member
// that accepts it. It is on the loopback address clusterIPHost.
type clusterIP struct {
	listener net.Listener
	backends []string
	conns    sync.WaitGroup

	mu   sync.Mutex
	next int
	open map[net.Conn]bool
}

const clusterIPHost = "127.0.0.3"

func startClusterIP(t *testing.T, port string, backends []string) *clusterIP {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(clusterIPHost, port))
	if err != nil {
		t.Fatal(err)
	}
	s := &clusterIP{listener: l, backends: backends, open: map[net.Conn]bool{}}
	s.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // Accept returns
		s.restart()
		s.conns.Wait()
	})
	return s
}

// serve connects a client with a member.
func (s *clusterIP) serve(c net.Conn) {
	defer c.Close()
	for range s.backends {
		s.mu.Lock()
		backend := s.backends[s.next%len(s.backends)]
		s.next++
		s.mu.Unlock()
		b, err := net.Dial("tcp", backend)
		if err != nil {
			continue // Kubernetes takes a pod that is not ready out of the Service
		}
		s.mu.Lock()
		s.open[c], s.open[b] = true, true
		s.mu.Unlock()
		s.conns.Go(func() {
			_, _ = io.Copy(b, c) // ends with either connection
			_, _ = b.Close(), c.Close()
		})
		_, _ = io.Copy(c, b)
		_, _ = b.Close(), c.Close()
		return
	}
}

// restart ends all connections. The next one goes to the first member.
func (s *clusterIP) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		_ = c.Close() // it is to break
	}
	clear(s.open)
	s.next = 0
}

// strict gives the Querier a strict group over one address for each ordinal below n.
func (q *querier) strict(n int) {
	q.t.Helper()
	var text strings.Builder
	text.WriteString("endpoints:\n")
	for ordinal := range n {
		fmt.Fprintf(&text, "- group: true\n  strict: true\n  address: %s:%s\n"+
			"  service_config: '%s'\n", clusterIPHost, q.c.grpc[ordinal], q.serviceConfig)
	}
	replace(q.t, q.endpoints, text.String())
}

// outcome counts queries.
type outcome struct {
	asked  int
	silent int // lacked samples and did not say so
	loud   int // failed
	slow   time.Duration
	err    error // of the last that failed
}

func (o outcome) String() string {
	return fmt.Sprintf("%d queries, %d lack samples silently, %d fail, the slowest takes %s",
		o.asked, o.silent, o.loud, o.slow.Round(time.Millisecond))
}

// ask queries for a time. If shown is given, samples are expected to be missing: it goes on until
// the same time has passed since a query lacked samples and shown was true, for up to a minute.
func (q *querier) ask(d time.Duration, shown func() bool) (o outcome) {
	start := time.Now()
	since := start // of the time
	if shown != nil {
		since = time.Time{}
	}
	for ; ; o.asked++ {
		if since.IsZero() && o.silent > 0 && shown() {
			since = time.Now()
		}
		if !since.IsZero() && time.Since(since) > d || time.Since(start) > time.Minute {
			return o
		}
		begun := time.Now()
		n, err := q.count(q.t.Context(), shelf)
		o.slow = max(o.slow, time.Since(begun))
		switch {
		case err != nil:
			o.loud++
			o.err = err
		case n != samples:
			o.silent++
		}
	}
}

// TestQuerierSide: a real Querier with the shipped endpoint groups, and one with strict groups over
// one address for each ordinal, while a member of ordinal 0 has a fault. The member is the one that
// the second Querier is connected to.
//
// A group hides a member that is killed, answers Unavailable, or is not ready and refuses Info. If
// Info hangs, or no member of an ordinal is left, samples are missing silently, and the Querier's
// gauge of endpoints says so, which is what the alert LarderGroupIsNotQueried watches. A strict
// group is never silent, and fails while its one member refuses.
//
// In the short form Queriers ask for Info every second, in the long form every five, as they do by
// default.
func TestQuerierSide(t *testing.T) {
	t.Parallel()
	const count = 2
	during, info := 2*time.Second, "1s"
	if full() {
		during, info = 15*time.Second, "5s"
	}
	c := newCluster(t, 12*time.Second)
	direct, err := process.FreePorts(count)
	if err != nil {
		t.Fatal(err)
	}
	c.direct = nil
	for _, address := range direct {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		c.direct = append(c.direct, port)
	}
	c.configure(1, count)
	c.start(0, count)
	proxies := map[string]*flaky.Proxy{} // by their addresses
	start := func(ip, ordinal int) {
		t.Helper()
		host := fmt.Sprintf("127.0.0.%d", ip)
		address := net.JoinHostPort(host, c.grpc[ordinal])
		p, err := flaky.StartAt(address, net.JoinHostPort(host, c.direct[ordinal]))
		if err != nil {
			t.Fatal(err)
		}
		proxies[address] = p
	}
	proxy := func(ip, ordinal int) *flaky.Proxy {
		return proxies[net.JoinHostPort(fmt.Sprintf("127.0.0.%d", ip), c.grpc[ordinal])]
	}
	kill := func(ip int) {
		t.Helper()
		if err := proxy(ip, 0).Close(); err != nil {
			t.Error(err)
		}
	}
	var services []*clusterIP
	for ordinal := range count {
		start(1, ordinal)
		start(2, ordinal)
		services = append(services, startClusterIP(t, c.grpc[ordinal], []string{
			net.JoinHostPort("127.0.0.1", c.grpc[ordinal]),
			net.JoinHostPort("127.0.0.2", c.grpc[ordinal]),
		}))
	}
	t.Cleanup(func() {
		for _, p := range proxies {
			_ = p.Close() // some were killed
		}
	})
	c.ready(count)
	group := startQuerier(t, c, "--endpoint.info-timeout="+info)
	strict := startQuerier(t, c, "--endpoint.info-timeout="+info)
	group.groups(count)
	strict.strict(count)

	// endpoints are the stores that a Querier asks, as it says.
	endpoints := func(q *querier) float64 {
		t.Helper()
		n, err := process.Metric(t.Context(), "http://"+q.HTTPAddr+"/metrics",
			"thanos_store_nodes_grpc_connections", `store_type="store"`)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const none, some = false, true
	type expected struct{ silent, loud bool }
	f := func(fault string, begin, end func(), group1, strict1 expected) {
		t.Helper()
		for _, s := range services {
			s.restart()
		}
		for _, q := range []*querier{group, strict} {
			q.knows(count)
			if err := q.Wait(t.Context(), func(ctx context.Context) bool {
				n, err := q.count(ctx, shelf)
				return err == nil && n == samples
			}); err != nil {
				t.Fatal(err)
			}
		}
		var groupGot, strictGot outcome
		asked := make(chan struct{})
		var asking, watching sync.WaitGroup
		// An Info that hangs may be followed at once by one that goes to the other member. The
		// gauge of endpoints is low for milliseconds then, and a query may lack samples before
		// this test sees the gauge: hence the wait for both.
		var missed atomic.Bool // the gauge was seen below its value
		begin()
		asking.Go(func() {
			var shown func() bool
			if group1.silent {
				shown = missed.Load
			}
			groupGot = group.ask(during, shown)
		})
		asking.Go(func() { strictGot = strict.ask(during, nil) })
		watching.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				if endpoints(group) < count {
					missed.Store(true)
				}
				select {
				case <-tick.C:
				case <-asked:
					return
				}
			}
		})
		asking.Wait()
		close(asked)
		watching.Wait()
		end()
		check := func(name string, got outcome, want expected) {
			t.Helper()
			t.Logf("%s, %s: %s", fault, name, got)
			if (got.silent > 0) != want.silent || got.loud > 0 && !want.loud || got.asked == 0 {
				t.Errorf("%s, %s: want silent %t, failures %t; %v", fault, name, want.silent,
					want.loud, got.err)
			}
		}
		check("group", groupGot, group1)
		check("strict", strictGot, strict1)
		if missed.Load() != (groupGot.silent > 0) {
			t.Errorf("%s: %d queries lack samples; the gauge of endpoints shows a loss: %t", fault,
				groupGot.silent, missed.Load())
		}
	}
	brk := func(fault flaky.Fault) (begin, end func()) {
		return func() { proxy(1, 0).Break(&fault) }, func() { proxy(1, 0).Break(nil) }
	}
	nothing := func() {}
	f("no fault", nothing, nothing, expected{none, none}, expected{none, none})
	// First, while the Querier has a connection to both members: grpc backs off after a failure.
	begin, end := brk(flaky.Fault{Method: flaky.Info, Kind: flaky.Stall})
	f("Info hangs", begin, end, expected{some, none}, expected{none, none})
	// Queries that run meanwhile may fail, and say so.
	f("killed", func() { kill(1) }, func() { start(1, 0) }, expected{none, some},
		expected{none, some})
	f("Unavailable", func() {
		// New connections learn from the health service that the member does not serve.
		kill(1)
		start(1, 0)
		proxy(1, 0).Break(&flaky.Fault{Method: flaky.AnyMethod, Code: codes.Unavailable})
	}, end, expected{none, some}, expected{none, some})
	first := func(m *member) bool { return m.zone == "a" && m.ordinal == 0 }
	f("not ready", func() {
		c.stop(syscall.SIGKILL, first)
		c.startMember("a", 0, []string{"1"}) // no process answers there
	}, func() {
		c.stop(syscall.SIGTERM, first)
		c.startMember("a", 0, c.http)
		c.ready(count)
	}, expected{none, some}, expected{none, some})
	f("no member left", func() { kill(1); kill(2) }, func() { start(1, 0); start(2, 0) },
		expected{some, some}, expected{none, some})
}
