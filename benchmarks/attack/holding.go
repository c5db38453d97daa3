package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// holdingAttacks exhaust scarce resources of larder with few requests: answers that grpc keeps
// after their handlers have returned, the account of request messages, places at the gate, and
// connections.
func holdingAttacks() []attack {
	return []attack{
		{name: "unread-checks", run: runUnreadChecks},
		{name: "unread-answers", run: runUnreadAnswers},
		{name: "unread-reflection", run: runUnreadReflection},
		{name: "small-messages", run: runSmallMessages},
		{name: "gate-places", run: runGatePlaces},
		{name: "connections", run: runConnections},
	}
}

// perConn is the number of requests per connection: almost as many as larder allows.
const perConn = 990

// unread sends requests on many connections of one address and does not read the answers. begin
// sends one request.
func unread(
	ctx context.Context, t *target, before func(*conn) error, begin func(*conn) error,
) (sent int, ended tally, err error) {
	var all []*conn
	defer func() {
		for _, c := range all {
			c.close()
		}
	}()
	for range t.n(20, 3) {
		c, err := t.connect(ctx, attacker(0), true)
		if err != nil || t.larder.Ended() {
			break
		}
		all = append(all, c)
		if before != nil {
			_ = before(c) // the next use of the connection fails if it has ended
		}
		for i := range perConn {
			if begin(c) != nil {
				break // larder has closed the connection
			}
			// Send slowly enough for each to be answered, because larder would count the others as
			// open.
			if sent++; i%20 == 19 && !pause(ctx, 10*time.Millisecond) {
				return sent, ended, ctx.Err()
			}
		}
	}
	pause(ctx, time.Second)
	ended = tally{}
	for _, c := range all {
		ended.add(c)
	}
	return sent, ended, nil
}

// runUnreadChecks blocks every answer with a window of zero. Each request has metadata that is
// small on the wire and large in the process.
func runUnreadChecks(ctx context.Context, t *target) (string, error) {
	value := base64.StdEncoding.EncodeToString(make([]byte, 2250))
	var metadata []string
	for range 5 {
		metadata = append(metadata, "x-bin", value)
	}
	shut := func(c *conn) error {
		return c.write(true, func() error {
			return c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		})
	}
	sent, ended, err := unread(ctx, t, shut, func(c *conn) error {
		id, err := c.headers(false, checkMethod, metadata...)
		if err == nil {
			err = c.data(id, message(nil, false), true)
		}
		return err
	})
	return fmt.Sprintf("%d Checks whose answers are not read: %s", sent, ended), err
}

// runUnreadAnswers requests answers larger than the window of a stream.
func runUnreadAnswers(ctx context.Context, t *target) (string, error) {
	text, err := proto.Marshal(seriesOf())
	if err != nil {
		return "", err
	}
	sent, ended, err := unread(ctx, t, nil, func(c *conn) error {
		id, err := c.headers(false, seriesMethod)
		if err == nil {
			err = c.data(id, message(text, false), true)
		}
		return err
	})
	return fmt.Sprintf("%d answers that are not read: %s", sent, ended), err
}

// runUnreadReflection queues answers on a stream of reflection, and then ends its handler with a
// message that is too large.
func runUnreadReflection(ctx context.Context, t *target) (string, error) {
	symbol := protowire.AppendString(
		protowire.AppendTag(nil, 4, protowire.BytesType),
		"thanos.Store",
	)
	const answers = 16 // of 4 KiB each
	sent, ended, err := unread(ctx, t, nil, func(c *conn) error {
		id, err := c.headers(false, reflectionMethod)
		for range answers {
			if err == nil {
				err = c.data(id, message(symbol, false), false)
			}
		}
		if err == nil {
			err = c.data(id, message(make([]byte, 5000), false), false)
		}
		return err
	})
	return fmt.Sprintf("%d streams of reflection that are not read: %s", sent, ended), err
}

// runSmallMessages fills the account of request messages with small ones. Their requests are not
// ended, so that larder waits for more of each.
func runSmallMessages(ctx context.Context, t *target) (string, error) {
	text, err := compressed("gzip", large(seriesMethod, 97_000))
	if err != nil {
		return "", err
	}
	ended, conns := tally{}, 0
	for end := time.Now().Add(time.Duration(t.n(20, 2)) * time.Second); time.Now().Before(end); {
		c, err := t.connect(ctx, attacker(0), false)
		if err != nil || t.larder.Ended() {
			break
		}
		conns++
		send := func(n int, payload []byte, packed bool, metadata ...string) {
			for range n {
				id, err := c.headers(false, seriesMethod, metadata...)
				if err == nil {
					err = c.data(id, message(payload, packed), false)
				}
				if err != nil {
					return // larder has closed the connection
				}
			}
		}
		send(400, text, true, "grpc-encoding", "gzip")
		for _, n := range []int{8000, 2000, 500, 100, 20} {
			send(30, large(seriesMethod, n), false)
		}
		pause(ctx, time.Duration(t.n(9, 1))*time.Second)
		ended.add(c)
		c.close()
	}
	return fmt.Sprintf(
		"400 messages of %d bytes for 97 KB, %d times: %s",
		len(text),
		conns,
		ended,
	), nil
}

// runGatePlaces occupies the places at the gate with answers that it does not read, under the name
// of no tenant.
func runGatePlaces(ctx context.Context, t *target) (string, error) {
	text, err := proto.Marshal(seriesOf())
	if err != nil {
		return "", err
	}
	c, err := t.connect(ctx, attacker(0), true)
	if err != nil {
		return "", err
	}
	defer c.close()
	for range 200 {
		id, err := c.headers(false, seriesMethod)
		if err == nil {
			err = c.data(id, message(text, false), true)
		}
		if err != nil {
			break // seen in how its streams ended
		}
	}
	pause(ctx, time.Duration(t.n(20, 2))*time.Second)
	ended := tally{}
	ended.add(c)
	return fmt.Sprintf("200 answers on one connection that are not read: %s", ended), nil
}

// runConnections opens all connections of both ports, from several addresses.
func runConnections(ctx context.Context, t *target) (string, error) {
	const sources, each = 5, 220
	var all []*conn
	defer func() {
		for _, c := range all {
			c.close()
		}
	}()
	for i := range sources * each {
		if c, err := t.connect(ctx, attacker(i%sources), false); err == nil {
			all = append(all, c)
		}
		c, err := dialer(attacker(i%sources)).DialContext(ctx, "tcp", t.larder.HTTP)
		if err == nil {
			defer func() { _ = c.Close() }()
		}
	}
	const probe = "127.0.0.3" // has no connection yet, like the probe of a kubelet
	c, err := t.connect(ctx, probe, false)
	if err != nil {
		return "", err
	}
	defer c.close()
	answered := tally{}
	id, err := c.headers(false, checkMethod)
	if err == nil {
		err = c.data(id, message(nil, false), true)
	}
	c.wait(ctx)
	answered.add(c)
	if err != nil || answered["OK"] != 1 {
		t.got("a new client's Check on the gRPC port: %s, %v", answered, err)
	}
	if status, _, _, err := t.get(ctx, probe, "/-/ready", nil); err != nil ||
		status != http.StatusOK {
		t.got("a new client's probe on the HTTP port: %d, %v", status, err)
	}
	return fmt.Sprintf("%d connections to each port, then a probe", sources*each), nil
}
