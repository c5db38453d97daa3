package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"google.golang.org/protobuf/encoding/protowire"

	"larder/store/storepb"
)

const (
	// largest is just below the size limit of a message.
	largest = 16<<20 - 64
	// heldFor is how long requests that larder leaves open are held.
	heldFor = 3 * time.Second

	seriesMethod      = storepb.Store_Series_FullMethodName
	labelNamesMethod  = storepb.Store_LabelNames_FullMethodName
	labelValuesMethod = storepb.Store_LabelValues_FullMethodName
	infoMethod        = storepb.Info_Info_FullMethodName
	checkMethod       = "/grpc.health.v1.Health/Check"
	watchMethod       = "/grpc.health.v1.Health/Watch"
	reflectionMethod  = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	reflectionAlpha   = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
)

// large returns a message of a method with a field of n bytes.
func large(method string, n int) []byte {
	field := func(num protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), value)
	}
	text := bytes.Repeat([]byte("x"), n)
	switch method {
	case seriesMethod:
		return field(3, field(2, text)) // the name of a matcher
	case labelNamesMethod:
		return field(6, field(2, text))
	case labelValuesMethod, checkMethod, watchMethod, reflectionMethod, reflectionAlpha:
		return field(1, text) // label, service, host
	default:
		return field(15, text) // an unknown field, which is kept
	}
}

// compressed returns a message compressed with an encoding.
func compressed(encoding string, b []byte) ([]byte, error) {
	var out bytes.Buffer
	var w io.WriteCloser
	switch encoding {
	case "gzip":
		w = gzip.NewWriter(&out)
	case "snappy":
		w = s2.NewWriter(&out, s2.WriterSnappyCompat(), s2.WriterConcurrency(1))
	default:
		return b, nil
	}
	_, err := w.Write(b)
	err = errors.Join(err, w.Close())
	return out.Bytes(), err
}

// flood is many requests at once, each with one large message.
type flood struct {
	methods  []string
	encoding string // "" sends messages uncompressed
	size     int    // of a message before compression
	requests int    // per method
	conns    int    // per address
	sources  int    // addresses
	held     time.Duration
}

// messageAttacks are attacks 1 and 2: memory that a message needs before larder knows its size.
func messageAttacks() []attack {
	all := []string{seriesMethod, labelNamesMethod, labelValuesMethod, infoMethod, checkMethod,
		watchMethod,
		reflectionMethod, reflectionAlpha}
	one := func(name, number string, f flood) attack {
		return attack{name: name, number: number, timed: true, run: f.run}
	}
	var out []attack
	for _, encoding := range []string{"gzip", "snappy"} {
		f := flood{methods: all, encoding: encoding, size: largest, requests: 150, conns: 1,
			sources: 1,
			held:    heldFor}
		out = append(out, one(encoding+"-one", "1", f))
		f.conns, f.sources = 10, 3
		out = append(out, one(encoding+"-many", "1", f))
	}
	watch := flood{methods: []string{watchMethod}, encoding: "gzip", size: largest, requests: 150,
		conns:   2,
		sources: 1, held: 3 * heldFor}
	plain := flood{methods: []string{watchMethod}, size: largest, requests: 80, conns: 2,
		sources: 10,
		held:    4 * heldFor}
	beyond := flood{methods: []string{seriesMethod, watchMethod, infoMethod}, encoding: "gzip",
		size: 256 << 20, requests: 60, conns: 10, sources: 3, held: heldFor}
	return append(out, one("gzip-beyond", "1", beyond), one("watch-held", "2", watch),
		one("watch-held-plain", "2", plain), attack{name: "half-messages", run: runHalf})
}

// halfBytes is the size of a truncated message: as much as larder would accept in one.
const halfBytes = 15 << 20

// runHalf sends messages without their ends, from many addresses.
func runHalf(ctx context.Context, t *target) (string, error) {
	const each = 16 // messages per address
	text := message(large(labelValuesMethod, largest), false)[:halfBytes]
	ended, sources := tally{}, t.n(10, 4)
	var conns []*conn
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		for _, c := range conns {
			c.close()
		}
	}()
	for i := range sources * each {
		c, err := t.connect(ctx, attacker(i%sources), false)
		if err != nil {
			break // larder has ended
		}
		conns = append(conns, c)
		if id, err := c.headers(true, labelValuesMethod); err == nil {
			wg.Go(func() { _ = c.data(id, text, false) }) // larder may close the connection
		}
	}
	pause(ctx, time.Duration(t.n(15, 2))*time.Second)
	for _, c := range conns {
		ended.add(c)
	}
	return fmt.Sprintf("%d messages of 16 MiB without an end from %d addresses: %s", sources*each,
		sources, ended), nil
}

func (f flood) run(ctx context.Context, t *target) (string, error) {
	if t.conf.short {
		// Send as many as exceed the limit at 16 MiB each, for one method of each service.
		f.requests, f.held = min(f.requests, 80), time.Second
		if len(f.methods) > 4 {
			f.methods = []string{seriesMethod, infoMethod, watchMethod, reflectionMethod}
		}
		if f.size > largest {
			f.size, f.requests = 64<<20, 20
		}
		if f.encoding == "" {
			f.requests, f.sources = 16, 8
		}
	}
	ended := tally{}
	var sent int
	for _, method := range f.methods {
		text, err := compressed(f.encoding, large(method, f.size))
		if err != nil {
			return "", err
		}
		if sent = len(text); t.larder.Ended() {
			break
		}
		if err := f.one(ctx, t, method, message(text, f.encoding != ""), ended); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d methods × %d messages of %s over %d connections: %s", len(f.methods),
		f.requests,
		sizeText(sent, f.size), f.conns*f.sources, ended), nil
}

func sizeText(sent, size int) string {
	if sent >= size {
		return fmt.Sprintf("%d MiB", size>>20)
	}
	return fmt.Sprintf("%d KB for %d MiB", sent>>10, (size+1<<19)>>20)
}

// one sends the requests of one method.
func (f flood) one(ctx context.Context, t *target, method string, text []byte, ended tally) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	more := []string{}
	if f.encoding != "" {
		more = []string{"grpc-encoding", f.encoding}
	}
	var conns []*conn
	defer func() {
		for _, c := range conns {
			c.close()
		}
	}()
	for i := range f.conns * f.sources {
		c, err := t.connect(ctx, attacker(i%f.sources), false)
		if err != nil && t.larder.Ended() {
			return nil
		} else if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	var wg sync.WaitGroup
	// Failures here are requests that larder rejects, or connections that it closes.
	for i := range f.requests {
		c := conns[i%len(conns)]
		id, err := c.headers(true, method, more...)
		if err != nil {
			continue
		}
		wg.Go(func() { _ = c.data(id, text, !strings.Contains(method, "Reflection")) })
	}
	held, done := context.WithTimeout(ctx, f.held)
	defer done()
	for _, c := range conns {
		c.wait(held)
	}
	for _, c := range conns {
		ended.add(c)
		c.close()
	}
	wg.Wait()
	return nil
}
