package retry

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// tries counts and paces the requests of one operation. It belongs to the caller's goroutine.
type tries struct {
	b       *Bucket
	ctx     context.Context
	object  string
	began   time.Time
	sent    int
	reason  string // of the last request; "" for the first, and once its result is counted
	backoff time.Duration

	fault   error // of the last request that failed, see againFor
	faulted time.Time
}

// begin starts an operation. Its first request is sent now.
func (b *Bucket) begin(ctx context.Context, object string) *tries {
	b.budget.operation()
	return &tries{
		b:       b,
		ctx:     ctx,
		object:  object,
		began:   time.Now(),
		sent:    1,
		backoff: b.opts.MinBackoff,
	}
}

// answered reports a successful answer of the bucket.
func (t *tries) answered() { t.b.opts.Limiter.Answered() }

// succeeded counts the last request as useful, and refunds its token if it was a retry.
func (t *tries) succeeded() {
	if t.reason != "" {
		t.b.metrics.retries.WithLabelValues(t.reason, resultOK).Inc()
		t.b.budget.refund()
		t.reason = ""
	}
}

// progressed records that the last request delivered something.
func (t *tries) progressed() {
	t.backoff, t.fault, t.faulted = t.b.opts.MinBackoff, nil, time.Time{}
}

// again is called when a request failed with err at an offset. It returns nil when the next request
// is due, and otherwise the error of the operation.
func (t *tries) again(err error, off int64) error {
	return t.againFor(t.b.reasonOf(err), err, off)
}

// againFor does the same as again for a known reason; "" for none.
func (t *tries) againFor(reason string, err error, off int64) error {
	if ended := t.ctx.Err(); ended != nil {
		return t.ended(ended)
	}
	if reason == "" {
		// It is an answer, if not the desired one.
		t.succeeded()
		return err
	}
	if reason == reasonThrottled {
		t.b.opts.Limiter.Throttled()
	}
	if t.reason != "" {
		t.b.metrics.retries.WithLabelValues(t.reason, resultFailed).Inc()
		t.reason = ""
	}
	if ours := errors.Is(err, errNoAnswer) || errors.Is(err, errStalled); t.fault == nil || !ours {
		t.fault = err // an answer of the bucket tells more than its silence
	}
	if t.faulted.IsZero() {
		t.faulted = time.Now()
	}
	t.b.opts.Limiter.Pause()
	defer t.b.opts.Limiter.Resume()
	for {
		wait := t.backoff/2 + rand.N(t.backoff/2+1)
		t.backoff = min(2*t.backoff, t.b.opts.MaxBackoff)
		if !t.hasTime(wait) {
			t.b.metrics.gaveUp.WithLabelValues(reason).Inc()
			return t.wrapped(nil)
		}
		if ended := sleep(t.ctx, wait); ended != nil {
			return t.ended(ended)
		}
		if t.b.budget.trySpend() {
			break
		}
		t.b.metrics.refused.Inc()
	}
	t.sent++
	t.reason = reason
	if span := trace.SpanFromContext(t.ctx); span.IsRecording() {
		span.AddEvent("bucket_retry", trace.WithAttributes(
			attribute.String("reason", reason),
			attribute.String("object", t.object),
			attribute.Int64("offset", off),
			attribute.Int("request", t.sent),
			attribute.String("error", err.Error()),
		))
	}
	return nil
}

// hasTime reports whether there is time for a request after a pause of wait.
func (t *tries) hasTime(wait time.Duration) bool {
	if deadline, ok := t.ctx.Deadline(); ok {
		return time.Until(deadline) > wait+minPatience
	}
	return time.Since(t.faulted)+wait <= t.b.opts.Patience
}

// patience returns how long one request may make no progress: at most d, and not so long that no
// time is left for another request.
func (t *tries) patience(d time.Duration) time.Duration {
	if deadline, ok := t.ctx.Deadline(); ok {
		return min(d, max(time.Until(deadline)/2, minPatience))
	}
	return d
}

// ended returns the operation's error after the end of the caller's context.
func (t *tries) ended(ended error) error {
	if t.fault == nil {
		return ended
	}
	return t.wrapped(ended)
}

func (t *tries) wrapped(ended error) error {
	if t.sent == 1 && ended == nil {
		return t.fault
	}
	return &Error{Err: t.fault, Requests: t.sent, Took: time.Since(t.began), Ended: ended}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call runs an operation without a body.
func call[T any](t *tries, f func(ctx context.Context) (T, error)) (T, error) {
	for {
		v, err := callOnce(t, f)
		if err == nil {
			t.answered()
			t.succeeded()
			return v, nil
		}
		if err := t.again(err, 0); err != nil {
			var none T
			return none, err
		}
	}
}

func callOnce[T any](t *tries, f func(ctx context.Context) (T, error)) (v T, err error) {
	type result struct {
		v   T
		err error
	}
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	results := make(chan result, 1)
	go func() {
		var r result
		r.err = t.b.contained(t.object, 0, func() (err error) {
			r.v, err = f(ctx)
			return err
		})
		results <- r
	}()
	timer := time.NewTimer(t.patience(t.b.opts.FirstByte))
	defer timer.Stop()
	select {
	case r := <-results:
		return r.v, r.err
	case <-timer.C:
		return v, errNoAnswer
	case <-t.ctx.Done():
		return v, t.ctx.Err()
	}
}
