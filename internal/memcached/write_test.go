package memcached

import (
	"bufio"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestHangingServerDoesNotBlockWriters: all servers share the workers. A server that hangs is given
// up, however long a write may take and however few workers there are, and the values of the other
// server are stored.
func TestHangingServerDoesNotBlockWriters(t *testing.T) {
	f := func(timeout time.Duration, writers int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			c, err := New(Options{Addresses: []string{"well:1", "hangs:1"}, Timeout: timeout,
				MaxAsyncConcurrency: writers, MaxAsyncBufferSize: 10})
			if err != nil {
				t.Fatal(err)
			}
			servers := c.ring.Load()
			var mu sync.Mutex
			var ends []net.Conn // guarded by mu
			for _, s := range servers.servers {
				s.writes.dial = func(context.Context) (net.Conn, error) {
					near, far := net.Pipe()
					mu.Lock()
					defer mu.Unlock()
					ends = append(ends, far)
					if s.addr.addr == "well:1" {
						go takeAll(far)
					}
					return near, nil
				}
			}
			toWell := 0
			for i := range 1200 { // for ten minutes
				id := idOf(strconv.Itoa(i))
				if servers.servers[servers.pick(&id)].addr.addr == "well:1" {
					toWell++
				}
				c.Set(id, []byte("value"))
				time.Sleep(500 * time.Millisecond)
			}
			c.Close()
			for _, end := range ends {
				end.Close()
			}
			// The writes that find out that the server hangs, then one per period.
			most := int64(2*writers) + int64(10*time.Minute/(c.o.Breaker.OpenDuration+timeout))
			if st := c.Stats(); st.Written < int64(toWell*9/10) || st.Dropped.Failed > most {
				t.Errorf(
					"timeout %v, %d writers: %d of %d values were stored on the healthy server; %+v",
					timeout, writers, st.Written, toWell, st,
				)
			}
		})
	}
	const second = time.Second
	for _, timeout := range []time.Duration{second / 2, 4 * second, 5 * second, 10 * second} {
		f(timeout, 20)
		f(timeout, 2)
	}
}

// takeAll is a server that stores every value.
func takeAll(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		f := strings.Fields(line)
		n, err := strconv.Atoi(f[len(f)-1])
		if err != nil {
			return
		}
		if _, err := r.Discard(n + len("\r\n")); err != nil {
			return
		}
		if _, err := io.WriteString(c, "STORED\r\n"); err != nil {
			return
		}
	}
}
