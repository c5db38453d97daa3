package memcached

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/memcached/memcachedtest"
)

func TestValuesComeBack(t *testing.T) {
	var servers []*memcachedtest.Server
	for range 3 {
		servers = append(servers, memcachedtest.Start(t, memcachedtest.Options{}))
	}
	// More keys than a batch may contain, and more batches than may run in parallel.
	o := Options{MaxGetMultiBatchSize: 50, MaxGetMultiConcurrency: 4, Timeout: 10 * time.Second}
	writer := client(t, o, servers...)
	var ids []ID
	want := map[ID][]byte{}
	for i := range 2000 {
		id := idOf(strconv.Itoa(i))
		ids = append(ids, id)
		if i%10 != 0 {
			want[id] = bytes.Repeat([]byte{byte(i)}, i-1) // one of them is empty
			writer.Set(id, want[id])
		}
	}
	ids = append(ids, ids[1:20]...) // twice
	check := func(c *Client) {
		t.Helper()
		values := make([][]byte, len(ids))
		c.GetMulti(t.Context(), ids, values)
		for i, v := range values {
			if w := want[ids[i]]; !bytes.Equal(v, w) || (v == nil) != (w == nil) {
				t.Fatalf("value %d: got %d bytes (nil: %v), want %d", i, len(v), v == nil, len(w))
			}
			if cap(v) > len(v) && len(v) > 0 {
				t.Fatalf("value %d: %d bytes keep an array of %d", i, len(v), cap(v))
			}
		}
	}
	check(writer)     // some are pending
	settle(t, writer) // Close drops what is not written within a second
	writer.Close()
	check2 := client(t, o, servers...)
	check(check2)
	for i, s := range servers {
		if n, _ := strconv.Atoi(s.Stats(t)["curr_items"]); n < 400 || n > 800 {
			t.Errorf("server %d of 3 holds %d of 1800 values", i, n)
		}
	}
	if st := check2.Stats(); st.Hits != 1818 || st.Requests != 2019 || st.PendingHits != 0 ||
		st.Corrupt != 0 ||
		st.Failed != 0 {
		t.Errorf("got %+v", st)
	}
}

func TestPresentValuesAreNotRequested(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	c := client(t, Options{}, s)
	a, b := idOf("a"), idOf("b")
	store(t, c, map[ID][]byte{a: []byte("stored"), b: []byte("b")})
	values := [][]byte{[]byte("mine"), nil}
	c.GetMulti(t.Context(), []ID{a, b}, values)
	if string(values[0]) != "mine" || string(values[1]) != "b" {
		t.Errorf("got %q", values)
	}
	if n := s.Stats(t)["cmd_get"]; n != "1" {
		t.Errorf("%s keys were requested, want 1", n)
	}
}

func TestDelete(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	c := client(t, Options{}, s)
	id := idOf("a")
	store(t, c, map[ID][]byte{id: []byte("value")})
	c.Delete(id)
	if v := get(t, c, id); v != nil {
		t.Errorf("got %q right after Delete", v)
	}
	settle(t, c)
	if v := get(t, c, id); v != nil {
		t.Errorf("got %q after Delete", v)
	}
	c.Delete(id) // not stored
	settle(t, c)
	if d := c.Stats().Dropped; d != (Dropped{}) {
		t.Errorf("dropped %+v", d)
	}
}

// TestNamespacesAreSeparate: two deployments on one memcached.
func TestNamespacesAreSeparate(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	one, other := client(t, Options{Namespace: "one:"}, s), client(t, Options{Namespace: "other:"},
		s)
	store(t, one, map[ID][]byte{idOf("a"): []byte("one")})
	if v := get(t, other, idOf("a")); v != nil {
		t.Errorf("got %q", v)
	}
	if v := get(t, one, idOf("a")); string(v) != "one" {
		t.Errorf("got %q", v)
	}
}

