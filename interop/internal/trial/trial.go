// Package trial sends the same requests to two gateways over one bucket and reports where their
// answers differ.
package trial

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"larder/interop/internal/allowed"
	"larder/interop/internal/answer"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/query"
)

// Trial is one bucket that two gateways serve.
type Trial struct {
	Layout *layout.Layout
	// Allowed may be nil: then no difference is allowed.
	Allowed *allowed.List
	thanos  *gateway.Client
	subject *gateway.Client
	close   []func() error
}

// Subject starts the gateway that is compared with Thanos and returns its address.
type Subject func(ctx context.Context, b gateway.Bucket) (addr string, close func() error,
	err error)

// Larder is larder as a process.
func Larder(bin string, extra ...string) Subject {
	return func(ctx context.Context, b gateway.Bucket) (string, func() error, error) {
		l, err := gateway.StartLarder(ctx, bin, b, extra...)
		if err != nil {
			return "", nil, err
		}
		return l.Addr, func() error {
			select {
			case <-l.Exited():
				return fmt.Errorf("larder ended by itself: %s", l.Log())
			default:
			}
			return l.Close()
		}, nil
	}
}

// Thanos is a second Thanos.
func Thanos(opts gateway.ThanosOptions) Subject {
	return func(ctx context.Context, b gateway.Bucket) (string, func() error, error) {
		t, err := gateway.StartThanos(ctx, b, opts)
		if err != nil {
			return "", nil, err
		}
		return t.Addr, t.Close, nil
	}
}

// Start serves the layout's bucket with Thanos and with the subject. scratch is a folder for their
// data.
func Start(
	ctx context.Context, l *layout.Layout, scratch string, subject Subject, list *allowed.List,
) (*Trial, error) {
	t := &Trial{Layout: l, Allowed: list}
	bucket := func(name string) gateway.Bucket {
		return gateway.Bucket{
			Dir:     l.Dir,
			DataDir: filepath.Join(scratch, name),
			MinTime: l.MinTime,
			MaxTime: l.MaxTime,
		}
	}
	th, err := gateway.StartThanos(ctx, bucket("thanos"), gateway.ThanosOptions{})
	if err != nil {
		return nil, fmt.Errorf("start Thanos: %w", err)
	}
	t.close = append(t.close, th.Close)
	addr, stop, err := subject(ctx, bucket("subject"))
	if err != nil {
		return nil, fmt.Errorf("start the subject: %w (%v)", err, t.Close())
	}
	t.close = append(t.close, stop)
	if t.thanos, err = t.dial(th.Addr); err != nil {
		return nil, fmt.Errorf("%w (%v)", err, t.Close())
	}
	if t.subject, err = t.dial(addr); err != nil {
		return nil, fmt.Errorf("%w (%v)", err, t.Close())
	}
	return t, nil
}

func (t *Trial) dial(addr string, opts ...grpc.DialOption) (*gateway.Client, error) {
	c, err := gateway.Dial(addr, opts...)
	if err == nil {
		t.close = append(t.close, c.Close)
	}
	return c, err
}

// Close stops everything in reverse order of the start.
func (t *Trial) Close() error {
	var first error
	for i := len(t.close) - 1; i >= 0; i-- {
		if err := t.close[i](); err != nil && first == nil {
			first = err
		}
	}
	t.close = nil
	return first
}

// Result is the result of one request.
type Result struct {
	Thanos, Subject *answer.Answer
	// Differences are those that no entry allows.
	Differences []answer.Difference
}

// options returns the options with which answers to q are compared.
func options(q *query.Query) answer.Options {
	o := answer.Options{Mention: q.Mention}
	if q.Series != nil {
		o.BatchSize, o.AskedHints = q.Series.ResponseBatchSize, q.Series.Hints != nil
	}
	return o
}

// Settle repeats a request whose answers differ. If several series become equal, the faster block
// decides whose chunks without data Thanos sends. Therefore one of its answers may not match its
// answers to the questions that explain a difference, and one repetition in a few matches. The
// subject has no such excuse: its answer must be the same each time.
func (t *Trial) Settle(ctx context.Context, q *query.Query, first *Result) (*Result, error) {
	const times = 6
	for range times {
		r, err := t.Ask(ctx, q)
		if err != nil {
			return nil, err
		}
		if len(answer.Diff(first.Subject, r.Subject, options(q))) > 0 {
			break
		}
		if len(r.Differences) == 0 {
			return r, nil
		}
	}
	return first, nil
}

