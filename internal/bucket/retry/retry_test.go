package retry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"larder/internal/panics"
)

// TestRangesSurvive: after each fault the right bytes come, by exactly these requests.
func TestRangesSurvive(t *testing.T) {
	const all = "[1000,201000)"
	for _, tc := range []struct {
		name   string
		faults []conduct
		asked  []string
		reason string
		within time.Duration
	}{
		{"none", nil, []string{all}, "", 20 * time.Millisecond},
		{"503", []conduct{{err: errBusy}}, []string{all, all}, reasonThrottled,
			200 * time.Millisecond},
		{"500, four times", []conduct{{err: errOops}, {err: errOops}, {err: errOops},
			{err: errOops}}, []string{all, all, all, all, all}, reasonServer, 2 * time.Second},
		{"reset", []conduct{{err: errReset}}, []string{all, all}, reasonConnection,
			200 * time.Millisecond},
		{"never answered", []conduct{{open: forever}}, []string{all, all}, reasonNoAnswer,
			16 * time.Second},
		{"never answered by a deaf client", []conduct{{open: time.Hour, deaf: true}},
			[]string{all, all}, reasonNoAnswer, 16 * time.Second},
		{"reset in the body", []conduct{{cut: 70_000, broken: errReset}},
			[]string{all, "[71000,201000)"}, reasonBroken, 200 * time.Millisecond},
		{"body cut, as a connection is", []conduct{{cut: 10, broken: io.ErrUnexpectedEOF}},
			[]string{all, "[1010,201000)"}, reasonBroken, 200 * time.Millisecond},
		{"body ends early", []conduct{{cut: 150_000, end: true}}, []string{all, "[151000,201000)"},
			reasonShort, 200 * time.Millisecond},
		{"body is empty", []conduct{{cut: 0, end: true}}, []string{all, all}, reasonShort,
			200 * time.Millisecond},
		{"body stalls", []conduct{{cut: 65_536, stall: forever}}, []string{all, "[66536,201000)"},
			reasonStalled, 11 * time.Second},
		{"body of a deaf client stalls", []conduct{{cut: 65_536, stall: time.Hour, deaf: true}},
			[]string{all, "[66536,201000)"}, reasonStalled, 11 * time.Second},
		{"body breaks twice", []conduct{{cut: 100, broken: errReset}, {cut: 100, broken: errReset}},
			[]string{all, "[1100,201000)", "[1200,201000)"}, reasonBroken, 400 * time.Millisecond},
		{"body breaks where it is complete", []conduct{{cut: 200_000, broken: errReset}},
			[]string{all}, "", 20 * time.Millisecond},
		{"body does not end where it is complete", []conduct{{cut: 200_000, stall: forever}},
			[]string{all}, "", 11 * time.Second},
		{"body breaks, the rest is refused at first", []conduct{{cut: 5, broken: errReset},
			{err: errBusy}}, []string{all, "[1005,201000)", "[1005,201000)"}, reasonThrottled,
			400 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(Options{}, first(tc.faults...))
				start := time.Now()
				g.mustRead(t, 1000, 200_000)
				if took := time.Since(start); took > tc.within {
					t.Errorf("took %s", took)
				}
				g.mustHaveAsked(t, tc.asked...)
				if tc.reason != "" && g.retries(tc.reason, resultOK) != 1 {
					t.Errorf("no successful retry is counted for %s", tc.reason)
				}
				if left := g.budget.left(); left < float64(defaultBurst)-float64(len(tc.faults)) {
					t.Errorf("%v tokens are left", left)
				}
				time.Sleep(2 * time.Hour) // a deaf client returns
				synctest.Wait()
				g.atRest(t)
			})
		})
	}
}

// TestToTheEnd: a read without a length ends with the object, and is continued too.
func TestToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, first(conduct{cut: 100, broken: errReset}))
		got, err := g.read(t.Context(), 299_000, -1)
		if err != nil || !bytes.Equal(got, g.below.data[299_000:]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		g.mustHaveAsked(t, "[299000,)", "[299100,)")
	})
}

// TestShortObjects: a range beyond the end of the object is requested once more, and then ends.
func TestShortObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, first())
		got, err := g.read(t.Context(), 299_000, 5000)
		if err != nil || !bytes.Equal(got, g.below.data[299_000:]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		g.mustHaveAsked(t, "[299000,304000)", "[300000,304000)")

		g = newRig(Options{}, always(conduct{cut: 0, end: true}))
		if got, err := g.read(t.Context(), 0, 5000); err != nil || len(got) != 0 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		g.mustHaveAsked(t, "[0,5000)", "[0,5000)")
		synctest.Wait()
		g.atRest(t)
	})
}

