package slots

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"
)

// TestBound: a read holds its slot until its body is closed, other operations until they return,
// and failed ones hold none.
func TestBound(t *testing.T) {
	below := objstore.NewInMemBucket()
	if err := below.Upload(t.Context(), "dir/o", strings.NewReader("0123456789")); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	s := New(Options{Max: 1})
	whole := Bound(objstore.WrapWith(below, objstore.BucketMetrics(reg, "b")), s)
	expecting := whole.ReaderWithExpectedErrs(func(error) bool { return true })
	for name, b := range map[string]objstore.BucketReader{"bound": whole,
		"with expected errors": expecting} {
		held := func(where string) {
			t.Helper()
			if got := s.state()[1]; got != 1 {
				t.Errorf("%s: %d slots are held while %s", name, got, where)
			}
		}
		for where, open := range map[string]func() (io.ReadCloser, error){
			"an object is read": func() (io.ReadCloser, error) {
				return b.Get(t.Context(), "dir/o")
			},
			"a range is read": func() (io.ReadCloser, error) {
				return b.GetRange(t.Context(), "dir/o", 2, 3)
			},
		} {
			r, err := open()
			if err != nil {
				t.Fatal(err)
			}
			held(where)
			if _, err := objstore.TryToGetSize(r); err != nil {
				t.Errorf("%s: the size is not known: %v", name, err)
			}
			r.Close()
			r.Close()
			s.check(t, 1, 0, 0)
		}
		if err := b.Iter(t.Context(), "dir", func(string) error {
			held("a folder is listed")
			return nil
		}); err != nil {
			t.Error(err)
		}
		if err := b.IterWithAttributes(t.Context(), "dir", func(
			objstore.IterObjectAttributes,
		) error {
			held("a folder is listed")
			return nil
		}); err != nil {
			t.Error(err)
		}
		if there, err := b.Exists(t.Context(), "dir/o"); !there || err != nil {
			t.Errorf("%v, %v", there, err)
		}
		if a, err := b.Attributes(t.Context(), "dir/o"); a.Size != 10 || err != nil {
			t.Errorf("%v, %v", a, err)
		}
		s.check(t, 1, 0, 0)
		if _, err := b.Get(t.Context(), "none"); !b.IsObjNotFoundErr(err) {
			t.Errorf("got %v", err)
		}
		s.check(t, 1, 0, 0)
	}
	if !s.TryAcquire() {
		t.Fatal("no slot")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := whole.Get(ctx, "dir/o"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	s.Release()
	// A missing object that the caller expected is not counted as a failure.
	if n, err := testutil.GatherAndCount(reg, "objstore_bucket_operation_failures_total"); n == 0 ||
		err != nil {
		t.Fatal(n, err)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP objstore_bucket_operation_failures_total Total number of operations against a bucket that failed, but were not expected to fail in certain way from caller perspective. Those errors have to be investigated.
# TYPE objstore_bucket_operation_failures_total counter
objstore_bucket_operation_failures_total{bucket="b",operation="attributes"} 0
objstore_bucket_operation_failures_total{bucket="b",operation="delete"} 0
objstore_bucket_operation_failures_total{bucket="b",operation="exists"} 0
objstore_bucket_operation_failures_total{bucket="b",operation="get"} 1
objstore_bucket_operation_failures_total{bucket="b",operation="get_range"} 0
objstore_bucket_operation_failures_total{bucket="b",operation="iter"} 0
objstore_bucket_operation_failures_total{bucket="b",operation="upload"} 0
`), "objstore_bucket_operation_failures_total"); err != nil {
		t.Error(err)
	}
}