// TestValuesAboveItemLimit: a value stored by a client with a larger MaxItemSize is a miss, however
// often it is requested, and the server counts as healthy. That is how a change of the limit is
// rolled out.
func TestValuesAboveItemLimit(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{Args: []string{"-I", "4m"}})
	big, small := idOf("big"), idOf("small")
	other := client(t, Options{MaxItemSize: 3 << 20, Timeout: 10 * time.Second}, s)
	store(t, other, map[ID][]byte{big: make([]byte, 2<<20), small: []byte("value")})
	c := client(t, Options{Timeout: 10 * time.Second}, s)
	for i := range 2 * maxStrikes {
		values := make([][]byte, 2)
		c.GetMulti(t.Context(), []ID{small, big}, values)
		if string(values[0]) != "value" || values[1] != nil {
			t.Fatalf("look-up %d: got %q before the large value, %d bytes of it", i, values[0],
				len(values[1]))
		}
	}
	if st := c.Stats(); st.ReadsOpen != 0 || st.Hits != 2*maxStrikes {
		t.Errorf("got %+v", st)
	}
	if get(t, other, big) == nil {
		t.Error("the client that stored the value no longer finds it")
	}
}

// TestKilledServer: look-ups on a dead server are misses, at once; values of other servers are
// found.
func TestKilledServer(t *testing.T) {
	dead, alive := memcachedtest.Start(t, memcachedtest.Options{}),
		memcachedtest.Start(t, memcachedtest.Options{})
	c := client(t, Options{Timeout: 10 * time.Second}, dead, alive)
	values := map[ID][]byte{}
	for i := range 200 {
		values[idOf(strconv.Itoa(i))] = []byte(strconv.Itoa(i))
	}
	store(t, c, values)
	found := func() (n int) {
		for id, want := range values {
			switch v := get(t, c, id); {
			case v == nil:
			case bytes.Equal(v, want):
				n++
			default:
				t.Errorf("got %q, want %q", v, want)
			}
		}
		return n
	}
	if n := found(); n != 200 {
		t.Fatalf("found %d of 200", n)
	}
	dead.Kill()
	began := time.Now()
	if n := found(); n < 50 || n > 150 {
		t.Errorf("found %d of 200 on one of two servers", n)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("200 look-ups took %v", d)
	}
	// The server comes back empty on the same address.
	dead.Restart(t)
	eventually(t, func() bool { found(); return c.Stats().ReadsOpen == 0 })
	store(t, c, values)
	if n := found(); n != 200 {
		t.Errorf("found %d of 200 after the restart", n)
	}
}

// TestRestartedServer: connections that went stale in a restart cost one miss, and do not open the
// breaker.
func TestRestartedServer(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	c := client(t, Options{MaxGetMultiConcurrency: 8, Timeout: 10 * time.Second}, s)
	id := idOf("a")
	store(t, c, map[ID][]byte{id: []byte("value")})
	// Open several connections that are then idle.
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { get(t, c, id) })
	}
	all.Wait()
	s.Restart(t)
	c.Set(id, []byte("value"))
	settle(t, c) // the write finds the stale connection and dials again
	missed := 0
	for range 20 {
		if get(t, c, id) == nil {
			missed++
		}
	}
	if missed != 1 {
		t.Errorf("%d of 20 look-ups missed after the restart, want 1", missed)
	}
	if st := c.Stats(); st.ReadsOpen != 0 || st.Dropped.Failed != 0 {
		t.Errorf("got %+v", st)
	}
}

