package memcachedtest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Liar is a memcached in the test's process that can change its answers. It knows the commands that
// the client sends.
type Liar struct {
	Addr string

	mu     sync.Mutex // guards the fields below
	values map[string][]byte
	answer func(key string, value []byte) []byte
	conns  []net.Conn
}

// StartLiar runs a Liar until the test ends.
func StartLiar(t testing.TB) *Liar {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Liar{Addr: l.Addr().String(), values: map[string][]byte{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			running.Go(func() {
				defer c.Close()
				s.serve(bufio.NewReader(c), c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		running.Wait()
	})
	return s
}

// Answer makes the server send f's result for each value; nil restores the stored values. f must
// not write to value.
func (s *Liar) Answer(f func(key string, value []byte) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// Values returns the stored values in their wire form.
func (s *Liar) Values() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string][]byte{}
	for k, v := range s.values {
		out[k] = v
	}
	return out
}

// serve answers one connection until it ends.
func (s *Liar) serve(r *bufio.Reader, w io.Writer) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		f := strings.Fields(line)
		reply := "ERROR\r\n"
		switch {
		case len(f) >= 5 && f[0] == "set":
			n, err := strconv.Atoi(f[4])
			if err != nil {
				return
			}
			value := make([]byte, n+2)
			if _, err := io.ReadFull(r, value); err != nil {
				return
			}
			s.mu.Lock()
			s.values[f[1]] = value[:n:n]
			s.mu.Unlock()
			reply = "STORED\r\n"
		case len(f) >= 2 && f[0] == "gets":
			reply = s.get(f[1:]) + "END\r\n"
		case len(f) == 2 && f[0] == "delete":
			s.mu.Lock()
			delete(s.values, f[1])
			s.mu.Unlock()
			reply = "DELETED\r\n"
		case len(f) == 1 && f[0] == "version":
			reply = "VERSION 1\r\n"
		}
		if _, err := io.WriteString(w, reply); err != nil {
			return
		}
	}
}

func (s *Liar) get(keys []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, k := range keys {
		v, ok := s.values[k]
		if !ok {
			continue
		}
		if s.answer != nil {
			v = s.answer(k, v)
		}
		fmt.Fprintf(&b, "VALUE %s 0 %d 1\r\n%s\r\n", k, len(v), v)
	}
	return b.String()
}