// TestFinalErrors: final errors are returned at once, as the client made them.
func TestFinalErrors(t *testing.T) {
	for _, err := range []error{errGone{}, errDenied{}, serverError{400, "InvalidArgument"},
		serverError{403, "SignatureDoesNotMatch"}, objstore.ErrOptionNotSupported} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(Options{}, always(conduct{err: err}))
			ops := map[string]func() error{
				"get": func() error { _, err := g.Get(t.Context(), "o"); return err },
				"get_range": func() error {
					_, err := g.GetRange(t.Context(), "o", 0, 10)
					return err
				},
				"exists":     func() error { _, err := g.Exists(t.Context(), "o"); return err },
				"attributes": func() error { _, err := g.Attributes(t.Context(), "o"); return err },
				"iter": func() error {
					return g.Iter(t.Context(), "", func(string) error {
						return nil
					})
				},
			}
			for name, op := range ops {
				if got := op(); got != err {
					t.Errorf("%s: got %v, want %v unwrapped", name, got, err)
				}
				if n := len(g.below.taken()); n != 1 {
					t.Errorf("%s: %d requests for %v", name, n, err)
				}
			}
		})
	}
}

func TestPanicsAreContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, always(conduct{panics: true}))
		var panicked *panics.Error
		if _, err := g.read(t.Context(), 0, 10); !errors.As(err, &panicked) {
			t.Errorf("got %v", err)
		}
		if _, err := g.Exists(t.Context(), "o"); !errors.As(err, &panicked) {
			t.Errorf("got %v", err)
		}
		g.mustHaveAsked(t, "[0,10)", "exists")
	})
}

// TestDeadline: an operation fails before the deadline, and its error has the bucket's answer and
// the number of requests.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, always(conduct{err: errBusy}))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := g.read(ctx, 0, 10)
		n := len(g.below.taken())
		var gaveUp *Error
		if !errors.As(err, &gaveUp) || gaveUp.Requests != n || n < 5 || n > 12 ||
			!errors.Is(err, errBusy) ||
			ctx.Err() != nil {
			t.Errorf("after %d requests: %v; the context: %v", n, err, ctx.Err())
		}
		if !strings.Contains(err.Error(), "503 SlowDown") ||
			!strings.Contains(err.Error(), "requests in") {
			t.Errorf("got %q", err)
		}
		if g.limiter.throttled != n {
			t.Errorf("the limiter was told of %d refusals of %d", g.limiter.throttled, n)
		}
		if got := testutil.ToFloat64(g.metrics.gaveUp.WithLabelValues(reasonThrottled)); got != 1 {
			t.Errorf("%v operations are counted as given up, want 1", got)
		}
		g.atRest(t)
	})
}

// TestNoAnswerLeavesTimeForAnother: an unanswered request leaves time for another, even if the
// deadline is nearer than the timeout.
func TestNoAnswerLeavesTimeForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, first(conduct{open: forever}))
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		if _, err := g.read(ctx, 0, 10); err != nil {
			t.Error(err)
		}
		g.mustHaveAsked(t, "[0,10)", "[0,10)")
	})
}

// TestNoDeadline: an operation without a deadline fails after Options.Patience.
func TestNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, always(conduct{err: errOops}))
		start := time.Now()
		_, err := g.Attributes(t.Context(), "o")
		if took := time.Since(start); !errors.Is(err, errOops) || took > defaultPatience ||
			took < defaultPatience/2 {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

func TestLeaving(t *testing.T) {
	for name, c := range map[string]conduct{
		"unanswered":        {open: forever},
		"unanswered, deaf":  {open: time.Minute, deaf: true},
		"refused":           {err: errBusy},
		"in the body":       {cut: 5, stall: forever},
		"in the body, deaf": {cut: 5, stall: time.Minute, deaf: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(Options{}, always(c))
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				start := time.Now()
				if _, err := g.read(ctx, 0, 10); !errors.Is(err, context.Canceled) ||
					time.Since(start) != time.Second {
					t.Errorf("after %s: %v", time.Since(start), err)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				g.atRest(t)
			})
		})
	}
}

