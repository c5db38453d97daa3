package memcached

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// zone is a fake name server.
type zone struct {
	mu      sync.Mutex
	hosts   map[string][]string
	records map[string][]*net.SRV
	down    bool
	asked   int
}

func (z *zone) LookupHost(_ context.Context, host string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	if z.down || z.hosts[host] == nil {
		return nil, errors.New("no such host: " + host)
	}
	return z.hosts[host], nil
}

func (z *zone) LookupSRV(
	_ context.Context, service, proto, name string,
) (string, []*net.SRV, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	if z.down || service+proto != "" || z.records[name] == nil {
		return "", nil, errors.New("no such name: " + name)
	}
	return name, z.records[name], nil
}

func (z *zone) change(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

// known returns the servers of a client with the names expected in their certificates.
func known(c *Client) string {
	var all []string
	for _, s := range c.ring.Load().servers {
		all = append(all, s.addr.addr+"="+s.addr.name)
	}
	return strings.Join(all, " ")
}

func TestDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{
			hosts: map[string][]string{
				"cache.local": {"10.0.0.2", "10.0.0.1"},
				"dual.local":  {"10.0.0.2", "fd00::b", "10.0.0.1", "fd00::a"},
				"a.srv.":      {"10.1.0.1"},
				"b.srv.":      {"10.1.0.2", "fd00::2"},
			},
			records: map[string][]*net.SRV{"_mc._tcp.srv": {{Target: "a.srv.", Port: 1},
				{Target: "b.srv.", Port: 2}}},
		}
		f := func(want string, addresses ...string) {
			t.Helper()
			c, err := New(Options{Addresses: addresses, Resolver: z})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			synctest.Wait()
			if got := known(c); got != want {
				t.Errorf("%v: got %q, want %q", addresses, got, want)
			}
		}
		f("10.0.0.1:11=10.0.0.1 host:11=host", "host:11", "10.0.0.1:11", "host:11")
		f("/run/memcached.sock=", "/run/memcached.sock")
		f("10.0.0.1:11=cache.local 10.0.0.2:11=cache.local", "dns+cache.local:11")
		f("10.0.0.1:11=cache.local 10.0.0.2:11=cache.local", "dnsdualstack+cache.local:11")
		// A host with both families counts with its IPv6 addresses, same as in Thanos.
		f("[fd00::a]:11=dual.local [fd00::b]:11=dual.local", "dns+dual.local:11")
		f(
			"10.0.0.1:11=dual.local 10.0.0.2:11=dual.local [fd00::a]:11=dual.local [fd00::b]:11=dual.local",
			"dnsdualstack+dual.local:11",
		)
		f("10.1.0.1:1=a.srv [fd00::2]:2=b.srv", "dnssrv+_mc._tcp.srv")
		f("10.1.0.1:9=a.srv [fd00::2]:9=b.srv", "dnssrv+_mc._tcp.srv:9")
		f("a.srv:1=a.srv b.srv:2=b.srv", "dnssrvnoa+_mc._tcp.srv")
		f("10.0.0.1:11=10.0.0.1 10.0.0.2:11=cache.local", "10.0.0.1:11", "dns+cache.local:11")
		f("", "dns+nowhere:1")
		f("x:1=x", "dnssrv+nowhere", "x:1")
	})
}

