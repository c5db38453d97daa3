package memcached

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/memcached/memcachedtest"
)

// answer returns what a healthy server sends for a value.
func answer(key string, stored []byte) string {
	return fmt.Sprintf("VALUE %s 0 %d 1\r\n%s\r\n", key, len(stored), stored)
}

// TestLyingServers: whatever a server answers, a look-up returns the stored value or a miss, within
// its deadline.
func TestLyingServers(t *testing.T) {
	ids := []ID{idOf("0"), idOf("1"), idOf("2")}
	sealed := make([][]byte, len(ids))
	for i := range ids {
		sealed[i] = appendEnvelope(nil, &ids[i], []byte(fmt.Sprintf("value %d", i)))
	}
	broken := func(i, at int, flip byte) []byte {
		b := bytes.Clone(sealed[i])
		b[at] ^= flip
		return b
	}
	const hit = "value 0,value 1,value 2"
	// f requests three values repeatedly. want is what the first call finds; timeouts says whether
	// it waits until its deadline.
	f := func(name, want string, timeouts bool, reply func(keys []string) string) {
		t.Helper()
		serve := func(c net.Conn, r *bufio.Reader) {
			for {
				keys := request(r)
				if len(keys) != len(ids) {
					return
				}
				if _, err := io.WriteString(c, reply(keys)); err != nil {
					return
				}
			}
		}
		ask := func(t *testing.T, c *Client) {
			for call := range 20 {
				values := make([][]byte, len(ids))
				c.GetMulti(t.Context(), ids, values)
				got := string(bytes.Join(values, []byte(",")))
				if call == 0 && got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if n := c.Stats().TimedOut; call == 0 && timeouts != (n == 1) {
					t.Errorf("%d calls waited until their deadline", n)
				}
				for i, v := range values {
					if v != nil && string(v) != fmt.Sprintf("value %d", i) {
						t.Errorf("value %d is %q", i, v)
					}
				}
			}
			// On a slow machine the calls may take so long that the breaker allows probes.
			_, opened := c.ring.Load().servers[0].readBreaker.now()
			if st := c.Stats(); st.Failed > maxStrikes+max(opened-1, 0) {
				t.Errorf("it failed %d times, and the breaker opened %d times", st.Failed, opened)
			}
		}
		t.Run(name, func(t *testing.T) {
			if !timeouts {
				ask(
					t, client(
						t, Options{Addresses: []string{lying(t, serve)}, Timeout: 5 * time.Second}))
				return
			}
			// On a loaded machine a call may return at its deadline before a value that has arrived
			// is handed over. Fake time avoids that.
			synctest.Test(t, func(t *testing.T) {
				var server sync.WaitGroup
				defer server.Wait()
				c, err := New(
					Options{Addresses: []string{"lies:1"}, Timeout: 200 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.ring.Load().servers[0].reads.dial = func(context.Context) (net.Conn, error) {
					near, far := net.Pipe()
					server.Go(func() { serve(far, bufio.NewReader(far)) })
					return near, nil
				}
				ask(t, c)
			})
		})
	}
	good := func(keys []string, which ...int) (s string) {
		for _, i := range which {
			s += answer(keys[i], sealed[i])
		}
		return s
	}
	f("truth", hit, false, func(k []string) string { return good(k, 0, 1, 2) + "END\r\n" })
	f("another order", hit, false, func(k []string) string { return good(k, 2, 0, 1) + "END\r\n" })
	f("nothing found", ",,", false, func([]string) string { return "END\r\n" })

	f("garbage", ",,", false, func([]string) string { return "HTTP/1.1 400 Bad Request\r\n\r\n" })
	f("garbage without lines", ",,", false,
		func([]string) string { return strings.Repeat("x", 100_000) })
	f("an error", ",,", false,
		func([]string) string { return "SERVER_ERROR out of memory writing get response\r\n" })
	f("garbage after a value", "value 0,,", false,
		func(k []string) string { return good(k, 0) + "garbage\r\n" })
	f("a huge value", "value 0,,", false, func(k []string) string {
		return good(k, 0) + "VALUE " + k[1] + " 0 1099511627776 1\r\n"
	})
	f("the largest value that gomemcache takes", ",,", false,
		func(k []string) string { return "VALUE " + k[1] + " 0 4294967295 1\r\n" })
	f("a negative size", ",,", false,
		func(k []string) string { return "VALUE " + k[1] + " 0 -1 1\r\n" })
	f("no size", ",,", false, func(k []string) string { return "VALUE " + k[1] + "\r\n" })
	f("a size that is too small", ",,", false,
		func(k []string) string {
			return "VALUE " + k[0] + " 0 4 1\r\n" + string(sealed[0]) +
				"\r\nEND\r\n"
		})
	f("a key that was not asked for", ",,", false,
		func([]string) string { return answer("larder:other", sealed[0]) + "END\r\n" })
	f("a key twice", "value 0,,", false,
		func(k []string) string { return good(k, 0, 0, 1, 2) + "END\r\n" })
	f("half a reply, then silence", "value 0,,", true, func(k []string) string {
		return good(k, 0) + answer(k[1], sealed[1])[:60]
	})
	f("most of a reply, then silence", "value 0,value 1,", true,
		func(k []string) string { return good(k, 0, 1) })
	f("silence", ",,", true, func([]string) string { return "" })
	f("more than was asked for", hit, false,
		func(k []string) string { return good(k, 0, 1, 2) + "END\r\n" + good(k, 0) + "END\r\n" })

	f("values of other keys", "value 0,,", false, func(k []string) string {
		return good(k, 0) + answer(k[1], sealed[2]) + answer(k[2], sealed[1]) + "END\r\n"
	})
	f("a flipped bit in the value", "value 0,,value 2", false, func(k []string) string {
		return good(k, 0) + answer(k[1], broken(1, len(sealed[1])-1, 4)) + good(k, 2) + "END\r\n"
	})
	f("a flipped bit in the identity", "value 0,,value 2", false, func(k []string) string {
		return good(k, 0) + answer(k[1], broken(1, 10, 1)) + good(k, 2) + "END\r\n"
	})
	f("another version", "value 0,,value 2", false, func(k []string) string {
		return good(k, 0) + answer(k[1], broken(1, 0, 3)) + good(k, 2) + "END\r\n"
	})
	f("a value without envelope", "value 0,,value 2", false, func(k []string) string {
		return good(k, 0) + answer(k[1], []byte("value 1")) + good(k, 2) + "END\r\n"
	})
}

// TestSlowItemsStayWithinTheDeadline: gomemcache renews its deadline with every value; the deadline
// of a call covers all of them.
func TestSlowItemsStayWithinTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout, each = 200 * time.Millisecond, 60 * time.Millisecond
		var server sync.WaitGroup
		defer server.Wait()
		c, err := New(Options{Addresses: []string{"slow:1"}, Timeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.ring.Load().servers[0].reads.dial = func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			server.Go(func() {
				for i, k := range request(bufio.NewReader(far)) {
					time.Sleep(each)
					id := idOf(fmt.Sprint(i))
					reply := answer(k, appendEnvelope(nil, &id, []byte("v")))
					if _, err := io.WriteString(far, reply); err != nil {
						return
					}
				}
			})
			return near, nil
		}
		var ids []ID
		for i := range 20 {
			ids = append(ids, idOf(fmt.Sprint(i)))
		}
		values := make([][]byte, len(ids))
		began := time.Now()
		c.GetMulti(t.Context(), ids, values)
		if d := time.Since(began); d != timeout {
			t.Errorf("20 values, each %v late, took %v with a deadline of %v", each, d, timeout)
		}
		found := 0
		for _, v := range values {
			if v != nil {
				found++
			}
		}
		if found != int(timeout/each) {
			t.Errorf("found %d, want those that came in time", found)
		}
		if st := c.Stats(); st.ReadsOpen != 1 {
			t.Errorf("a server that is too slow was asked again: %+v", st)
		}
	})
}

