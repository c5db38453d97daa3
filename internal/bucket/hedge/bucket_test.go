package hedge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errBusy  = errors.New("503 slow down")
	errReset = errors.New("connection reset by peer")
)

// errGone is recognised only unwrapped, same as by the clients of S3 and FILESYSTEM.
type errGone struct{}

func (errGone) Error() string { return "the specified key does not exist" }

// conduct says how a bucket answers one request.
type conduct struct {
	open   time.Duration // before the first byte
	err    error         // instead of a body
	panics bool
	deaf   bool // the opening ignores its context

	readPanics, closePanics bool

	stallAt int           // bytes before the body stalls, if stall is set
	stall   time.Duration // how long it stalls
	failAt  int           // bytes before bodyErr
	bodyErr error
	chunk   int // bytes per Read; 0: all that fit
}

// bucket answers requests as act says, and records them. faultstore cannot replace it: clients that
// ignore their context, panics and counts of running openings are beyond its rules.
type bucket struct {
	objstore.Bucket
	data []byte
	act  func(n int) conduct // n counts requests from 0

	mu    sync.Mutex
	asked []string
	open  int // bodies that are not closed, and running openings
}

func newBucket(size int, act func(n int) conduct) *bucket {
	b := &bucket{Bucket: objstore.NewInMemBucket(), data: make([]byte, size), act: act}
	for i := range b.data {
		b.data[i] = byte(i ^ i>>8*7 ^ i>>16*13)
	}
	return b
}

func (b *bucket) IsObjNotFoundErr(err error) bool { _, ok := err.(errGone); return ok }

func (b *bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.answer(ctx, "whole", 0, int64(len(b.data)))
}

func (b *bucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	if length < 0 {
		return b.answer(ctx, fmt.Sprintf("[%d,)", off), off, int64(len(b.data))-off)
	}
	return b.answer(ctx, fmt.Sprintf("[%d,%d)", off, off+length), off, length)
}

func (b *bucket) answer(
	ctx context.Context, what string, off, length int64,
) (io.ReadCloser, error) {
	b.mu.Lock()
	c := b.act(len(b.asked))
	b.asked = append(b.asked, what)
	b.open++
	b.mu.Unlock()
	done := ctx.Done()
	if c.deaf {
		done = nil
	}
	if err := wait(done, ctx, c.open); err != nil {
		b.closed()
		return nil, err
	}
	if c.panics {
		b.closed()
		panic("nil pointer in a client")
	}
	if c.err != nil {
		b.closed()
		return (*reply)(nil), c.err // same as the client of GCS
	}
	return &reply{b: b, ctx: ctx, c: c, rest: b.data[off : off+length]}, nil
}

func (b *bucket) closed() {
	b.mu.Lock()
	b.open--
	b.mu.Unlock()
}

// taken returns the requests since the last call.
func (b *bucket) taken() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := b.asked
	b.asked = []string{}
	return asked
}

func wait(done <-chan struct{}, ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return fmt.Errorf("get: %w", ctx.Err())
	case <-t.C:
		return nil
	}
}

type reply struct {
	b    *bucket
	ctx  context.Context
	c    conduct
	sent int
	rest []byte
	once sync.Once
}

func (r *reply) Read(p []byte) (int, error) {
	if r.c.readPanics {
		panic("nil pointer in a body")
	}
	if r.c.stall > 0 && r.sent >= r.c.stallAt {
		if err := wait(r.ctx.Done(), r.ctx, r.c.stall); err != nil {
			return 0, err
		}
		r.c.stall = 0
	}
	if r.c.bodyErr != nil && r.sent >= r.c.failAt {
		return 0, r.c.bodyErr
	}
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	if r.c.chunk > 0 {
		p = p[:min(len(p), r.c.chunk)]
	}
	if r.c.stall > 0 {
		p = p[:min(len(p), r.c.stallAt-r.sent)]
	}
	if r.c.bodyErr != nil {
		p = p[:min(len(p), r.c.failAt-r.sent)]
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.sent += n
	return n, nil
}

func (r *reply) Close() error {
	r.once.Do(r.b.closed)
	if r.c.closePanics {
		panic("nil pointer in a Close")
	}
	return nil
}

// limiter is a Limiter that counts its slots in use.
type limiter struct {
	mu        sync.Mutex
	free, out int
}

func (l *limiter) TryAcquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free == 0 {
		return false
	}
	l.free--
	l.out++
	return true
}

func (l *limiter) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free++
	l.out--
}

func (l *limiter) held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out
}

// usual is a normal answer: the first byte comes after 10 ms.
func usual() conduct { return conduct{open: 10 * time.Millisecond} }

// rig is a hedged bucket with an object of 1 MiB. It has seen 400 usual first bytes of each size
// class. act decides about the requests that follow.
type rig struct {
	*Bucket
	below   *bucket
	limiter *limiter
	reg     *prometheus.Registry
}

func newRig(t *testing.T, opts Options, act func(n int) conduct) *rig {
	t.Helper()
	g := &rig{limiter: &limiter{free: 1000}, reg: prometheus.NewRegistry()}
	g.below = newBucket(1<<20, act)
	opts.Registerer = g.reg
	if opts.Limiter == nil {
		opts.Limiter = g.limiter
	}
	g.Bucket = Wrap(g.below, opts)
	for _, c := range g.classes() {
		for range 400 {
			g.gate.request()
			c.observe(10 * time.Millisecond)
		}
	}
	return g
}

func (g *rig) mustRead(t *testing.T, off, length int64) {
	t.Helper()
	got, err := g.readAll(off, length)
	if err != nil {
		t.Fatalf("read [%d,+%d): %v", off, length, err)
	}
	if !bytes.Equal(got, g.below.data[off:off+length]) {
		t.Fatalf("read [%d,+%d): wrong bytes", off, length)
	}
}

func (g *rig) readAll(off, length int64) ([]byte, error) {
	body, err := g.GetRange(context.Background(), "o", off, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (g *rig) mustGet(t *testing.T) {
	t.Helper()
	body, err := g.Get(context.Background(), "o")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, g.below.data) {
		t.Fatalf("get: %v, or wrong bytes", err)
	}
}

// atRest checks that no request, body or slot is left.
func (g *rig) atRest(t *testing.T) {
	t.Helper()
	g.below.mu.Lock()
	defer g.below.mu.Unlock()
	if g.below.open != 0 {
		t.Errorf("%d requests are still open", g.below.open)
	}
	if n := g.limiter.held(); n != 0 {
		t.Errorf("%d slots were not released", n)
	}
	if n := g.gate.running.Load(); n != 0 {
		t.Errorf("%d reads still count as running", n)
	}
	if n := g.gate.waiting.Load(); n != 0 {
		t.Errorf("%d reads still count as late", n)
	}
}

func (g *rig) hedges(reason, result string) int {
	return int(testutil.ToFloat64(g.Bucket.metrics.hedges.WithLabelValues(reason, result)))
}

func (g *rig) refused(reason, cause string) int {
	return int(testutil.ToFloat64(g.Bucket.metrics.refused.WithLabelValues(reason, cause)))
}

// extra returns the number of hedges that have ended.
func (g *rig) extra() int {
	n := 0
	for _, reason := range []string{reasonFirstByte, reasonStall} {
		for _, result := range []string{resultWon, resultLost, resultFailed} {
			n += g.hedges(reason, result)
		}
	}
	return n
}
