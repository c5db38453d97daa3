package retry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The client of BOS starts this goroutine when it is linked.
	goleak.VerifyTestMain(
		m, goleak.IgnoreAnyFunction("github.com/baidubce/bce-sdk-go/util/log.NewLogger.func1"),
	)
}

// serverError has the fields of the errors of the clients.
type serverError struct {
	StatusCode int
	Code       string
}

func (e serverError) Error() string { return fmt.Sprintf("%d %s", e.StatusCode, e.Code) }

var (
	errBusy  = serverError{503, "SlowDown"}
	errOops  = serverError{500, "InternalError"}
	errReset = errors.New("connection reset by peer")
)

// errGone and errDenied are recognised only unwrapped.
type (
	errGone   struct{}
	errDenied struct{}
)

func (errGone) Error() string   { return "the specified key does not exist" }
func (errDenied) Error() string { return "access denied" }

// conduct says how a bucket answers one request.
type conduct struct {
	open   time.Duration // before the answer
	err    error         // instead of an answer
	panics bool
	deaf   bool // opening and body ignore their context

	cut    int           // bytes of the body before one of the following happens
	end    bool          // the body ends
	broken error         // the body breaks
	stall  time.Duration // the body stalls for this time

	jumbled bool // the names of a listing descend
}

var forever = 10 * time.Hour

// bucket answers requests as act says, and records them. faultstore cannot replace it: clients that
// ignore their context, panics and counts of running openings are beyond its rules.
type bucket struct {
	objstore.Bucket
	data  []byte
	names []string
	act   func(n int) conduct // n counts requests from 0

	mu    sync.Mutex
	asked []string
	open  int // running openings, and bodies that are not closed
}

func (b *bucket) IsObjNotFoundErr(err error) bool  { _, ok := err.(errGone); return ok }
func (b *bucket) IsAccessDeniedErr(err error) bool { _, ok := err.(errDenied); return ok }

func (b *bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.body(ctx, "whole", b.data)
}

func (b *bucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	end := int64(len(b.data))
	what := fmt.Sprintf("[%d,)", off)
	if length >= 0 {
		what = fmt.Sprintf("[%d,%d)", off, off+length)
		end = min(end, off+length)
	}
	if off >= int64(len(b.data)) {
		b.note(what)
		return nil, serverError{416, "InvalidRange"}
	}
	return b.body(ctx, what, b.data[off:end])
}

func (b *bucket) Exists(ctx context.Context, name string) (bool, error) {
	_, err := b.answer(ctx, "exists")
	return err == nil, err
}

func (b *bucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	_, err := b.answer(ctx, "attributes")
	return objstore.ObjectAttributes{Size: int64(len(b.data))}, err
}

func (b *bucket) Iter(
	ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption,
) error {
	return b.IterWithAttributes(
		ctx,
		dir,
		func(o objstore.IterObjectAttributes) error { return f(o.Name) },
		options...)
}

