package bucket

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/thanos-io/objstore"

	"larder/internal/redaction"
)

// signedBucket fails with the URL of its requests, as a client does that has no connection.
type signedBucket struct {
	objstore.Bucket
	err error
}

func (s signedBucket) Get(context.Context, string) (io.ReadCloser, error) {
	r := objstore.ObjectSizerReadCloser{
		ReadCloser: io.NopCloser(iotest.ErrReader(s.err)),
		Size:       func() (int64, error) { return 7, nil },
	}
	return r, nil
}

func (s signedBucket) Exists(context.Context, string) (bool, error) { return false, s.err }
func (s signedBucket) IsObjNotFoundErr(error) bool                  { return false }

// TestBucketErrorsTellNoSignature: neither the error of an operation nor that of a broken body has
// a signature or a value of the configuration. The wrapped errors can still be found.
func TestBucketErrorsTellNoSignature(t *testing.T) {
	const secret = "hunter2-s3cr3t"
	inner := &url.Error{
		Op: "Get", URL: "https://a.example/c/x?comp=list&sig=" + secret,
		Err: errors.New("no route for s3cr3t-value-9"),
	}
	c := &client{}
	var b objstore.Bucket = signedBucket{err: inner}
	c.current.Store(&b)
	hidden := redaction.NewValues("s3cr3t-value-9")
	c.hidden.Store(&hidden)
	f := func(what string, err error) {
		t.Helper()
		if got := (*url.Error)(nil); !errors.As(err, &got) || got != inner {
			t.Errorf("%s: the client's error is gone from %v", what, err)
		}
		text := err.Error()
		told := strings.Contains(text, secret) || strings.Contains(text, "value-9")
		if told || !strings.Contains(text, "comp=list&sig=<REDACTED>") {
			t.Errorf("%s: got %s", what, text)
		}
	}
	_, err := c.Exists(t.Context(), "x")
	f("look for", err)
	r, err := c.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := objstore.TryToGetSize(r); n != 7 || err != nil {
		t.Errorf("the size of the object is %d, %v", n, err)
	}
	_, err = io.ReadAll(r)
	f("read", err)
}
