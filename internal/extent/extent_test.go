package extent_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
	"github.com/thanos-io/objstore/providers/s3"

	"larder/internal/extent"
	"larder/internal/faultstore"
	"larder/internal/faultstore/s3server"
)

// proxied returns an S3 client of a folder's files behind a proxy that answers HEAD requests with a
// status, or, if it is 0, as the bucket does. heads counts these requests.
func proxied(t *testing.T, dir string, status int) (b objstore.Bucket, heads *int) {
	t.Helper()
	server, err := s3server.New(s3server.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	heads = new(int)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			if *heads++; status != 0 {
				w.WriteHeader(status)
				return
			}
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	conf := "bucket: blocks\nendpoint: " + strings.TrimPrefix(
		web.URL, "http://",
	) + "\ninsecure: true\naccess_key: a\nsecret_key: b\nregion: r\nmax_retries: 1\n"
	if b, err = s3.NewBucket(log.NewNopLogger(), []byte(conf), "test",
		extent.Transport); err != nil {
		t.Fatal(err)
	}
	return b, heads
}

func write(t *testing.T, path string, size int) {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOf asks buckets behind proxies that reject HEAD in all known ways.
func TestOf(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "some"), 10)
	for _, status := range []int{0, 400, 403, 404, 405, 501} {
		b, heads := proxied(t, dir, status)
		e, err := extent.Of(t.Context(), b, "some")
		if err != nil || e.Size != 10 || !strings.HasPrefix(e.Version, "etag ") || *heads != 1 {
			t.Errorf(
				"HEAD answered with %d: got %+v, %v with %d requests; want 10 bytes with one",
				status, e, err, *heads,
			)
		}
		if _, err := extent.Of(t.Context(), b, "missing"); err == nil ||
			!strings.Contains(err.Error(), "missing") ||
			!errors.Is(err, extent.ErrNotFound) {
			t.Errorf("HEAD answered with %d: size of a missing object: %v", status, err)
		}
	}
}

// TestOfWithoutARange: if the client notes no header and HEAD is rejected, the error says so.
func TestOfWithoutARange(t *testing.T) {
	mem := objstore.NewInMemBucket()
	if err := mem.Upload(t.Context(), "a", strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	faults := faultstore.New(1)
	faults.Set(faultstore.Rule{Kind: faultstore.AccessDenied, Ops: []string{objstore.OpAttributes}})
	if _, err := extent.Of(t.Context(), faultstore.Wrap(mem, faults), "a"); err == nil ||
		!strings.Contains(err.Error(), "does not state the size") {
		t.Errorf("got %v", err)
	}
}

// TestWatch: the answer to every ranged read states the present size of the object.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	fs, err := filesystem.NewBucket(dir)
	if err != nil {
		t.Fatal(err)
	}
	overS3, _ := proxied(t, dir, 0)
	for name, b := range map[string]objstore.Bucket{"filesystem": extent.Stating(fs),
		"s3": overS3} {
		for _, size := range []int{10, 7, 12} {
			write(t, filepath.Join(dir, "o"), size)
			ctx, seen := extent.Watch(context.Background())
			if _, ok := seen.Extent(); ok {
				t.Errorf("%s: an extent was noted before the read", name)
			}
			body, err := b.GetRange(ctx, "o", 2, 3)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, body); n != 3 || err != nil {
				t.Errorf("%s: read %d, %v", name, n, err)
			}
			body.Close()
			if e, ok := seen.Extent(); !ok || e.Size != int64(size) {
				t.Errorf("%s: got %+v, %v; want %d bytes", name, e, ok, size)
			}
		}
	}
}