func (b *bucket) IterWithAttributes(
	ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	options ...objstore.IterOption,
) error {
	c, err := b.answer(ctx, "list")
	if err != nil {
		return err
	}
	names := b.names
	if c.jumbled {
		names = slices.Clone(names)
		slices.Reverse(names)
	}
	for i, name := range names {
		if i == c.cut && c.broken != nil {
			return c.broken
		}
		if i == c.cut && c.stall > 0 {
			if err := b.wait(ctx, c, c.stall); err != nil {
				return err
			}
		}
		if err := f(objstore.IterObjectAttributes{Name: name}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bucket) note(what string) conduct {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.act(len(b.asked))
	b.asked = append(b.asked, what)
	return c
}

func (b *bucket) answer(ctx context.Context, what string) (conduct, error) {
	c := b.note(what)
	if err := b.wait(ctx, c, c.open); err != nil {
		return c, err
	}
	if c.panics {
		panic("nil pointer in a client")
	}
	return c, c.err
}

func (b *bucket) wait(ctx context.Context, c conduct, d time.Duration) error {
	done := ctx.Done()
	if c.deaf {
		done = nil
	}
	select {
	case <-done:
		return fmt.Errorf("get: %w", ctx.Err())
	case <-time.After(d):
		return nil
	}
}

func (b *bucket) body(ctx context.Context, what string, data []byte) (io.ReadCloser, error) {
	b.opened(1)
	c, err := b.answer(ctx, what)
	if err != nil {
		b.opened(-1)
		return (*reply)(nil), err // same as the client of GCS
	}
	return &reply{b: b, ctx: ctx, c: c, rest: data}, nil
}

func (b *bucket) opened(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open += n
}

// taken returns the requests since the last call.
func (b *bucket) taken() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := b.asked
	b.asked = nil
	return asked
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
	faulty := r.c.end || r.c.broken != nil || r.c.stall > 0
	if faulty && r.sent >= r.c.cut {
		switch {
		case r.c.end:
			return 0, io.EOF
		case r.c.broken != nil:
			return 0, r.c.broken
		}
		if err := r.b.wait(r.ctx, r.c, r.c.stall); err != nil {
			return 0, err
		}
		faulty, r.c.stall = false, 0
	}
	if err := r.ctx.Err(); err != nil && !r.c.deaf {
		return 0, err
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	if faulty {
		p = p[:min(len(p), r.c.cut-r.sent)]
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.sent += n
	return n, nil
}

func (r *reply) Close() error {
	r.once.Do(func() { r.b.opened(-1) })
	return nil
}

// limiter counts the calls of a Limiter.
type limiter struct {
	mu                          sync.Mutex
	throttled, answered, paused int
}

func (l *limiter) add(n *int, d int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*n += d
}

func (l *limiter) Throttled() { l.add(&l.throttled, 1) }
func (l *limiter) Answered()  { l.add(&l.answered, 1) }
func (l *limiter) Pause()     { l.add(&l.paused, 1) }
func (l *limiter) Resume()    { l.add(&l.paused, -1) }

// rig is a decorated bucket with an object of 300,000 bytes.
type rig struct {
	*Bucket
	below   *bucket
	limiter *limiter
}

func newRig(opts Options, act func(n int) conduct) *rig {
	g := &rig{limiter: &limiter{}}
	g.below = &bucket{
		Bucket: objstore.NewInMemBucket(),
		data:   make([]byte, 300_000),
		names:  []string{"a", "b", "c", "d/"},
		act:    act,
	}
	for i := range g.below.data {
		g.below.data[i] = byte(i ^ i>>8*7 ^ i>>16*13)
	}
	opts.Limiter = g.limiter
	opts.Registerer = prometheus.NewRegistry()
	g.Bucket = Wrap(g.below, opts)
	return g
}

// first answers the first requests in the given ways, and all others normally.
func first(c ...conduct) func(n int) conduct {
	return func(n int) conduct {
		if n < len(c) {
			return c[n]
		}
		return conduct{open: 10 * time.Millisecond}
	}
}

func always(c conduct) func(n int) conduct { return func(int) conduct { return c } }

func (g *rig) read(ctx context.Context, off, length int64) ([]byte, error) {
	body, err := g.GetRange(ctx, "o", off, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (g *rig) mustRead(t *testing.T, off, length int64) {
	t.Helper()
	got, err := g.read(t.Context(), off, length)
	if err != nil {
		t.Fatalf("read [%d,+%d): %v", off, length, err)
	}
	if !bytes.Equal(got, g.below.data[off:off+length]) {
		t.Fatalf("read [%d,+%d): wrong bytes", off, length)
	}
}

func (g *rig) mustHaveAsked(t *testing.T, want ...string) {
	t.Helper()
	if got := g.below.taken(); !slices.Equal(got, want) {
		t.Errorf("requests %v, want %v", got, want)
	}
}

func (g *rig) retries(reason, result string) int {
	return int(testutil.ToFloat64(g.metrics.retries.WithLabelValues(reason, result)))
}

// atRest checks that no request, body, reservation or paused slot is left.
func (g *rig) atRest(t *testing.T) {
	t.Helper()
	g.below.mu.Lock()
	defer g.below.mu.Unlock()
	if g.below.open != 0 {
		t.Errorf("%d requests are still open", g.below.open)
	}
	if reserved := g.wholes.reserved.Load(); reserved != 0 {
		t.Errorf("%d bytes are still reserved", reserved)
	}
	if g.limiter.paused != 0 {
		t.Errorf("%d slots are still paused", g.limiter.paused)
	}
}