// TestASlowReaderIsNoStall: time between Reads does not count as a stall.
func TestASlowReaderIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, first())
		body, err := g.GetRange(t.Context(), "o", 0, 300_000)
		if err != nil {
			t.Fatal(err)
		}
		for buf := make([]byte, 30_000); ; time.Sleep(time.Minute) {
			if _, err := io.ReadFull(body, buf); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		body.Close()
		g.mustHaveAsked(t, "[0,300000)")
		g.atRest(t)
	})
}

// TestOverlongBodies: a body longer than its range is passed on, so that its reader can tell.
func TestOverlongBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, first())
		over := Wrap(whole0{g.below}, Options{})
		body, err := over.GetRange(t.Context(), "o", 10, 20)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if got, err := io.ReadAll(body); len(got) != 300_000 || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// whole0 ignores ranges.
type whole0 struct{ *bucket }

func (w whole0) GetRange(ctx context.Context, name string, _, _ int64) (io.ReadCloser, error) {
	return w.Get(ctx, name)
}

// TestWholeObjects: objects are read again from the start, and never combined from two requests.
func TestWholeObjects(t *testing.T) {
	for name, c := range map[string]conduct{
		"refused": {err: errBusy}, "broken": {cut: 200_000, broken: errReset},
		"stalled": {cut: 200_000, stall: forever}, "unanswered": {open: forever},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(Options{}, first(c))
				body, err := g.Get(t.Context(), "o")
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(body)
				if err != nil || !bytes.Equal(got, g.below.data) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				if size, err := objstore.TryToGetSize(body); size != 300_000 || err != nil {
					t.Errorf("size %d, %v", size, err)
				}
				body.Close()
				g.mustHaveAsked(t, "whole", "whole")
				synctest.Wait()
				g.atRest(t)
			})
		})
	}
}

// TestLargeWholeObjects: large objects break with their body, because the object may have been
// replaced since.
func TestLargeWholeObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, first(conduct{}, conduct{cut: 2 << 20, broken: errReset}))
		g.below.data = make([]byte, 3<<20)
		body, err := g.Get(t.Context(), "o")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(body); len(got) != 3<<20 || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		body.Close()
		if body, err = g.Get(t.Context(), "o"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(body); len(got) != 2<<20 || !errors.Is(err, errReset) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		body.Close()
		g.mustHaveAsked(t, "whole", "whole")
		g.atRest(t)
	})
}

// TestWholeObjectsAreBounded: all whole objects together stay within their account. Beyond it an
// object is streamed, and breaks with its body.
func TestWholeObjectsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 4 * step
		broken := conduct{cut: 80_000, broken: errReset}
		g := newRig(Options{WholeBytes: limit}, first(conduct{}, conduct{}, broken, broken))
		g.below.data = make([]byte, 100_000)
		for _, want := range []error{nil, nil, errReset} {
			body, err := g.Get(t.Context(), "o")
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			if reserved := g.wholes.reserved.Load(); reserved > limit {
				t.Errorf("%d bytes are reserved", reserved)
			}
			if got, err := io.ReadAll(body); len(got) < 80_000 || !errors.Is(err, want) {
				t.Errorf("%d bytes, %v, want %v", len(got), err, want)
			}
			if want != nil {
				body.Close()
			}
		}
		g.mustHaveAsked(t, "whole", "whole", "whole")
	})
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{WholeBytes: 4 * step}, first(conduct{cut: 80_000, broken: errReset}))
		g.below.data = make([]byte, 100_000)
		for range 5 { // each releases its bytes for the next
			body, err := g.Get(t.Context(), "o")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(body); len(got) != 100_000 || err != nil {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			body.Close()
		}
		g.atRest(t)
	})
}

func TestOperationsWithoutBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, first(conduct{open: forever}, conduct{err: errBusy}))
		if a, err := g.Attributes(t.Context(), "o"); a.Size != 300_000 || err != nil {
			t.Errorf("%v, %v", a, err)
		}
		g.mustHaveAsked(t, "attributes", "attributes", "attributes")
		if there, err := g.Exists(t.Context(), "o"); !there || err != nil {
			t.Errorf("%v, %v", there, err)
		}
	})
}

