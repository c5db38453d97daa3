package store_test

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/bytecache"
	"larder/store/catalog"
	"larder/store/indexheader"
)

// panicking is a bucket whose client panics at a chosen place.
type panicking struct {
	objstore.Bucket
	// at is an operation or a part of a body, and a part of the object's name
	at *atomic.Pointer[string]
}

// here panics if at names this place.
func here(at *atomic.Pointer[string], what, name string) {
	op, object, _ := strings.Cut(*at.Load(), " ")
	if op == what && strings.Contains(name, object) {
		panic("boom at " + what)
	}
}

func (b panicking) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	here(b.at, "getrange", name)
	body, err := b.Bucket.GetRange(ctx, name, off, length)
	return panickingBody{body, name, b.at}, err
}

func (b panicking) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	here(b.at, "get", name)
	body, err := b.Bucket.Get(ctx, name)
	return panickingBody{body, name, b.at}, err
}

func (b panicking) Iter(
	ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption,
) error {
	here(b.at, "iter", dir)
	return b.Bucket.Iter(ctx, dir, func(name string) error {
		here(b.at, "listed", name)
		return f(name)
	}, o...)
}

func (b panicking) IterWithAttributes(
	ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	o ...objstore.IterOption,
) error {
	here(b.at, "iter", dir)
	return b.Bucket.IterWithAttributes(ctx, dir, f, o...)
}

type panickingBody struct {
	io.ReadCloser
	name string
	at   *atomic.Pointer[string]
}

func (b panickingBody) Read(p []byte) (int, error) {
	here(b.at, "read", b.name)
	return b.ReadCloser.Read(p)
}

func (b panickingBody) Close() error {
	err := b.ReadCloser.Close()
	here(b.at, "close", b.name)
	return err
}

// panickingRemote is an empty memcached that panics at a chosen place.
type panickingRemote struct{ at *atomic.Pointer[string] }

func (r panickingRemote) GetMulti(context.Context, []bytecache.ID, [][]byte) {
	here(r.at, "getmulti", "")
}
func (r panickingRemote) Set(bytecache.ID, []byte) { here(r.at, "set", "") }
func (r panickingRemote) Delete(bytecache.ID)      { here(r.at, "delete", "") }

// TestAPanicFailsOnlyItsRequest checks that the process survives a panic anywhere. The request gets
// Internal, all bytes and locks are released, and the next request is answered correctly.
func TestAPanicFailsOnlyItsRequest(t *testing.T) {
	dir, metas := twoBlocks(t)
	req := wholeMetric(1)
	want, err := startGateway(t, dir, gatewayOptions{}).query(t.Context(), req)
	if err != nil || len(want.series) == 0 {
		t.Fatalf("%v", err)
	}
	nowhere := ""
	for _, tc := range []struct {
		at      string
		request codes.Code // of the request
		sync    bool       // a sync fails
	}{
		{"getrange /index", codes.Internal, false},
		{"read /index", codes.Internal, false},
		{"close /index", codes.Internal, false},
		{"getrange /chunks", codes.Internal, false},
		{"read /chunks", codes.Internal, false},
		{"close /chunks", codes.OK, false}, // all data has been read
		{"getmulti", codes.Internal, false},
		{"set", codes.Internal, false},
		{"get deletion-mark", codes.OK, false}, // counts as unknown
		{"iter", codes.OK, true},
		{"listed", codes.OK, true},
		{"viewchanged", codes.OK, false},
	} {
		t.Run(tc.at, func(t *testing.T) {
			var at atomic.Pointer[string]
			at.Store(&nowhere)
			reg := prometheus.NewRegistry()
			o := gatewayOptions{
				wrap: func(b objstore.Bucket) objstore.Bucket { return panicking{b, &at} },
				viewChanged: func(*gateway, *catalog.View, *catalog.View) {
					here(&at, "viewchanged", "")
				},
				headers:    func(o *indexheader.Options) { o.Registerer = reg },
				remote:     panickingRemote{&at},
				indexBytes: -1, chunkBytes: -1,
			}
			g := startGateway(t, dir, o)
			at.Store(&tc.at)
			for range 3 {
				a, err := g.query(t.Context(), req)
				if status.Code(err) != tc.request ||
					tc.request == codes.OK && len(a.series) != len(want.series) {
					t.Errorf("got %v, want %s", err, tc.request)
				}
				if err != nil &&
					(!strings.Contains(err.Error(), "panic: boom") ||
						strings.Contains(err.Error(), "goroutine")) {
					t.Errorf("the client gets %v", err)
				}
			}
			if tc.at == "viewchanged" {
				g.Catalog.Tombstone(metas[0].ULID) // it is not deleted, so it stays
			}
			if err := g.Catalog.Sync(t.Context()); tc.sync != (err != nil) {
				t.Errorf("a sync: %v", err)
			}

			at.Store(&nowhere)
			if err := g.Catalog.Sync(t.Context()); err != nil {
				t.Errorf("after the panic: %v", err)
			}
			for range 2 {
				a, err := g.query(t.Context(), req)
				if err != nil || len(a.series) != len(want.series) {
					t.Fatalf("after the panic: %v", err)
				}
				for i := range a.series {
					if a.series[i].String() != want.series[i].String() {
						t.Fatalf("series %d differs", i)
					}
				}
			}
			if n := g.inUse(t); n != 0 {
				t.Errorf("%v bytes of the allowance are still reserved", n)
			}
		})
	}
}