// Ask sends the request to both gateways. If Thanos fails, a limit is removed: Thanos reads
// everything before it counts, while larder stops at the limit and may not reach the fault.
func (t *Trial) Ask(ctx context.Context, q *query.Query) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	want, err := answer.Ask(ctx, t.thanos, q.Clone())
	if err != nil {
		return nil, fmt.Errorf("Thanos: %w", err)
	}
	if want.Code != codes.OK && q.Bad == "" && q.Series != nil && q.Series.Limit > 0 {
		q = q.Clone()
		q.Series.Limit = 0
		return t.Ask(ctx, q)
	}
	if err := want.Check(); err != nil {
		return nil, fmt.Errorf("the reference gives a wrong answer: %w", err)
	}
	got, err := answer.Ask(ctx, t.subject, q.Clone())
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	r := &Result{Thanos: want, Subject: got}
	opts := options(q)
	if t.Allowed == nil {
		r.Differences = answer.Diff(want, got, opts)
		return r, nil
	}
	r.Differences, err = t.Allowed.Explain(ctx, &allowed.Case{
		Layout: t.Layout, Query: q, Thanos: want, Larder: got, Options: opts,
		AskThanos: func(ctx context.Context, q *query.Query) (*answer.Answer, error) {
			return answer.Ask(ctx, t.thanos, q)
		},
	})
	return r, err
}

// AskSubject sends the request to the subject only.
func (t *Trial) AskSubject(ctx context.Context, q *query.Query) (*answer.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return answer.Ask(ctx, t.subject, q)
}

// Again sends the request to the subject again and returns how that answer differs from the first.
// What the subject cached of its own answer must not show.
func (t *Trial) Again(
	ctx context.Context, q *query.Query, first *Result,
) ([]answer.Difference, error) {
	got, err := t.AskSubject(ctx, q.Clone())
	if err != nil {
		return nil, err
	}
	// Pieces and framing were checked already: they concern one answer.
	return slices.DeleteFunc(
		answer.Diff(first.Subject, got, options(q)),
		func(d answer.Difference) bool {
			return d.Field == answer.Pieces || d.Field == answer.Framing
		},
	), nil
}

// Shrink returns the simplest request that it finds which still differs in the same field, with its
// differences.
func (t *Trial) Shrink(ctx context.Context, q *query.Query, r *Result) (*query.Query, *Result) {
	field := r.Differences[0].Field
	if r.Subject.Code == codes.DeadlineExceeded {
		// Every attempt would take as long.
		return q, r
	}
	for range 20 {
		better := false
		for _, s := range q.Simpler() {
			x, err := t.Ask(ctx, s)
			if err != nil {
				continue
			}
			if len(x.Differences) > 0 && x.Differences[0].Field == field {
				q, r, better = s, x, true
				break
			}
		}
		if !better {
			break
		}
	}
	return q, r
}

// Report describes a difference so that a reader can reproduce it.
func Report(l *layout.Layout, q *query.Query, r *Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "layout seed %d (replica label %q)\n  request: %s\n", l.Seed, l.ReplicaLabel, q)
	for _, d := range r.Differences {
		fmt.Fprintf(&b, "  %s\n", d)
	}
	if q.Series != nil {
		if ms, ok := q.Matchers(); ok {
			c := l.Choose(q.Series.MinTime, q.Series.MaxTime, q.Series.MaxResolutionWindow, ms)
			for _, x := range c.Right {
				fmt.Fprintf(
					&b, "  block %s %s [%d, %d) resolution %d %s\n", x.ID, x.Labels, x.MinTime,
					x.MaxTime, x.Resolution, x.Damage,
				)
			}
		}
	}
	fmt.Fprintf(
		&b, "  answers: Thanos %s %d series %d entries, subject %s %d series %d entries\n",
		r.Thanos.Code, len(r.Thanos.Series), len(r.Thanos.List), r.Subject.Code,
		len(r.Subject.Series), len(r.Subject.List),
	)
	return b.String()
}