// TestListings: every name is delivered once, after any fault.
func TestListings(t *testing.T) {
	// A FILESYSTEM bucket returns this if a folder is deleted while it is being listed.
	vanished := &fs.PathError{Op: "open", Path: "bucket/01ABC", Err: syscall.ENOENT}
	for name, c := range map[string]conduct{
		"whole": {}, "refused": {err: errBusy}, "broken": {cut: 2, broken: errReset},
		"stalled":    {cut: 3, stall: forever},
		"unanswered": {open: forever}, "stalled, deaf": {cut: 1, stall: time.Hour, deaf: true},
		"jumbled, but whole": {jumbled: true},
		"a folder vanished":  {err: vanished}, "a folder vanished, midway": {cut: 2,
			broken: vanished},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(Options{}, first(c))
				var names []string
				err := g.Iter(
					t.Context(), "",
					func(name string) error { names = append(names, name); return nil },
				)
				slices.Sort(names)
				if want := []string{"a", "b", "c", "d/"}; err != nil || !slices.Equal(names, want) {
					t.Errorf("listed %v, %v", names, err)
				}
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

func TestListingsThatCannotGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, first(conduct{jumbled: true, cut: 3, broken: errReset}))
		if err := g.Iter(t.Context(), "", func(string) error { return nil }); !errors.Is(
			err, errReset,
		) {
			t.Errorf("got %v", err)
		}
		g.mustHaveAsked(t, "list")
		// One name shows no order yet, and the names of the next attempt have none. Without an
		// error the list would be incomplete.
		names := 0
		one := newRig(Options{}, func(n int) conduct {
			if n == 0 {
				return conduct{jumbled: true, cut: 1, broken: errReset}
			}
			return conduct{jumbled: true}
		})
		if err := one.Iter(t.Context(), "", func(string) error { names++; return nil }); !errors.Is(
			err, errJumbled,
		) {
			t.Errorf("%d names, got %v", names, err)
		}
		one.mustHaveAsked(t, "list", "list")
		own := errors.New("enough")
		n := 0
		if err := g.Iter(t.Context(), "", func(string) error { n++; return own }); err != own ||
			n != 1 {
			t.Errorf("called %d times, got %v", n, err)
		}
		g.mustHaveAsked(t, "list")
	})
}

// TestBudget: a bucket that fails all requests gets a tenth more than without retries, besides the
// burst and the tokens that come with time. When it is back, waiting operations are answered.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		g := newRig(Options{}, func(int) conduct {
			if down.Load() {
				return conduct{err: errBusy}
			}
			return conduct{}
		})
		const reads = 400
		outage := 20 * time.Second
		time.AfterFunc(outage, func() { down.Store(false) })
		var wg sync.WaitGroup
		for range reads {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err := g.read(ctx, 0, 10); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Millisecond)
		}
		time.Sleep(outage - reads*time.Millisecond)
		asked := len(g.below.taken())
		if most := int(reads*1.1) + defaultBurst + int(outage.Seconds()); asked > most {
			t.Errorf(
				"%d requests for %d reads at a bucket that is down, want at most %d", asked,
				reads, most,
			)
		}
		start := time.Now()
		wg.Wait()
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("all were answered only after %s", took)
		}
		if testutil.ToFloat64(g.metrics.refused) == 0 {
			t.Error("no refused retry is counted")
		}
		g.atRest(t)
	})
}

// TestABucketThatFailsSometimes: successful retries cost no tokens, so all reads succeed.
func TestABucketThatFailsSometimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(Options{}, func(n int) conduct {
			if n%3 == 0 {
				return conduct{err: errOops}
			}
			return conduct{}
		})
		for range 500 {
			g.mustRead(t, 0, 10)
		}
		if asked := len(g.below.taken()); asked != 750 {
			t.Errorf("%d requests for 500 reads of which every second fails once", asked)
		}
	})
}

func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		recorder := tracetest.NewSpanRecorder()
		provider := trace.NewTracerProvider(trace.WithSpanProcessor(recorder))
		ctx, span := provider.Tracer("test").Start(t.Context(), "read")
		g := newRig(Options{}, first(conduct{cut: 5, broken: errReset}))
		if _, err := g.read(ctx, 100, 10); err != nil {
			t.Fatal(err)
		}
		span.End()
		events := recorder.Ended()[0].Events()
		if len(events) != 1 || events[0].Name != "bucket_retry" {
			t.Fatalf("events %v", events)
		}
		var text []string
		for _, a := range events[0].Attributes {
			text = append(text, string(a.Key)+"="+a.Value.String())
		}
		want := []string{
			"reason=broken_body",
			"object=o",
			"offset=105",
			"request=2",
			"error=connection reset by peer",
		}
		if !slices.Equal(text, want) {
			t.Errorf("got %v, want %v", text, want)
		}
	})
}
