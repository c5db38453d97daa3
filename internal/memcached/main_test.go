package memcached

import (
	"bufio"
	"crypto/sha256"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"larder/internal/memcached/memcachedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func idOf(s string) ID { return sha256.Sum256([]byte(s)) }

// client returns a client of the servers. It is closed when the test ends.
func client(t testing.TB, o Options, servers ...*memcachedtest.Server) *Client {
	t.Helper()
	for _, s := range servers {
		o.Addresses = append(o.Addresses, s.Addr)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// get requests one value.
func get(t testing.TB, c *Client, id ID) []byte {
	t.Helper()
	values := make([][]byte, 1)
	c.GetMulti(t.Context(), []ID{id}, values)
	return values[0]
}

// store sets values and waits until they are written or dropped.
func store(t testing.TB, c *Client, values map[ID][]byte) {
	t.Helper()
	for id, v := range values {
		c.Set(id, v)
	}
	settle(t, c)
}

// settle waits until nothing is pending.
func settle(t testing.TB, c *Client) {
	t.Helper()
	eventually(t, func() bool { return c.Stats().Pending == 0 })
}

// eventually waits for a condition that other processes bring about.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the condition did not come true in time")
		}
	}
}

// lying starts a server that calls handle for each connection, until the test ends.
func lying(t testing.TB, handle func(c net.Conn, r *bufio.Reader)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			running.Go(func() {
				defer c.Close()
				handle(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().String()
}

// request reads the keys of a `gets` command; none if the connection has ended.
func request(r *bufio.Reader) []string {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil
	}
	return strings.Fields(line)[1:]
}
