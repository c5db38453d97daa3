package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"larder/store/storepb"
)

// oldAttacks never succeeded.
func oldAttacks() []attack {
	stall := func(_ context.Context, t *target) error {
		t.flags = []string{"--store.grpc.send-stall-timeout=1s"}
		return nil
	}
	return []attack{
		{name: "malformed", run: runMalformed},
		{name: "garbage", run: runGarbage},
		{name: "regexps", run: runRegexps},
		{name: "unread-streams", prepare: stall, run: runUnread},
		{name: "slow-clients", run: runSlow},
		{name: "tls", prepare: prepareTLS, run: runTLS},
	}
}

// runMalformed sends messages that are damaged, cut off, or have a wrong length.
func runMalformed(ctx context.Context, t *target) (string, error) {
	r := rand.New(rand.NewPCG(t.conf.seed, 0x6d616c))
	valid, err := proto.Marshal(seriesOf(
		&storepb.LabelMatcher{Name: "code", Value: "200", Type: storepb.LabelMatcher_RE}))
	if err != nil {
		return "", err
	}
	methods := []string{seriesMethod, labelNamesMethod, labelValuesMethod, infoMethod, checkMethod,
		watchMethod, reflectionMethod, "/nowhere", ""}
	headers := [][]string{nil, {"grpc-encoding", "gzip"}, {"grpc-encoding", "snappy"},
		{"grpc-encoding", "none"}, {"grpc-timeout", "1n"},
		{"thanos-tenant", "\x7f\xff"}, {"x-bin", "!"}}
	ended := tally{}
	n := t.n(20_000, 1000)
	const at = 50 // messages per connection
	for i := 0; i < n && ctx.Err() == nil && !t.larder.Ended(); i += at {
		c, err := t.connect(ctx, attacker(i/at), false)
		if err != nil {
			return "", err
		}
		for range at {
			id, err := c.headers(false, pick(r, methods...), pick(r, headers...)...)
			if err != nil {
				break
			}
			if c.data(id, damaged(r, valid), true) != nil {
				continue // larder did not wait for the end of the message
			}
		}
		wait, cancel := context.WithTimeout(ctx, time.Second)
		c.wait(wait)
		cancel()
		ended.add(c)
		c.close()
	}
	return fmt.Sprintf("%d messages: %s", n, ended), nil
}

func pick[T any](r *rand.Rand, some ...T) T { return some[r.IntN(len(some))] }

// damaged returns a grpc message with a random defect.
func damaged(r *rand.Rand, valid []byte) []byte {
	b := append([]byte(nil), valid...)
	switch r.IntN(4) {
	case 0:
		for range 1 + r.IntN(8) {
			b[r.IntN(len(b))] = byte(r.Uint32())
		}
	case 1:
		b = b[:r.IntN(len(b))]
	case 2:
		b = make([]byte, r.IntN(500))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	case 3:
		for range 10 {
			b = append(b, b[r.IntN(len(b)):]...)
			b = b[:min(len(b), 4000)]
		}
	}
	whole := message(b, r.IntN(4) == 0)
	switch r.IntN(6) {
	case 0:
		binary.BigEndian.PutUint32(whole[1:], r.Uint32())
	case 1:
		whole[0] = byte(r.Uint32())
	case 2:
		whole = whole[:r.IntN(len(whole))]
	}
	return whole
}

// runGarbage sends bytes of no protocol to both ports.
func runGarbage(ctx context.Context, t *target) (string, error) {
	r := rand.New(rand.NewPCG(t.conf.seed, 0x676172))
	starts := []string{"", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n",
		"POST /api/v1/blocks/mark HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"GET " + strings.Repeat("/", 100_000) + " HTTP/1.1\r\n\r\n", "\x16\x03\x01\xff\xff"}
	n := t.n(3000, 300)
	for i := range n {
		address := t.larder.GRPC
		if i%2 == 0 {
			address = t.larder.HTTP
		}
		c, err := dialer(attacker(i)).DialContext(ctx, "tcp", address)
		if err != nil {
			return "", err
		}
		b := make([]byte, r.IntN(3000))
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second)) // larder may have closed it
		_, _ = c.Write(append([]byte(pick(r, starts...)), b...))
		_ = c.Close()
	}
	return fmt.Sprintf("%d connections with random bytes", n), ctx.Err()
}