// TestServersChange: names are resolved periodically; a failed look-up changes nothing.
func TestServersChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{hosts: map[string][]string{}}
		var log bytes.Buffer
		c, err := New(Options{Addresses: []string{"dns+cache:1", "dns+other:1"}, Resolver: z,
			Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		settled := func(wait time.Duration, want string) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			if got := known(c); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		settled(0, "")
		// Without a known server, a look-up is a miss at once, and the name server is asked again
		// soon.
		values := make([][]byte, 1)
		began := time.Now()
		c.GetMulti(t.Context(), []ID{idOf("a")}, values)
		c.Set(idOf("a"), []byte("v"))
		if values[0] != nil || time.Since(began) != 0 {
			t.Error("a look-up waited although no server is known")
		}
		z.change(func() { z.hosts["cache"] = []string{"10.0.0.1"} })
		settled(time.Second, "10.0.0.1:1=cache")
		if d := c.Stats().Dropped; d.NoServer != 1 {
			t.Errorf("dropped %+v", d)
		}
		first := c.ring.Load().servers[0]

		z.change(func() {
			z.hosts["cache"], z.hosts["other"] = []string{"10.0.0.1", "10.0.0.2"},
				[]string{"10.0.0.3"}
		})
		settled(10*time.Second, "10.0.0.1:1=cache 10.0.0.2:1=cache 10.0.0.3:1=other")
		if c.ring.Load().servers[0] != first {
			t.Error("a server that stayed has lost its connections")
		}
		second := c.ring.Load().servers[1]

		log.Reset()
		z.change(func() { z.down = true })
		settled(35*time.Second, "10.0.0.1:1=cache 10.0.0.2:1=cache 10.0.0.3:1=other")
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines about three rounds of failures, want one for each address:\n%s", n,
				log.String())
		}
		lookups, failures := c.discovery.lookups.Load(), c.discovery.failures.Load()
		if lookups != int64(z.asked) || failures < 6 || failures >= lookups {
			t.Errorf("counted %d look-ups and %d failures of %d", lookups, failures, z.asked)
		}

		z.change(func() { z.down = false; z.hosts["cache"] = []string{"10.0.0.1"} })
		settled(10*time.Second, "10.0.0.1:1=cache 10.0.0.3:1=other")
		if !second.reads.retired || !second.writes.retired || first.reads.retired {
			t.Error("want only the removed server to be closed")
		}
		// An address that fails does not affect the others.
		z.change(func() { delete(z.hosts, "cache"); z.hosts["other"] = []string{"10.0.0.4"} })
		settled(10*time.Second, "10.0.0.1:1=cache 10.0.0.4:1=other")
	})
}

// TestIdleConnectionsAreClosed: connections are closed after a while without use.
func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Options{Addresses: []string{"host:1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ls := c.ring.Load().servers[0].reads
		var ends []net.Conn
		use := func(n int) {
			var taken []*lane
			for range n {
				taken = append(taken, ls.take())
			}
			for _, l := range taken {
				if !l.connected() {
					var end net.Conn
					l.spare, end = net.Pipe()
					ends = append(ends, end)
				}
				ls.put(l)
			}
		}
		idle := func(want int) {
			t.Helper()
			ls.mu.Lock()
			defer ls.mu.Unlock()
			if len(ls.idle) != want {
				t.Errorf("%d connections are idle, want %d", len(ls.idle), want)
			}
		}
		use(5)
		idle(5)
		time.Sleep(40 * time.Second)
		use(2)
		time.Sleep(35 * time.Second)
		idle(2)
		time.Sleep(50 * time.Second)
		idle(0)
		for _, end := range ends {
			if _, err := end.Read(make([]byte, 1)); err == nil {
				t.Error("a connection is still open")
			}
		}
	})
}

// TestLateConnectionsAreKept: a connection that takes longer to dial than the read deadline is
// still established.
func TestLateConnectionsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d dials
		d.ctx = t.Context()
		var ends []net.Conn
		ls := &lanes{addr: &serverAddr{"tcp", "x"}, timeout: 500 * time.Millisecond, keep: 1,
			dials: &d}
		ls.dial = func(ctx context.Context) (net.Conn, error) {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			c, end := net.Pipe()
			ends = append(ends, end)
			return c, nil
		}
		l := ls.take()
		_, err := l.get(time.Now().Add(10*time.Millisecond), []string{"k"}, 1)
		if kindOf(err) != kindTimeout {
			t.Errorf("got %v", err)
		}
		ls.put(l)
		time.Sleep(200 * time.Millisecond)
		if l = ls.take(); !l.connected() {
			t.Fatal("the connection is lost")
		}
		go func() {
			_, _ = ends[0].Read(make([]byte, 100))
			_, _ = ends[0].Write([]byte("END\r\n"))
		}()
		if _, err := l.get(time.Now().Add(10*time.Millisecond), []string{"k"}, 1); err != nil {
			t.Error(err)
		}
		ls.put(l)
		ls.retire()
		// A connection established after its server was removed is closed.
		l = ls.take()
		_, _ = l.get(time.Now().Add(10*time.Millisecond), []string{"k"}, 1)
		d.running.Wait()
		for _, end := range ends {
			if _, err := end.Read(make([]byte, 1)); err == nil {
				t.Error("a connection is still open")
			}
		}
		if len(ends) != 2 {
			t.Errorf("%d dials", len(ends))
		}
	})
}

func TestUniqueEndpoints(t *testing.T) {
	got := unique([]endpoint{{"b:1", "y"}, {"a:1", "z"}, {"b:1", "x"}})
	if want := []endpoint{{"a:1", "z"}, {"b:1", "x"}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
