package faultstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/thanos-io/objstore"

	"larder/internal/faultstore"
)

const size = 10_000

// bucket returns a bucket in memory with three objects of the same bytes.
func bucket(
	t *testing.T, rules ...faultstore.Rule,
) (*faultstore.Bucket, *faultstore.Faults, []byte) {
	t.Helper()
	data := bytes.Repeat([]byte("0123456789"), size/10)
	mem := faultstore.InMemory(map[string][]byte{"a/x": data, "a/y": data, "a/z": data})
	f := faultstore.New(1)
	f.Set(rules...)
	return faultstore.Wrap(mem, f), f, data
}

func read(ctx context.Context, b objstore.Bucket, off, length int64) ([]byte, error) {
	r, err := b.GetRange(ctx, "a/x", off, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestABodyBreaksAsItsKindSays(t *testing.T) {
	for _, at := range []int64{0, -1, 100, 5000} {
		for kind, check := range map[faultstore.Kind]func(want, got []byte, err error) bool{
			faultstore.TruncatedBody: func(want, got []byte, err error) bool {
				return errors.Is(err, io.ErrUnexpectedEOF) && len(got) < len(want) &&
					bytes.HasPrefix(want, got)
			},
			faultstore.ShortBody: func(want, got []byte, err error) bool {
				return err == nil && len(got) < len(want) && bytes.HasPrefix(want, got)
			},
			faultstore.LongBody: func(want, got []byte, err error) bool {
				return err == nil && len(got) > len(want) && bytes.HasPrefix(got, want)
			},
			faultstore.Reset: func(want, got []byte, err error) bool {
				return errors.Is(err, syscall.ECONNRESET) && len(got) < len(want) &&
					bytes.HasPrefix(want, got)
			},
			faultstore.FlippedBit: func(want, got []byte, err error) bool {
				differ := 0
				for i := range want {
					if want[i] != got[i] {
						differ++
					}
				}
				return err == nil && len(got) == len(want) && differ == 1
			},
		} {
			b, f, data := bucket(t, faultstore.Rule{Kind: kind, At: at})
			got, err := read(context.Background(), b, 1000, 8000)
			if !check(data[1000:9000], got, err) {
				t.Errorf("%s at %d: %d bytes, %v", kind, at, len(got), err)
			}
			if kind != faultstore.FlippedBit && kind != faultstore.LongBody && at > 0 &&
				int64(len(got)) != at {
				t.Errorf("%s at %d: %d bytes", kind, at, len(got))
			}
			f.Heal()
			if got, err := read(context.Background(), b, 1000, 8000); err != nil ||
				!bytes.Equal(got, data[1000:9000]) {
				t.Errorf("%s, healed: %d bytes, %v", kind, len(got), err)
			}
			if n := f.Counts()[kind]; n != 1 || f.Total() != 1 {
				t.Errorf("%s: counted %d", kind, n)
			}
		}
	}
}

// TestAnswersAreTheProviders: errors look like those of a real client, and are recognised only
// unwrapped.
func TestAnswersAreTheProviders(t *testing.T) {
	for kind, code := range map[faultstore.Kind]int{
		faultstore.ServerError:  http.StatusInternalServerError,
		faultstore.SlowDown:     http.StatusServiceUnavailable,
		faultstore.AccessDenied: http.StatusForbidden, faultstore.Vanished: http.StatusNotFound,
	} {
		b, f, _ := bucket(t, faultstore.Rule{Kind: kind})
		ctx := context.Background()
		errs := map[string]error{}
		_, errs["GetRange"] = b.GetRange(ctx, "a/x", 0, 10)
		_, errs["Get"] = b.Get(ctx, "a/x")
		_, errs["Attributes"] = b.Attributes(ctx, "a/x")
		if kind == faultstore.Vanished {
			if ok, err := b.Exists(ctx, "a/x"); ok || err != nil {
				t.Errorf("Exists of a vanished object: %v, %v", ok, err)
			}
		} else {
			_, errs["Exists"] = b.Exists(ctx, "a/x")
			errs["Iter"] = b.Iter(ctx, "a", func(string) error { return nil })
		}
		for op, err := range errs {
			if got := minio.ToErrorResponse(err).StatusCode; got != code {
				t.Errorf("%s of %s: status %d, want %d: %v", op, kind, got, code, err)
			}
			wrapped := fmt.Errorf("wrapped: %w", err)
			if got, want := b.IsObjNotFoundErr(err), kind == faultstore.Vanished; got != want ||
				b.IsObjNotFoundErr(wrapped) {
				t.Errorf("%s of %s: not found: %v", op, kind, got)
			}
			got, want := b.IsAccessDeniedErr(err), kind == faultstore.AccessDenied
			if got != want || b.IsAccessDeniedErr(wrapped) {
				t.Errorf("%s of %s: denied: %v", op, kind, got)
			}
		}
		if n := f.Counts()[kind]; n < 4 {
			t.Errorf("%s: counted %d", kind, n)
		}
	}
}

func TestAListingBreaksMidway(t *testing.T) {
	b, f, _ := bucket(t, faultstore.Rule{Kind: faultstore.ListingError, At: 2})
	for range 2 {
		var names []string
		err := b.Iter(
			context.Background(), "a",
			func(name string) error { names = append(names, name); return nil },
		)
		if err == nil || !slices.Equal(names, []string{"a/x", "a/y"}) {
			t.Errorf("listed %q, %v", names, err)
		}
	}
	n := 0
	err := b.IterWithAttributes(
		context.Background(), "a", func(objstore.IterObjectAttributes) error { n++; return nil },
	)
	if err == nil || n != 2 {
		t.Errorf("listed %d, %v", n, err)
	}
	f.Heal()
	n = 0
	err = b.Iter(context.Background(), "a", func(string) error { n++; return nil })
	if err != nil || n != 3 {
		t.Errorf("healed: listed %d, %v", n, err)
	}
}

func TestRulesChooseCalls(t *testing.T) {
	b, _, _ := bucket(
		t,
		faultstore.Rule{Kind: faultstore.AccessDenied, Ops: []string{objstore.OpExists}},
		faultstore.Rule{
			Kind:  faultstore.ServerError,
			Match: func(op, name string) bool { return name == "a/y" },
			Skip:  1,
			Count: 2,
		},
	)
	var got []bool
	for range 5 {
		_, err := b.Attributes(context.Background(), "a/y")
		got = append(got, err != nil)
	}
	if want := []bool{false, true, true, false, false}; !slices.Equal(got, want) {
		t.Errorf("failed %v, want %v", got, want)
	}
	if _, err := b.Attributes(context.Background(), "a/x"); err != nil {
		t.Errorf("another object: %v", err)
	}
	if _, err := b.Exists(context.Background(), "a/x"); !b.IsAccessDeniedErr(err) {
		t.Errorf("the other rule: %v", err)
	}
	b, _, _ = bucket(t, faultstore.Rule{Kind: faultstore.ServerError, From: 100, To: 200})
	for off, hit := range map[int64]bool{99: false, 100: true, 199: true, 200: false} {
		if _, err := read(context.Background(), b, off, 10); (err != nil) != hit {
			t.Errorf("read at %d: %v", off, err)
		}
	}
	run := func() (hits string) {
		b, _, _ := bucket(t, faultstore.Rule{Kind: faultstore.ServerError, Probability: 0.3})
		for range 1000 {
			_, err := b.Attributes(context.Background(), "a/x")
			hits += map[bool]string{true: "x", false: "."}[err != nil]
		}
		return hits
	}
	first := run()
	if n := strings.Count(first, "x"); n < 240 || n > 360 {
		t.Errorf("%d of 1000 calls failed, want 30 %%", n)
	}
	if first != run() {
		t.Error("the same seed fails other calls")
	}
}

func TestWaitingCallsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f, data := bucket(t, faultstore.Rule{Kind: faultstore.Timeout})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := read(ctx, b, 0, 10); !errors.Is(err, context.DeadlineExceeded) ||
			time.Since(start) != time.Minute {
			t.Errorf("time-out: %v after %s", err, time.Since(start))
		}

		f.Set(faultstore.Rule{Kind: faultstore.SlowFirstByte, Delay: time.Second})
		start = time.Now()
		if got, err := read(context.Background(), b, 0, 10); err != nil ||
			!bytes.Equal(got, data[:10]) ||
			time.Since(start) != time.Second {
			t.Errorf("slow first byte: %q, %v after %s", got, err, time.Since(start))
		}

		f.Set(faultstore.Rule{Kind: faultstore.StalledBody, At: 4})
		ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if got, err := read(ctx, b, 0, 10); !errors.Is(err, context.DeadlineExceeded) ||
			string(got) != "0123" {
			t.Errorf("stalled body: %q, %v", got, err)
		}

		r, err := b.GetRange(context.Background(), "a/x", 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := io.ReadAll(r)
			done <- err
		}()
		synctest.Wait()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Error("a stalled body went on after Close")
		}

		f.Set(faultstore.Rule{Kind: faultstore.StalledBody, At: 4, Delay: time.Hour})
		start = time.Now()
		if got, err := read(context.Background(), b, 0, 10); err != nil ||
			!bytes.Equal(got, data[:10]) ||
			time.Since(start) != time.Hour {
			t.Errorf("a body that stalls for an hour: %q, %v after %s", got, err, time.Since(start))
		}
	})
}