// TestHangingServer: a stopped server is given up, and used again when it continues.
func TestHangingServer(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	id := idOf("a")
	store(t, client(t, Options{Timeout: 10 * time.Second}, s), map[ID][]byte{id: []byte("value")})
	c := client(
		t, Options{Timeout: 60 * time.Millisecond,
			Breaker: BreakerOptions{OpenDuration: 250 * time.Millisecond}}, s)
	eventually(t, func() bool { return get(t, c, id) != nil })
	s.Pause(t)
	for range 50 {
		if v := get(t, c, id); v != nil {
			t.Errorf("a stopped server answers %q", v)
		}
	}
	if st := c.Stats(); st.ReadsOpen != 1 || st.Skipped == 0 {
		t.Errorf("got %+v", st)
	}
	s.Resume(t)
	eventually(t, func() bool { return get(t, c, id) != nil })
}

// TestCallsThatWaitForAHangingServer counts them: the concurrent calls at first, then one per
// period.
func TestCallsThatWaitForAHangingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout, period = 60 * time.Millisecond, 250 * time.Millisecond
		c, err := New(Options{Addresses: []string{"hangs:1"}, Timeout: timeout,
			Breaker: BreakerOptions{OpenDuration: period}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.ring.Load().servers[0].reads.dial = func(context.Context) (net.Conn, error) {
			near, _ := net.Pipe()
			return near, nil
		}
		id := idOf("a")
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { get(t, c, id) })
		}
		began := time.Now()
		all.Wait()
		if n, d := c.Stats().TimedOut, time.Since(began); n != 20 || d != timeout {
			t.Errorf("%d of 20 calls at the same moment waited, for %v", n, d)
		}
		before := c.Stats().TimedOut
		began = time.Now()
		for time.Since(began) < 10*(period+timeout) {
			get(t, c, id)
			time.Sleep(time.Millisecond)
		}
		if n := c.Stats().TimedOut - before; n < 9 || n > 10 {
			t.Errorf("%d calls in ten periods waited", n)
		}
	})
}

// TestCallersGiveUp: a call ends with its context, and nothing is written to its values afterwards.
func TestCallersGiveUp(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	c := client(t, Options{Timeout: 5 * time.Second}, s)
	id := idOf("a")
	store(t, c, map[ID][]byte{id: []byte("value")})
	s.Pause(t)
	ctx, cancel := context.WithCancel(t.Context())
	values := make([][]byte, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.GetMulti(ctx, []ID{id}, values)
	}()
	eventually(t, func() bool { return len(c.turns) == 1 })
	cancel()
	<-done
	values[0] = nil // the race detector reports a concurrent write
	s.Resume(t)
	eventually(t, func() bool { return len(c.turns) == 0 })
	if values[0] != nil {
		t.Errorf("a value came after the end: %q", values[0])
	}
	// The connection can still be used.
	if v := get(t, c, id); string(v) != "value" {
		t.Errorf("got %q", v)
	}
	c.GetMulti(ctx, []ID{id}, values)
	if values[0] != nil {
		t.Error("a call whose context had ended found a value")
	}
}

// TestWaitingForATurnEnds: a call that gets no turn is a miss at its deadline, and does not count
// against the server.
func TestWaitingForATurnEnds(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	id := idOf("a")
	store(t, client(t, Options{}, s), map[ID][]byte{id: []byte("value")})
	c := client(t, Options{MaxGetMultiConcurrency: 1, Timeout: 30 * time.Millisecond}, s)
	c.turns <- struct{}{}
	began := time.Now()
	if v := get(t, c, id); v != nil {
		t.Errorf("got %q without a turn", v)
	}
	if d := time.Since(began); d < 30*time.Millisecond || d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	eventually(t, func() bool { return c.Stats().Skipped == 1 })
	if st := c.Stats(); st.ReadsOpen != 0 {
		t.Errorf("got %+v", st)
	}
	<-c.turns
	eventually(t, func() bool { return get(t, c, id) != nil })
}

