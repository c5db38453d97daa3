package s3server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/minio/minio-go/v7"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/s3"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"larder/internal/faultstore"
	"larder/internal/faultstore/s3server"
)

const size = 300_000

func folder(t *testing.T) (dir string, object []byte) {
	t.Helper()
	dir = t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	object = make([]byte, size)
	for i := range object {
		object[i] = byte(r.Uint32())
	}
	for name, b := range map[string][]byte{
		"01A/index": object, "01A/meta.json": []byte("{}"), "01A/chunks/000001": object,
		"01A/chunks/000002": object[:7],
		"01B/meta.json":     []byte("{}"), "01C/meta.json": []byte("{}"),
		"debug/with blank+plus": []byte("x"), "file": []byte("y"),
	} {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, object
}

// start starts a server and the client that larder would read it with; the client does not retry.
func start(t *testing.T, opts s3server.Options) (*s3server.Server, objstore.Bucket) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	s, err := s3server.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Config map[string]any `yaml:"config"`
	}
	if err := yaml.Unmarshal([]byte(s.Config()+"  max_retries: 1\n"), &doc); err != nil {
		t.Fatal(err)
	}
	conf, err := yaml.Marshal(doc.Config)
	if err != nil {
		t.Fatal(err)
	}
	var transport http.RoundTripper
	b, err := s3.NewBucket(
		log.NewNopLogger(),
		conf,
		"test",
		func(rt http.RoundTripper) http.RoundTripper {
			transport = rt
			return rt
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		(&http.Client{Transport: transport}).CloseIdleConnections()
		goleak.VerifyNone(t, leaks)
	})
	return s, b
}

func read(ctx context.Context, b objstore.Bucket, name string, off, length int64) ([]byte, error) {
	r, err := b.GetRange(ctx, name, off, length)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(r)
	return got, errors.Join(err, r.Close())
}

func list(b objstore.Bucket, dir string, opts ...objstore.IterOption) (names []string, err error) {
	err = b.Iter(
		context.Background(),
		dir,
		func(name string) error { names = append(names, name); return nil },
		opts...)
	slices.Sort(names)
	return names, err
}

func TestAClientReadsAFolder(t *testing.T) {
	dir, object := folder(t)
	for _, entries := range []int{0, 1, 2} {
		s, b := start(t, s3server.Options{Dir: dir, PageEntries: entries})
		ctx := context.Background()
		for _, r := range [][2]int64{{0, size}, {0, 1}, {size - 1, 1}, {1000, 200_000},
			{size - 10, 100}, {5, -1}, {0, -1}} {
			want := object[r[0]:]
			if r[1] >= 0 {
				want = want[:min(r[1], int64(len(want)))]
			}
			if got, err := read(ctx, b, "01A/index", r[0], r[1]); err != nil ||
				!bytes.Equal(got, want) {
				t.Errorf("range %v: %d bytes, %v; want %d", r, len(got), err, len(want))
			}
		}
		if a, err := b.Attributes(ctx, "01A/index"); err != nil || a.Size != size ||
			time.Since(a.LastModified).Abs() > time.Hour {
			t.Errorf("attributes: %+v, %v", a, err)
		}
		if ok, err := b.Exists(ctx, "01A/index"); !ok || err != nil {
			t.Errorf("exists: %v, %v", ok, err)
		}
		for _, name := range []string{"01A/none", "none/at/all", "01A", "../s3server_test.go"} {
			if ok, err := b.Exists(ctx, name); ok || err != nil {
				t.Errorf("%s exists: %v, %v", name, ok, err)
			}
			if _, err := b.Get(ctx, name); !b.IsObjNotFoundErr(err) {
				t.Errorf("get %s: %v", name, err)
			}
		}
		for prefix, want := range map[string][]string{
			"":           {"01A/", "01B/", "01C/", "debug/", "file"},
			"01A":        {"01A/chunks/", "01A/index", "01A/meta.json"},
			"01A/chunks": {"01A/chunks/000001", "01A/chunks/000002"},
			"debug":      {"debug/with blank+plus"},
			"nothing":    nil,
		} {
			if got, err := list(b, prefix); err != nil || !slices.Equal(got, want) {
				t.Errorf("list %q: %q, %v; want %q", prefix, got, err, want)
			}
		}
		want := []string{
			"01A/chunks/000001",
			"01A/chunks/000002",
			"01A/index",
			"01A/meta.json",
			"01B/meta.json",
			"01C/meta.json",
			"debug/with blank+plus",
			"file",
		}
		if got, err := list(b, "", objstore.WithRecursiveIter()); err != nil ||
			!slices.Equal(got, want) {
			t.Errorf("list all: %q, %v; want %q", got, err, want)
		}
		if got, err := list(b, "01A", objstore.WithRecursiveIter()); err != nil ||
			!slices.Equal(got, want[:4]) {
			t.Errorf("list a block: %q, %v; want %q", got, err, want[:4])
		}
		if n := s.Requests(); n[objstore.OpGetRange] != 6 || n[objstore.OpIter] == 0 {
			t.Errorf("counted %v", n)
		}
	}
}