// TestHugeAnnouncementsAllocateNothing: no memory is allocated for announced values of the maximum
// size before they arrive.
func TestHugeAnnouncementsAllocateNothing(t *testing.T) {
	addr := lying(t, func(c net.Conn, r *bufio.Reader) {
		for {
			keys := request(r)
			if keys == nil {
				return
			}
			fmt.Fprintf(c, "VALUE %s 0 3000000000 1\r\n", keys[0])
		}
	})
	c := client(t, Options{Addresses: []string{addr}})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		get(t, c, idOf("a"))
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
	if st := c.Stats(); st.Failed == 0 {
		t.Errorf("got %+v", st)
	}
}

// TestSlowProxy puts a proxy before memcached that delays every answer, at first too long, then
// not.
func TestSlowProxy(t *testing.T) {
	s := memcachedtest.Start(t, memcachedtest.Options{})
	var delay atomic.Int64
	done := make(chan struct{})
	addr := lying(t, func(c net.Conn, r *bufio.Reader) {
		up, err := net.Dial("tcp", s.Addr)
		if err != nil {
			return
		}
		defer up.Close()
		go func() {
			_, _ = io.Copy(up, r)
			up.Close()
		}()
		buf := make([]byte, 64<<10)
		for {
			n, err := up.Read(buf)
			if err != nil {
				return
			}
			late := time.NewTimer(time.Duration(delay.Load()))
			select {
			case <-late.C:
			case <-done:
				return
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	defer close(done)
	c := client(t, Options{Addresses: []string{addr}, Timeout: time.Second,
		FirstByte: func() time.Duration { return 50 * time.Millisecond }})
	id := idOf("a")
	store(t, c, map[ID][]byte{id: []byte("value")})
	delay.Store(int64(200 * time.Millisecond))
	before := c.Stats().TimedOut
	for range 50 {
		if v := get(t, c, id); v != nil {
			t.Errorf("got %q in time", v)
		}
	}
	// One, and one for each period that this takes.
	if n := c.Stats().TimedOut - before; n < 1 || n > 10 {
		t.Errorf("%d of 50 calls waited for a slow server", n)
	}
	delay.Store(0)
	eventually(t, func() bool { return string(get(t, c, id)) == "value" })
}

// TestAcceptedAndClosed: a server accepts connections and closes each of them.
func TestAcceptedAndClosed(t *testing.T) {
	var conns atomic.Int64
	addr := lying(t, func(net.Conn, *bufio.Reader) { conns.Add(1) })
	c := client(t, Options{Addresses: []string{addr}})
	for range 100 {
		get(t, c, idOf("a"))
	}
	if n := conns.Load(); n > 3 {
		t.Errorf("it was tried %d times", n)
	}
}