// TestReadDeadline: the read deadline follows the bucket's answer time, within bounds.
func TestReadDeadline(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	var firstByte time.Duration
	c := client(t, Options{Timeout: 5 * time.Second, MinReadTimeout: 20 * time.Millisecond,
		FirstByte: func() time.Duration { return firstByte }}, s)
	f := func(first, want time.Duration) {
		t.Helper()
		firstByte = first
		if got := c.Stats().ReadDeadline; got != want {
			t.Errorf("bucket answers in %v: read deadline %v, want %v", first, got, want)
		}
	}
	f(0, 5*time.Second)
	f(time.Millisecond, 20*time.Millisecond)
	f(90*time.Millisecond, 90*time.Millisecond)
	f(time.Minute, 5*time.Second)

	firstByte = 40 * time.Millisecond
	s.Pause(t)
	began := time.Now()
	get(t, c, idOf("a"))
	if d := time.Since(began); d < 40*time.Millisecond || d > 2*time.Second {
		t.Errorf("a call took %v with a deadline of 40ms", d)
	}
	s.Resume(t)
}

func TestDroppedWrites(t *testing.T) {
	f := func(
		name string, o Options, prepare func(*memcachedtest.Server), values [][]byte,
		want Dropped,
	) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			s := memcachedtest.Start(t, memcachedtest.Options{})
			o.Timeout = 10 * time.Second
			c := client(t, o, s)
			prepare(s)
			for i, v := range values {
				c.Set(idOf(strconv.Itoa(i)), v)
			}
			s.Resume(t)
			settle(t, c)
			if got := c.Stats().Dropped; got != want {
				t.Errorf("dropped %+v, want %+v", got, want)
			}
		})
	}
	pause := func(s *memcachedtest.Server) { s.Pause(t) }
	nothing := func(*memcachedtest.Server) {}
	v := func(n int) []byte { return make([]byte, n) }
	f("too many", Options{MaxAsyncBufferSize: 2}, pause, [][]byte{v(1), v(1), v(1), v(1)},
		Dropped{Full: 2})
	f("too much", Options{MaxAsyncBufferBytes: 250}, pause, [][]byte{v(100), v(100), v(100), v(50)},
		Dropped{Full: 1})
	f("too large for the client", Options{MaxItemSize: 100}, nothing, [][]byte{v(100), v(101)},
		Dropped{TooLarge: 1})
	f("too large for memcached", Options{MaxItemSize: 4 << 20}, nothing,
		[][]byte{v(100), v(2 << 20)}, Dropped{TooLarge: 1})
}

func TestDeletesAreNotDroppedForValues(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	c := client(t, Options{MaxAsyncBufferSize: 2, Timeout: 10 * time.Second}, s)
	id := idOf("bad")
	store(t, c, map[ID][]byte{id: []byte("bad")})
	s.Pause(t)
	c.Set(idOf("1"), []byte("1"))
	c.Set(idOf("2"), []byte("2"))
	c.Delete(id)
	s.Resume(t)
	settle(t, c)
	if v := get(t, c, id); v != nil {
		t.Errorf("got %q", v)
	}
}

// TestWritesToADeadServerEnd: the breaker of writes opens, and writes are dropped without being
// tried.
func TestWritesToADeadServerEnd(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	f := func(o BreakerOptions, open bool) {
		t.Helper()
		c := client(t, Options{Name: fmt.Sprint(open), Breaker: o}, s)
		for i := range 500 {
			c.Set(idOf(strconv.Itoa(i)), []byte("v"))
		}
		settle(t, c)
		st := c.Stats()
		if st.Dropped.Failed+st.Dropped.BreakerOpen != 500 {
			t.Errorf("dropped %+v of 500", st.Dropped)
		}
		if open != (st.Dropped.BreakerOpen > 300) || open != (st.WritesOpen == 1) {
			t.Errorf("breaker %v: dropped %+v, open %d", open, st.Dropped, st.WritesOpen)
		}
	}
	s.Kill()
	f(BreakerOptions{}, true)
	f(BreakerOptions{Disabled: true}, false)
}

