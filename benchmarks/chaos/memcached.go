package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"os/user"
	"sync"
	"syscall"
	"time"

	"larder/benchmarks/process"
	"larder/internal/loopback"
)

// cache is a memcached behind a relay that can change its answers.
type cache struct {
	*process.Child
	addr  string // of memcached itself
	relay *relay
}

func startCache(ctx context.Context, r *rand.Rand) (*cache, error) {
	ports, err := loopback.Reserve(1)
	if err != nil {
		return nil, err
	}
	c := &cache{addr: ports[0]}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	if c.relay, err = newRelay(c.addr, r); err != nil {
		c.Kill()
		return nil, err
	}
	return c, nil
}

// start runs memcached, empty.
func (c *cache) start(ctx context.Context) error {
	bin, err := exec.LookPath("memcached")
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(c.addr)
	if err != nil {
		return err
	}
	args := []string{"-l", host, "-p", port, "-U", "0", "-m", "64"}
	if u, err := user.Current(); err == nil && u.Uid == "0" {
		args = append(args, "-u", u.Username)
	}
	if c.Child, err = process.Start(process.Options{Name: "memcached"}, bin, args...); err != nil {
		return err
	}
	return c.Wait(ctx, func(ctx context.Context) bool {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", c.addr)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

func (c *cache) close() {
	c.Signal(syscall.SIGCONT)
	c.Kill()
	c.relay.close()
}

// relayMode is what the relay does with memcached's answers.
type relayMode int

const (
	relayPasses relayMode = iota
	// relayFlips flips a bit now and then.
	relayFlips
	// relayGarbage answers with random bytes.
	relayGarbage
	// relayCuts closes the connection in the middle of an answer.
	relayCuts
)

// relay forwards between larder and memcached.
type relay struct {
	l      net.Listener
	target string
	wg     sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	mode  relayMode
	r     *rand.Rand
	hits  int // answers that were changed
	conns map[net.Conn]struct{}
}

func newRelay(target string, r *rand.Rand) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	y := &relay{l: l, target: target, r: r, conns: map[net.Conn]struct{}{}}
	y.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			y.wg.Go(func() { y.serve(c) })
		}
	})
	return y, nil
}

func (y *relay) addr() string { return y.l.Addr().String() }

// set changes the mode, and returns how many answers the last mode has changed.
func (y *relay) set(m relayMode) (hits int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	hits, y.hits = y.hits, 0
	y.mode = m
	return hits
}

func (y *relay) close() {
	y.l.Close()
	y.mu.Lock()
	for c := range y.conns {
		c.Close()
	}
	y.mu.Unlock()
	y.wg.Wait()
}

func (y *relay) track(c net.Conn, open bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if open {
		y.conns[c] = struct{}{}
	} else {
		delete(y.conns, c)
	}
}

func (y *relay) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", y.target)
	if err != nil {
		return
	}
	defer server.Close()
	for _, c := range []net.Conn{client, server} {
		y.track(c, true)
		defer y.track(c, false)
	}
	y.wg.Go(func() {
		_, _ = io.Copy(server, client) // ends when either side does
		server.Close()
	})
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		if n > 0 {
			part, whole := y.spoil(buf[:n])
			if _, err := client.Write(part); err != nil || !whole {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// spoil changes memcached's answer according to the mode.
func (y *relay) spoil(b []byte) (part []byte, whole bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.mode == relayPasses || y.r.IntN(3) > 0 {
		return b, true
	}
	y.hits++
	switch y.mode {
	case relayGarbage:
		for i := range b {
			b[i] = byte(y.r.Uint32())
		}
	case relayCuts:
		return b[:y.r.IntN(len(b))], false
	default:
		b[y.r.IntN(len(b))] ^= 1 << y.r.IntN(8)
	}
	return b, true
}

// flush makes memcached drop all values. A dead memcached has none.
func (c *cache) flush() error {
	conn, err := net.DialTimeout("tcp", c.addr, time.Second)
	if err != nil {
		return nil
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "flush_all\r\n"); err != nil {
		return err
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("memcached: flush_all: %w", err)
	}
	return nil
}

// stop makes memcached hang, and resume ends that.
func (c *cache) stop()   { c.Signal(syscall.SIGSTOP) }
func (c *cache) resume() { c.Signal(syscall.SIGCONT) }