// TestFaultsOnTheWire: objstore's client makes of each fault what faultstore.Bucket makes of it
// without a wire.
func TestFaultsOnTheWire(t *testing.T) {
	dir, object := folder(t)
	f := faultstore.New(7)
	_, b := start(t, s3server.Options{Dir: dir, Faults: f})
	want := object[1000:201_000]
	for _, at := range []int64{0, 100_000} {
		for _, kind := range faultstore.Kinds() {
			f.Set(faultstore.Rule{Kind: kind, At: at})
			ctx, cancel := context.Background(), context.CancelFunc(func() {})
			if kind == faultstore.Timeout || kind == faultstore.StalledBody {
				ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
			}
			got, err := read(ctx, b, "01A/index", 1000, 200_000)
			cancel()
			early := err != nil && len(got) < len(want) && bytes.HasPrefix(want, got)
			code := minio.ToErrorResponse(err).StatusCode
			var ok bool
			switch kind {
			case faultstore.ServerError:
				ok = code == 500
			case faultstore.SlowDown:
				ok = code == 503 && minio.ToErrorResponse(err).Code == "SlowDown"
			case faultstore.AccessDenied:
				ok = b.IsAccessDeniedErr(err)
			case faultstore.Vanished:
				ok = b.IsObjNotFoundErr(err)
			case faultstore.Timeout, faultstore.StalledBody:
				ok = early && ctx.Err() != nil
			case faultstore.Reset, faultstore.TruncatedBody:
				ok = early
			case faultstore.ShortBody:
				// An empty body is io.EOF to the client before the first read.
				ok = (err == nil || errors.Is(err, io.EOF)) && len(got) < len(want) &&
					bytes.HasPrefix(want, got)
			case faultstore.LongBody:
				ok = err == nil && len(got) > len(want) && bytes.HasPrefix(got, want)
			case faultstore.FlippedBit:
				ok = err == nil && len(got) == len(want) && !bytes.Equal(got, want)
			case faultstore.Archived:
				ok = code == 403 && minio.ToErrorResponse(err).Code == "InvalidObjectState"
			case faultstore.SlowFirstByte,
				faultstore.ListingError,
				faultstore.HTMLPage,
				faultstore.ErrorDocument,
				faultstore.ShortListing:
				ok = err == nil && bytes.Equal(got, want)
			}
			if !ok {
				t.Errorf("%s at %d: %d bytes, %v", kind, at, len(got), err)
			}
			if at == 100_000 &&
				(kind == faultstore.StalledBody || kind == faultstore.TruncatedBody) &&
				len(got) != 100_000 {
				t.Errorf("%s: %d bytes came, want 100000", kind, len(got))
			}
			if n := f.Counts()[kind]; kind != faultstore.ListingError &&
				kind != faultstore.ShortListing &&
				!kind.NoListing() &&
				n == 0 {
				t.Errorf("%s was not counted", kind)
			}
			f.Heal()
			if got, err := read(context.Background(), b, "01A/index", 1000, 200_000); err != nil ||
				!bytes.Equal(got, want) {
				t.Errorf("after %s: %d bytes, %v", kind, len(got), err)
			}
		}
	}
	for _, kind := range []faultstore.Kind{faultstore.ListingError, faultstore.ServerError,
		faultstore.Reset, faultstore.AccessDenied} {
		f.Set(faultstore.Rule{Kind: kind})
		if names, err := list(b, ""); err == nil {
			t.Errorf("%s: listed %q", kind, names)
		}
	}
	// A client that does not look at what the answer is finds an empty bucket. That is what these
	// faults are for.
	for _, kind := range []faultstore.Kind{faultstore.HTMLPage, faultstore.ErrorDocument} {
		f.Set(faultstore.Rule{Kind: kind})
		if names, err := list(b, ""); err != nil || len(names) > 0 {
			t.Errorf("%s: listed %q, %v", kind, names, err)
		}
	}
	f.Set(faultstore.Rule{Kind: faultstore.ShortListing, At: 2})
	if names, err := list(b, ""); err != nil || !slices.Equal(names, []string{"01A/", "01B/"}) {
		t.Errorf("short listing: %q, %v", names, err)
	}
	f.Set(faultstore.Rule{Kind: faultstore.Reset, Ops: []string{objstore.OpAttributes}})
	if _, err := b.Attributes(context.Background(), "01A/index"); err == nil {
		t.Error("the head of an object came over a connection that was reset")
	}
}

// TestAPageOfAListingFails: the entries of the pages before have been seen by then.
func TestAPageOfAListingFails(t *testing.T) {
	dir, _ := folder(t)
	f := faultstore.New(7)
	_, b := start(t, s3server.Options{Dir: dir, Faults: f, PageEntries: 2})
	f.Set(faultstore.Rule{Kind: faultstore.ServerError, Skip: 1})
	if names, err := list(b, ""); err == nil || !slices.Equal(names, []string{"01A/", "01B/"}) {
		t.Errorf("listed %q, %v", names, err)
	}
}

func TestADistantBucket(t *testing.T) {
	dir, object := folder(t)
	_, b := start(
		t,
		s3server.Options{
			Dir: dir,
			Latency: s3server.Latency{
				FirstByte:      20 * time.Millisecond,
				Spread:         0.1,
				BytesPerSecond: size * 10,
			},
		},
	)
	began := time.Now()
	got, err := read(context.Background(), b, "01A/index", 0, size)
	if err != nil || !bytes.Equal(got, object) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	// Never faster than the model; how much slower is the machine's affair.
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("took %s", took)
	}
}
