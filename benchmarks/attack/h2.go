package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// frameBytes is the largest frame that a server accepts without negotiation.
const frameBytes = 16 << 10

// conn is an HTTP/2 connection on which the attacker writes every frame itself.
type conn struct {
	net net.Conn

	wmu    sync.Mutex // orders frames, see doc.go
	out    *bufio.Writer
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	next   uint32 // id of the next stream

	mu       sync.Mutex // guards the fields below
	changed  *sync.Cond
	window   int64            // bytes that the server accepts on the connection
	windows  map[uint32]int64 // the same for each open stream
	initial  int64
	open     int            // streams that the server has not ended
	answers  map[string]int // how the other streams ended
	received int64          // bytes of answers
	err      error          // why the connection has failed

	// unread stops the client from opening its window: the server may send 64 KiB and no more.
	unread bool
}

// connect opens a connection from an address. It fails only if larder does not listen.
func (t *target) connect(ctx context.Context, from string, unread bool) (*conn, error) {
	nc, err := dialer(from).DialContext(ctx, "tcp", t.larder.GRPC)
	if err != nil {
		return nil, err
	}
	c := &conn{net: nc, out: bufio.NewWriterSize(nc, 64<<10), next: 1, window: 65535,
		initial: 65535,
		windows: map[uint32]int64{}, answers: map[string]int{}, unread: unread}
	c.changed = sync.NewCond(&c.mu)
	c.framer = http2.NewFramer(c.out, bufio.NewReaderSize(nc, 64<<10))
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.block)
	if _, err = c.out.WriteString(http2.ClientPreface); err == nil {
		err = c.write(true, func() error { return c.framer.WriteSettings() })
	}
	if err != nil {
		// Larder accepts no more connections of this client. The next use of it returns the error.
		c.fail(err)
	}
	go c.read()
	return c, nil
}

// write writes frames. If now is true, it flushes them at once.
func (c *conn) write(now bool, frames func() error) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	err := frames()
	if err == nil && now {
		err = c.out.Flush()
	}
	return err
}

// headers starts a request and returns its id.
func (c *conn) headers(now bool, method string, more ...string) (id uint32, err error) {
	return id, c.write(now, func() error {
		id = c.next
		if err := c.begin(id); err != nil {
			return err
		}
		c.next += 2
		c.block.Reset()
		fields := append([]string{":method", "POST", ":scheme", "http", ":path", method,
			":authority", "larder",
			"content-type", "application/grpc", "te", "trailers"}, more...)
		for i := 0; i+1 < len(fields); i += 2 {
			if err := c.enc.WriteField(hpack.HeaderField{Name: fields[i],
				Value: fields[i+1]}); err != nil {
				return err
			}
		}
		return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id,
			BlockFragment: c.block.Bytes(), EndHeaders: true})
	})
}

// begin records the start of a request.
func (c *conn) begin(id uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.open++
		c.windows[id] = c.initial
	}
	return c.err
}

// reset cancels a request.
func (c *conn) reset(now bool, id uint32) error {
	c.mu.Lock()
	c.ended(id, "reset by the client")
	c.mu.Unlock()
	return c.write(now, func() error { return c.framer.WriteRSTStream(id, http2.ErrCodeCancel) })
}

// message returns a grpc message with its prefix of five bytes.
func message(payload []byte, compressed bool) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(payload)))
	if compressed {
		b[0] = 1
	}
	return append(b, payload...)
}

// data sends bytes of a request as far as the server's windows allow; last ends the request.
func (c *conn) data(id uint32, b []byte, last bool) error {
	for first := true; first || len(b) > 0; first = false {
		n, err := c.take(id, min(len(b), frameBytes))
		if err != nil {
			return err
		}
		piece := b[:n]
		b = b[n:]
		if err := c.write(true, func() error {
			return c.framer.WriteData(id, last && len(b) == 0, piece)
		}); err != nil {
			return err
		}
	}
	return nil
}

var errStreamEnded = errors.New("the server ended the request")

