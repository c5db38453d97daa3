package bucket

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"larder/internal/bucket/retry"
	"larder/internal/bucket/slots"
	"larder/internal/faultstore"
	"larder/internal/faultstore/s3server"
)

// faultyS3 is a bucket with one object at an S3 server that fails as told.
type faultyS3 struct {
	*Stack
	server *s3server.Server
	faults *faultstore.Faults
	data   []byte
}

func openFaultyS3(t *testing.T, more string) *faultyS3 {
	t.Helper()
	f := &faultyS3{
		faults: faultstore.New(1),
		data:   bytes.Repeat([]byte("0123456789abcdef"), 20_000),
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "o"), f.data, 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	if f.server, err = s3server.Start(s3server.Options{Dir: dir, Faults: f.faults}); err != nil {
		t.Fatal(err)
	}
	conf, err := Parse([]byte(f.server.Config() + more))
	if err != nil {
		t.Fatal(err)
	}
	f.Stack, err = Open(conf, Options{
		Limiter: slots.New(slots.Options{}), WholeBytes: 1 << 20,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.server.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *faultyS3) read(ctx context.Context, off, length int64) ([]byte, error) {
	body, err := f.GetRange(ctx, "o", off, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var got bytes.Buffer
	_, err = got.ReadFrom(body)
	return got.Bytes(), err
}

// TestRetriesOverS3: the bytes come after any fault on the wire, hedged or not.
func TestRetriesOverS3(t *testing.T) {
	for _, more := range []string{"", "hedging_config: {enabled: true}\n"} {
		f := openFaultyS3(t, more)
		met := 0
		for _, kind := range []faultstore.Kind{faultstore.ServerError, faultstore.SlowDown,
			faultstore.Reset, faultstore.TruncatedBody, faultstore.ShortBody} {
			for _, at := range []int64{-1, 100_000} {
				f.faults.Set(faultstore.Rule{Kind: kind, At: at, Count: 1})
				got, err := f.read(t.Context(), 1000, 300_000)
				if err != nil || !bytes.Equal(got, f.data[1000:301_000]) {
					t.Errorf("%s at %d: %d bytes, %v", kind, at, len(got), err)
				}
				if met++; f.faults.Total() != met {
					t.Errorf("%s: no fault was met", kind)
				}
			}
		}
		f.faults.Set(faultstore.Rule{Kind: faultstore.Vanished})
		if _, err := f.read(t.Context(), 0, 10); !f.IsObjNotFoundErr(err) {
			t.Errorf("vanished: got %v", err)
		}
		f.faults.Set(faultstore.Rule{Kind: faultstore.AccessDenied})
		if _, err := f.read(t.Context(), 0, 10); !f.IsAccessDeniedErr(err) {
			t.Errorf("denied: got %v", err)
		}
	}
}

// TestRequestsAtAnS3ThatRefuses: each request of larder is one on the wire, unless the
// configuration sets max_retries.
func TestRequestsAtAnS3ThatRefuses(t *testing.T) {
	for more, each := range map[string]int{"": 1, "  max_retries: 3\n": 3} {
		f := openFaultyS3(t, more)
		f.faults.Set(faultstore.Rule{Kind: faultstore.SlowDown})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := f.read(ctx, 0, 10)
		var gaveUp *retry.Error
		if !errors.As(err, &gaveUp) || !strings.Contains(err.Error(), "reduce your request rate") {
			t.Fatalf("%q: got %v", more, err)
		}
		// The last one may have been abandoned between requests of the client.
		if sent, meant := f.server.Requests()[objstore.OpGetRange], gaveUp.Requests; meant < 3 ||
			sent > meant*each ||
			sent <= (meant-1)*each {
			t.Errorf("%q: %d requests on the wire for %d of larder's", more, sent, meant)
		}
	}
}

// TestListingsAreVerified: an answer that is no listing costs a retry, or is an error that shows
// what came. The client alone would have found an empty bucket.
func TestListingsAreVerified(t *testing.T) {
	for _, more := range []string{"", "  list_objects_version: v1\n"} {
		f := openFaultyS3(t, more)
		list := func(timeout time.Duration) (names []string, err error) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			err = f.Iter(
				ctx,
				"",
				func(name string) error { names = append(names, name); return nil },
			)
			return names, err
		}
		for kind, says := range map[faultstore.Kind]string{
			faultstore.HTMLPage:      `its root element is "html"`,
			faultstore.ErrorDocument: `its root element is "Error"`,
		} {
			f.faults.Set(faultstore.Rule{Kind: kind, Count: 1})
			if names, err := list(time.Minute); err != nil || !slices.Equal(names, []string{"o"}) {
				t.Errorf("%s, once: got %q, %v", kind, names, err)
			}
			f.faults.Set(faultstore.Rule{Kind: kind})
			names, err := list(2 * time.Second)
			if err == nil || len(names) > 0 || !strings.Contains(err.Error(), says) ||
				!strings.Contains(err.Error(), "/blocks") {
				t.Errorf("%s: got %q, %v, want an error with %q", kind, names, err, says)
			}
		}
	}
}