// TestCallsAreRecorded: calls are recorded, a script answers reads in the client's place, and open
// bodies are counted.
func TestCallsAreRecorded(t *testing.T) {
	b, _, data := bucket(t)
	if got, err := read(t.Context(), b, 5, 10); err != nil || !bytes.Equal(got, data[5:15]) {
		t.Errorf("got %q, %v", got, err)
	}
	b.Script(func(_ context.Context, c faultstore.Call, n int) (io.ReadCloser, error, bool) {
		if n != 1 || c.Off != 7 {
			return nil, nil, false
		}
		return io.NopCloser(strings.NewReader("scripted")), nil, true
	})
	r, err := b.GetRange(t.Context(), "a/x", 7, 10)
	if err != nil {
		t.Fatal(err)
	}
	if n := b.OpenBodies(); n != 1 {
		t.Errorf("%d open bodies, want 1", n)
	}
	if got, err := io.ReadAll(r); string(got) != "scripted" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := b.OpenBodies(); n != 0 {
		t.Errorf("%d open bodies, want 0", n)
	}
	if _, err := b.Attributes(t.Context(), "a/y"); err != nil {
		t.Error(err)
	}
	all := []faultstore.Call{
		{Op: objstore.OpGetRange, Name: "a/x", Off: 5, Length: 10},
		{Op: objstore.OpGetRange, Name: "a/x", Off: 7, Length: 10},
		{Op: objstore.OpAttributes, Name: "a/y"},
	}
	if got := b.Calls(); !slices.Equal(got, all) {
		t.Errorf("calls %v, want %v", got, all)
	}
	if got := b.Calls(objstore.OpAttributes); !slices.Equal(got, all[2:]) {
		t.Errorf("calls %v, want %v", got, all[2:])
	}
	b.Forget()
	if got := b.Calls(); len(got) != 0 {
		t.Errorf("calls %v, want none", got)
	}
}
