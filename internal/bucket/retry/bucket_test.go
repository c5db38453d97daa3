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
	// The client of BOS starts it when it is linked.
	goleak.VerifyTestMain(
		m, goleak.IgnoreAnyFunction("github.com/baidubce/bce-sdk-go/util/log.NewLogger.func1"),
	)
}

// serverError is shaped as the errors of the clients are.
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

// errGone and errDenied are recognised only as they are.
type (
	errGone   struct{}
	errDenied struct{}
)

func (errGone) Error() string   { return "the specified key does not exist" }
func (errDenied) Error() string { return "access denied" }

// conduct is how a bucket answers one request.
type conduct struct {
	open   time.Duration // before the answer
	err    error         // instead of one
	panics bool
	deaf   bool // neither the opening nor the body heeds its context

	cut    int           // with any of the following: bytes of the body before it
	end    bool          // it ends
	broken error         // it breaks
	stall  time.Duration // it stalls, for so long

	jumbled bool // names of a listing do not ascend
}

var forever = 10 * time.Hour

// bucket answers requests as act says. Every request is noted.
type bucket struct {
	objstore.Bucket
	data  []byte
	names []string
	act   func(n int) conduct // n counts requests from 0

	mu    sync.Mutex
	asked []string
	open  int // openings that run, and bodies that are not closed
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
		return (*reply)(nil), err // as the client of GCS does
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

// slots count what they hear.
type slots struct {
	mu                           sync.Mutex
	throttled, answered, resting int
}

func (s *slots) add(n *int, d int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n += d
}

func (s *slots) Throttled() { s.add(&s.throttled, 1) }
func (s *slots) Answered()  { s.add(&s.answered, 1) }
func (s *slots) Pause()     { s.add(&s.resting, 1) }
func (s *slots) Resume()    { s.add(&s.resting, -1) }

// rig is a bucket of 300,000 bytes behind a decorator.
type rig struct {
	*Bucket
	below *bucket
	slots *slots
}

func newRig(opts Options, act func(n int) conduct) *rig {
	g := &rig{slots: &slots{}}
	g.below = &bucket{
		Bucket: objstore.NewInMemBucket(),
		data:   make([]byte, 300_000),
		names:  []string{"a", "b", "c", "d/"},
		act:    act,
	}
	for i := range g.below.data {
		g.below.data[i] = byte(i ^ i>>8*7 ^ i>>16*13)
	}
	opts.Limiter = g.slots
	opts.Registerer = prometheus.NewRegistry()
	g.Bucket = Wrap(g.below, opts)
	return g
}

// first answers the first requests in the given ways, and all others well.
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

// atRest fails when a request, a body or a resting slot is left behind.
func (g *rig) atRest(t *testing.T) {
	t.Helper()
	g.below.mu.Lock()
	defer g.below.mu.Unlock()
	if g.below.open != 0 {
		t.Errorf("%d requests were left open", g.below.open)
	}
	if held := g.wholes.held.Load(); held != 0 {
		t.Errorf("%d bytes are left reserved", held)
	}
	if g.slots.resting != 0 {
		t.Errorf("%d slots were left resting", g.slots.resting)
	}
}