func TestAfterCloseEverythingIsAMiss(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	c := client(t, Options{}, s)
	id := idOf("a")
	store(t, c, map[ID][]byte{id: []byte("value")})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for j := range 20 {
				get(t, c, id)
				c.Set(idOf(fmt.Sprint(i, j)), []byte("v"))
			}
		})
	}
	c.Close()
	all.Wait()
	c.Close()
	if v := get(t, c, id); v != nil {
		t.Errorf("got %q", v)
	}
	c.Set(id, []byte("other"))
	c.Delete(id)
	if st := c.Stats(); st.Pending != 0 {
		t.Errorf("%d pending", st.Pending)
	}
}

// TestCloseEndsWithAHangingServer: Close drops what cannot be written.
func TestCloseEndsWithAHangingServer(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	// Disable the breaker, which would drop most writes before Close does.
	c := client(t, Options{MaxAsyncConcurrency: 1, Timeout: 200 * time.Millisecond,
		Breaker: BreakerOptions{Disabled: true}}, s)
	s.Pause(t)
	for i := range 100 {
		c.Set(idOf(strconv.Itoa(i)), []byte("v"))
	}
	c.Close()
	// Close would wait 20 seconds if every write timed out.
	if d := c.Stats().Dropped; d.Full+d.Failed != 100 || d.Full == 0 {
		t.Errorf("dropped %+v of 100", d)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	f := func(o Options, want string) {
		t.Helper()
		_, err := New(o)
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	f(Options{}, "no addresses")
	f(Options{Addresses: []string{"host"}}, "no port")
	f(Options{Addresses: []string{"dns+host"}}, "no port")
	f(Options{Addresses: []string{"dnsdualstack+host"}}, "no port")
	f(Options{Addresses: []string{"srv+host:1"}}, `unknown prefix "srv"`)
	f(Options{Addresses: []string{"dnssrv+"}}, "no host")
	f(Options{Addresses: []string{" \t"}}, "no host")
	for _, prefix := range []string{"", "dns+", "dnsdualstack+", "dnssrv+", "dnssrvnoa+"} {
		for _, port := range []string{"abc", "99999", "65536", "0", "-1", " 11211"} {
			f(Options{Addresses: []string{"good:1", prefix + "host:" + port}},
				fmt.Sprintf("address %q: port %q is neither", prefix+"host:"+port, port))
		}
		tooLong := strings.Repeat("a", 64)
		for _, host := range []string{"a host", "a..b", "http//host", "*", tooLong} {
			f(Options{Addresses: []string{prefix + host + ":1"}},
				fmt.Sprintf("address %q: %q is no host name", prefix+host+":1", host))
		}
	}
	more := []string{"user@host:1", "dns+user:password@host:1", "host:1?a=b", "host:1#a"}
	for _, text := range more {
		f(Options{Addresses: []string{text}}, "has a user, a password or a query")
	}
	f(Options{Addresses: []string{"dnssrv+10.0.0.1"}},
		"10.0.0.1 is an address, which has no SRV records")
	f(Options{Addresses: []string{"h:1"}, Namespace: "a b"}, "blank")
	f(Options{Addresses: []string{"h:1"}, Namespace: string(bytes.Repeat([]byte("n"), 208))},
		"251 bytes")
	f(Options{Addresses: []string{"h:1"}, Breaker: BreakerOptions{FailurePercent: 5}},
		"failure percent 5")
}

func TestExpiration(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	f := func(ttl time.Duration, want int32) {
		t.Helper()
		if got := expiration(ttl, now); got != want {
			t.Errorf("%v: got %d, want %d", ttl, got, want)
		}
	}
	f(time.Millisecond, 1)
	f(time.Hour, 3600)
	f(30*24*time.Hour, 30*24*3600)
	f(31*24*time.Hour, 1_700_000_000+31*24*3600)
	now = time.Unix(1<<31-3600, 0)
	f(31*24*time.Hour, 30*24*3600) // memcached's clock cannot represent it
}
