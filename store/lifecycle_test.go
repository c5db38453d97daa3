package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/benchmarks/dataset"
	"larder/store"
	"larder/store/admission"
	"larder/store/catalog"
	"larder/store/storepb"
)

// frames is a server stream that passes every frame to a function.
type frames struct {
	grpc.ServerStream
	ctx context.Context
	on  func(n int) error
	n   int
}

func (f *frames) Context() context.Context           { return f.ctx }
func (f *frames) Send(*storepb.SeriesResponse) error { panic("frames only") }
func (f *frames) SendMsg(any) error {
	f.n++
	return f.on(f.n)
}

func wholeBlock(t testing.TB, series int) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := dataset.WholeMetric("whole", 3, series, 30_000).
		Write(context.Background(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestARequestThatEndsEarlyLeavesNothing checks that a request that is interrupted ends its
// goroutines and releases its bytes.
func TestARequestThatEndsEarlyLeavesNothing(t *testing.T) {
	g := startGateway(t, wholeBlock(t, 12_000),
		gatewayOptions{chunkBytes: -1, indexBytes: -1, oneAhead: true})
	broken := errors.New("transport is closing")
	for _, tc := range []struct {
		name string
		on   func(cancel func(), n int) error
		code codes.Code
	}{
		{"client cancels", func(cancel func(), _ int) error {
			cancel()
			return nil
		}, codes.Canceled},
		{"send fails", func(func(), int) error {
			return status.Error(codes.Unavailable, broken.Error())
		}, codes.Unavailable},
		{"send panics", func(func(), int) error { panic("boom") }, codes.Internal},
		{"reads fail", func(_ func(), n int) error {
			g.bucket.setOnRead(func(
				_ string, _, _ int64, body io.ReadCloser,
			) (io.ReadCloser, error) {
				return nil, errors.Join(errors.New("bucket is away"), body.Close())
			})
			return nil
		}, codes.Aborted},
		{"reads panic", func(_ func(), n int) error {
			g.bucket.setOnRead(func(
				_ string, _, _ int64, body io.ReadCloser,
			) (io.ReadCloser, error) {
				_ = body.Close()
				panic("boom")
			})
			return nil
		}, codes.Internal},
	} {
		for _, at := range []int{1, 7, 20} {
			t.Run(fmt.Sprintf("%s at frame %d", tc.name, at), func(t *testing.T) {
				g.bucket.setOnRead(nil)
				defer g.bucket.setOnRead(nil)
				leaks := goleak.IgnoreCurrent()
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				err := g.Server.Series(wholeMetric(64), &frames{ctx: ctx, on: func(n int) error {
					if n != at {
						return nil
					}
					return tc.on(cancel, n)
				}})
				if status.Code(err) != tc.code {
					t.Errorf("got %v, want %s", err, tc.code)
				}
				if n := g.inUse(t); n != 0 {
					t.Errorf("%v bytes of the allowance are still reserved", n)
				}
				goleak.VerifyNone(t, leaks)
			})
		}
	}
}

// TestAColdRequestIsReadOnce sends the same request fifty times at once to a cold gateway. The
// bucket must see the reads of one request.
func TestAColdRequestIsReadOnce(t *testing.T) {
	dir := wholeBlock(t, 800)
	read := func(requests int) map[string]int64 {
		g := startGateway(t, dir, gatewayOptions{})
		g.bucket.take()
		var wg sync.WaitGroup
		for range requests {
			wg.Go(func() {
				a, err := g.query(context.Background(), wholeMetric(64))
				if err != nil || len(a.series) != 800 {
					t.Errorf("%d series, %v", len(a.series), err)
				}
			})
		}
		wg.Wait()
		_, bytes := g.bucket.take()
		return bytes
	}
	if diff := cmp.Diff(read(1), read(50)); diff != "" {
		t.Errorf("bytes read for one request and for fifty (-one +fifty):\n%s", diff)
	}
}

// TestARepeatedPlanCountsOnce checks that series and bytes count once against limits if a block is
// replaced during a request.
func TestARepeatedPlanCountsOnce(t *testing.T) {
	dir, metas := twoBlocks(t)
	g := startGateway(t, dir, gatewayOptions{server: func(o *store.Options) {
		o.Limits = admission.LimitOptions{Series: 400, Samples: 1200 * 120}
	}})
	if _, err := g.query(context.Background(), only(t, metas[1])); err != nil {
		t.Fatal(err)
	}
	// The header of the first block is built, so that its series count before its chunks are
	// missing.
	warm := only(t, metas[0])
	warm.SkipChunks = true
	if _, err := g.query(context.Background(), warm); err != nil {
		t.Fatal(err)
	}
	old, replacement := metas[0].ULID, metas[0].ULID
	replacement[15] ^= 0x55
	if err := os.Rename(filepath.Join(dir, old.String()),
		filepath.Join(dir, replacement.String())); err != nil {
		t.Fatal(err)
	}
	damage(t, filepath.Join(dir, replacement.String(), "meta.json"), func(b []byte) []byte {
		return bytes.ReplaceAll(b, []byte(old.String()), []byte(replacement.String()))
	})
	req := wholeMetric(0)
	hints, err := anypb.New(&storepb.SeriesRequestHints{EnableQueryStats: true})
	if err != nil {
		t.Fatal(err)
	}
	req.Hints = hints
	a, err := g.query(context.Background(), req)
	if err != nil {
		t.Fatalf("the limit is 400 series and the block has 400: %v", err)
	}
	chunks := 0
	for _, s := range a.series {
		chunks += len(s.Chunks)
	}
	if got := a.hints.QueryStats; got.MergedSeriesCount != int64(len(a.series)) ||
		got.MergedChunksCount != int64(chunks) {
		t.Errorf("stats say %d series and %d chunks, the answer has %d and %d",
			got.MergedSeriesCount, got.MergedChunksCount, len(a.series), chunks)
	}
	if len(a.hints.QueriedBlocks) != 2 {
		t.Errorf("queried blocks: %v", a.hints.QueriedBlocks)
	}
}

// unknown is a catalog without a first view.
type unknown struct{ store.Catalog }

func (unknown) View() *catalog.View { return catalog.NewView(nil, false) }

// TestNothingIsAnsweredBeforeTheCatalogIsKnown checks that calls return Unavailable until the
// catalog has a view, because an empty answer would mean that there is no data.
func TestNothingIsAnsweredBeforeTheCatalogIsKnown(t *testing.T) {
	s := store.New(store.Options{Catalog: unknown{}})
	ctx := context.Background()
	_, names := s.LabelNames(ctx, &storepb.LabelNamesRequest{})
	_, values := s.LabelValues(ctx, &storepb.LabelValuesRequest{Label: "a"})
	_, info := s.Info(ctx, &storepb.InfoRequest{})
	for what, err := range map[string]error{
		"Series":     s.Series(wholeMetric(0), &frames{ctx: ctx}),
		"LabelNames": names, "LabelValues": values, "Info": info,
	} {
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: got %v, want Unavailable", what, err)
		}
	}
}

// TestBucketCodesAreNotRequestCodes checks that codes and time-outs of the object store's
// client do not become the code of the request.
func TestBucketCodesAreNotRequestCodes(t *testing.T) {
	dir, metas := twoBlocks(t)
	for _, fault := range []error{
		status.Error(codes.ResourceExhausted, "429"), status.Error(codes.Unavailable, "503"),
		context.DeadlineExceeded, context.Canceled,
	} {
		for _, kind := range []string{"index", "chunks"} {
			g := startGateway(t, dir, gatewayOptions{})
			fail := func(name string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
				if objectKind(name) != kind {
					return body, nil
				}
				return nil, errors.Join(fault, body.Close())
			}
			g.bucket.setOnRead(fail)
			if _, err := g.query(context.Background(), only(t, metas[0])); status.Code(
				err,
			) != codes.Aborted {
				t.Errorf("%s, %v: got %v, want Aborted", kind, fault, err)
			}
			if kind == "chunks" {
				continue
			}
			_, err := g.client.LabelNames(context.Background(),
				&storepb.LabelNamesRequest{End: 1 << 50})
			if status.Code(err) != codes.Internal {
				t.Errorf("label names, %v: got %v, want Internal", fault, err)
			}
		}
	}
}

// TestLabelRequestsHoldWhatTheyReserve sends concurrent label requests with an allowance that is
// just large enough. They wait, none fails, and all bytes are released.
func TestLabelRequestsHoldWhatTheyReserve(t *testing.T) {
	dir, _ := twoBlocks(t)
	g := startGateway(t, dir, gatewayOptions{server: func(o *store.Options) {
		o.Allowance = admission.AllowanceOptions{
			Bytes:        1 << 20,
			SmallLane:    256 << 10,
			SmallRequest: 1 << 10,
		}
	}})
	ctx := context.Background()
	ms := []*storepb.LabelMatcher{{Name: "__name__", Value: dataset.WholeMetricName}}
	names, err := g.client.LabelNames(ctx, &storepb.LabelNamesRequest{End: 1 << 50, Matchers: ms})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := g.client.LabelValues(ctx, &storepb.LabelValuesRequest{Label: "pod", End: 1 << 50})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			got, err := g.client.LabelNames(ctx,
				&storepb.LabelNamesRequest{End: 1 << 50, Matchers: ms})
			if err != nil || !cmp.Equal(got.Names, names.Names) {
				t.Errorf("names: %v, %v", got, err)
			}
		})
		wg.Go(func() {
			got, err := g.client.LabelValues(ctx,
				&storepb.LabelValuesRequest{Label: "pod", End: 1 << 50, Matchers: ms})
			if err != nil || !cmp.Equal(got.Values, pods.Values) {
				t.Errorf("values: %v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if n := g.inUse(t); n != 0 {
		t.Errorf("%v bytes of the allowance are still reserved", n)
	}

	// A request whose values do not fit is rejected with an error that names the label.
	large := wholeBlock(t, 5000)
	withBytes := func(n int64) *gateway {
		return startGateway(t, large, gatewayOptions{server: func(o *store.Options) {
			o.Allowance = admission.AllowanceOptions{
				Bytes:        n,
				SmallLane:    8 << 10,
				SmallRequest: 1 << 10,
			}
		}})
	}
	small := withBytes(120 << 10)
	if _, err = small.client.LabelValues(
		ctx, &storepb.LabelValuesRequest{Label: "pod", End: 1 << 50, Matchers: ms}); status.Code(
		err,
	) != codes.ResourceExhausted {
		t.Errorf("got %v, want ResourceExhausted", err)
	} else if strings.Contains(status.Convert(err).Message(), "rpc error") {
		t.Errorf("the message repeats the code: %v", err)
	}

	// A request for the few names of many series needs the bytes of index pages and of the names.
	// The series themselves need 2 MB more.
	few, err := withBytes(1<<20).client.LabelNames(
		ctx, &storepb.LabelNamesRequest{End: 1 << 50, Matchers: ms})
	if err != nil || !cmp.Equal(few.Names, names.Names) {
		t.Errorf("names: %v, %v, want %v", few, err, names.Names)
	}
}

// TestRequestsStayWithinTheirAllowance blocks sixteen whole-metric requests while they send, and
// measures the heap. Nothing is cached, so that all of it belongs to the requests.
func TestRequestsStayWithinTheirAllowance(t *testing.T) {
	const requests, series = 16, 12_000
	const allowance = 128 << 20
	g := startGateway(
		t,
		wholeBlock(t, series),
		gatewayOptions{indexBytes: -1, chunkBytes: -1, server: func(o *store.Options) {
			o.Allowance.Bytes = allowance
		}},
	)
	var sent atomic.Int64
	run := func(on func(n int) error) error {
		return g.Server.Series(wholeMetric(64),
			&frames{ctx: context.Background(), on: func(n int) error { sent.Add(1); return on(n) }})
	}
	if err := run(func(int) error { return nil }); err != nil {
		t.Fatal(err)
	}
	whole := sent.Load()
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for _, at := range []int64{1, whole / 3, whole - 10} {
		var here atomic.Int64
		leave := make(chan struct{})
		var wg sync.WaitGroup
		for range requests {
			wg.Go(func() {
				err := run(func(n int) error {
					if int64(n) == at {
						here.Add(1)
						<-leave
					}
					return nil
				})
				if err != nil {
					here.Add(1)
					t.Error(err)
				}
			})
		}
		// Some may have to wait until another request ends, because earlier ones have reserved
		// larger windows.
		for float64(here.Load())+g.metric(t, "larder_request_allowance_waiting",
			"large") < requests {
			runtime.Gosched()
		}
		if n := here.Load(); n < requests/2 {
			t.Errorf("only %d requests run concurrently", n)
		}
		held, reserved := heap()-before, int64(g.inUse(t))
		close(leave)
		wg.Wait()
		t.Logf("at frame %d of %d: %d MiB of heap, %d MiB reserved",
			at, whole, held>>20, reserved>>20)
		if held > reserved+reserved/4 {
			t.Errorf("at frame %d: %d bytes of heap, more than the %d reserved and a quarter",
				at, held, reserved)
		}
		if reserved > allowance {
			t.Errorf("%d bytes reserved of %d", reserved, int64(allowance))
		}
	}
	if n := g.inUse(t); n != 0 {
		t.Errorf("%v bytes of the allowance are still reserved", n)
	}
}