// runRegexps sends expressions that are expensive to compile or to match.
func runRegexps(ctx context.Context, t *target) (string, error) {
	conn, err := dial(t.larder.GRPC, attacker(0))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	list := make([]string, 50_000)
	for i := range list {
		list[i] = fmt.Sprint("value", i)
	}
	expressions := []string{
		"((((a{1,10}){1,10}){1,10}){1,10}){1,10}",
		"(x+x+)+y",
		"(.*)*(.*)*(.*)*z",
		strings.Repeat("(a?)", 5000) + strings.Repeat("a", 5000),
		strings.Repeat("(a?)", 3000),
		strings.Repeat("(a?)", 16_000),
		strings.Repeat("(", 20_000) + strings.Repeat(")", 20_000),
		`(\pL{1,500}){1,2}`,
		strings.Repeat(`\pL`, 2000),
		strings.Join(list, "|"),
		"(?i)" + strings.Join(list[:20_000], "|"),
		strings.Repeat(".*a", 10_000),
		"[^a]{1000}",
		"(" + strings.Repeat("a|b|", 100_000) + "c)+",
		strings.Repeat("(a|b)", 25) + ".*",
		"(?:(?:0|1){30}|x){30}",
	}
	codes := map[string]int{}
	var mu sync.Mutex // guards codes
	var wg sync.WaitGroup
	limit := make(chan struct{}, 20)
	n := t.n(30, 2) * len(expressions)
	for i := range n {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			ctx, cancel := context.WithTimeout(
				metadata.AppendToOutgoingContext(ctx, "thanos-tenant", "attacker"), 20*time.Second)
			defer cancel()
			// A number in front makes each expression unique, so that none is found in the cache of
			// compiled ones.
			m := &storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "instance",
				Value: fmt.Sprintf("(?:%d|%s)", i, expressions[i%len(expressions)])}
			if i%3 == 0 {
				m.Type = storepb.LabelMatcher_NRE
			}
			_, err := storepb.NewStoreClient(conn).LabelValues(ctx, &storepb.LabelValuesRequest{
				Label: "pod", End: math.MaxInt64, Matchers: []*storepb.LabelMatcher{m}})
			mu.Lock()
			defer mu.Unlock()
			codes[status.Code(err).String()]++
		})
	}
	wg.Wait()
	return fmt.Sprintf("%d expressions: %v", n, codes), ctx.Err()
}

// runUnread requests all series on many streams and reads none of the answers.
func runUnread(ctx context.Context, t *target) (string, error) {
	text, err := proto.Marshal(seriesOf())
	if err != nil {
		return "", err
	}
	ended := tally{}
	streams := t.n(2000, 200)
	const each = 100 // streams per connection
	var all []*conn
	defer func() {
		for _, c := range all {
			c.close()
		}
	}()
	for i := range streams / each {
		c, err := t.connect(ctx, attacker(i%4), true)
		if err != nil {
			return "", err
		}
		all = append(all, c)
		for range each {
			id, err := c.headers(false, seriesMethod, "thanos-tenant", "attacker")
			if err == nil {
				err = c.data(id, message(text, false), true)
			}
			if err != nil {
				break // seen in how its streams ended
			}
		}
	}
	wait, cancel := context.WithTimeout(ctx, time.Duration(t.n(60, 5))*time.Second)
	defer cancel()
	for _, c := range all {
		c.wait(wait)
	}
	for _, c := range all {
		ended.add(c)
	}
	return fmt.Sprintf("%d answers that are not read: %s", streams, ended), nil
}

// runSlow opens connections on both ports that receive a byte now and then.
func runSlow(ctx context.Context, t *target) (string, error) {
	const conns = 250 // per kind; an address may have 256
	var all []net.Conn
	defer func() {
		for _, c := range all {
			_ = c.Close()
		}
	}()
	beginnings := []struct{ address, text string }{
		{t.larder.HTTP, "GET /metrics HTTP/1.1\r\nHost: larder\r\nX: "},
		{t.larder.HTTP, "POST /api/v1/blocks/mark HTTP/1.1\r\nHost: larder\r\n" +
			"Content-Length: 60000\r\n\r\n"},
		{t.larder.GRPC, http2.ClientPreface[:9]},
		{t.larder.GRPC, http2.ClientPreface + emptySettings + "\x00\x40\x00\x01\x00\x00\x00\x01"},
	}
	for i, b := range beginnings {
		for range conns {
			c, err := dialer(attacker(i)).DialContext(ctx, "tcp", b.address)
			if err != nil {
				return "", err
			}
			all = append(all, c)
			if _, err := c.Write([]byte(b.text)); err != nil {
				return "", err
			}
		}
	}
	closed := map[int]bool{}
	// An HTTP/2 connection after its start may stay open for as long as its peer answers.
	mayStand := len(all) - conns
	for range t.n(40, 3) {
		if !pause(ctx, time.Second) {
			break
		}
		for i, c := range all {
			if _, err := c.Write([]byte("x")); err != nil {
				closed[i] = true
			}
		}
		if code, _, _, err := t.get(ctx, honestClient, "/-/ready", nil); err != nil ||
			code != http.StatusOK {
			t.got("an honest HTTP request failed: status %d, %v", code, err)
			break
		}
	}
	for i := range mayStand {
		if !t.conf.short && !closed[i] {
			t.got("a connection is still open: %q", beginnings[i/conns].text)
			break
		}
	}
	return fmt.Sprintf("%d connections with a byte a second, larder closed %d", len(all),
		len(closed)), nil
}