// take waits until the server accepts some of n bytes.
func (c *conn) take(id uint32, n int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		w, ok := c.windows[id]
		switch {
		case c.err != nil:
			return 0, c.err
		case !ok:
			return 0, errStreamEnded
		case n == 0:
			return 0, nil
		case w > 0 && c.window > 0:
			n = int(min(int64(n), w, c.window))
			c.window -= int64(n)
			c.windows[id] -= int64(n)
			return n, nil
		}
		c.changed.Wait()
	}
}

// ended records how a request ended. The caller holds mu.
func (c *conn) ended(id uint32, how string) {
	if _, ok := c.windows[id]; ok {
		delete(c.windows, id)
		c.open--
		c.answers[how]++
	}
	c.changed.Broadcast()
}

// read reads what the server sends until the connection ends.
func (c *conn) read() {
	for {
		f, err := c.framer.ReadFrame()
		if err == nil {
			err = c.frame(f)
		}
		var badStream http2.StreamError
		if err != nil && !errors.As(err, &badStream) {
			c.fail(err)
			return
		}
	}
}

// fail ends the connection.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	for id := range c.windows {
		c.ended(id, "connection closed")
	}
	c.changed.Broadcast()
}

func (c *conn) frame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		if w, ok := f.Value(http2.SettingInitialWindowSize); ok {
			c.mu.Lock()
			for id := range c.windows {
				c.windows[id] += int64(w) - c.initial
			}
			c.initial = int64(w)
			c.changed.Broadcast()
			c.mu.Unlock()
		}
		return c.write(true, c.framer.WriteSettingsAck)
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		return c.write(true, func() error { return c.framer.WritePing(true, f.Data) })
	case *http2.WindowUpdateFrame:
		c.mu.Lock()
		if f.StreamID == 0 {
			c.window += int64(f.Increment)
		} else if _, ok := c.windows[f.StreamID]; ok {
			c.windows[f.StreamID] += int64(f.Increment)
		}
		c.changed.Broadcast()
		c.mu.Unlock()
	case *http2.DataFrame:
		return c.answer(f)
	case *http2.MetaHeadersFrame:
		if !f.StreamEnded() {
			return nil
		}
		how := "status missing"
		for _, h := range f.Fields {
			if h.Name == "grpc-status" {
				how = codeName(h.Value)
			}
		}
		c.mu.Lock()
		c.ended(f.StreamID, how)
		c.mu.Unlock()
	case *http2.RSTStreamFrame:
		c.mu.Lock()
		c.ended(f.StreamID, "reset: "+f.ErrCode.String())
		c.mu.Unlock()
	}
	return nil
}

// codeName returns the name of a grpc status.
func codeName(text string) string {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return "status " + strconv.Quote(text)
	}
	return codes.Code(n).String()
}

// answer processes a piece of an answer.
func (c *conn) answer(f *http2.DataFrame) error {
	n := len(f.Data())
	c.mu.Lock()
	c.received += int64(n)
	c.mu.Unlock()
	if c.unread || n == 0 {
		return nil
	}
	return c.write(true, func() error {
		if err := c.framer.WriteWindowUpdate(0, uint32(n)); err != nil || f.StreamEnded() {
			return err
		}
		return c.framer.WriteWindowUpdate(f.StreamID, uint32(n))
	})
}

// wait waits until the server has ended all requests, or ctx ends.
func (c *conn) wait(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.open > 0 && c.err == nil && ctx.Err() == nil {
		c.changed.Wait()
	}
}

// close closes the connection. A nil connection is closed.
func (c *conn) close() {
	if c == nil {
		return
	}
	_ = c.net.Close() // the server may have closed it
	c.fail(net.ErrClosed)
}

// tally counts how requests ended.
type tally map[string]int

func (t tally) add(c *conn) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for how, n := range c.answers {
		t[how] += n
	}
	if c.open > 0 {
		t["still open"] += c.open
	}
}

func (t tally) String() string {
	var out []string
	for _, how := range slices.Sorted(maps.Keys(t)) {
		out = append(out, fmt.Sprintf("%d %s", t[how], how))
	}
	return strings.Join(out, ", ")
}
