package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/thanos-io/objstore"
)

// opError says which bucket, where, and what was asked of it.
type opError struct {
	bucket, endpoint, operation, object string
	err                                 error
}

func (e *opError) Error() string {
	object := ""
	if e.object != "" {
		object = " " + e.object
	}
	return fmt.Sprintf("bucket %q at %s: %s%s: %v", e.bucket, e.endpoint, e.operation, object, e.err)
}

func (e *opError) Unwrap() error { return e.err }

// Cause is how the object store clients find their own errors.
func (e *opError) Cause() error { return e.err }

// told notes that the bucket answered or did not, and returns the error of an operation with what
// it was about. That an object is missing is an answer, which callers expect.
//
// Clients put the URL of a request into their errors, and a shared access signature stands in its
// query. Therefore errors are redacted here: they reach the log, pages, spans and clients of the
// StoreAPI.
func (c *client) told(operation, object string, err error) error {
	if err == nil || c.use().IsObjNotFoundErr(err) {
		c.answered.Store(true)
		return c.redacted(err)
	}
	if err = c.redacted(err); errors.Is(err, context.Canceled) {
		return err
	}
	bucket, endpoint := c.place.bucket, c.place.endpoint
	err = &opError{bucket: bucket, endpoint: endpoint, operation: operation, object: object, err: err}
	c.failure.Store(&err)
	return err
}

// body is what a client returns to read from. Its errors are those of requests, too.
type body struct {
	io.ReadCloser
	c *client
}

func (b body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil || err == io.EOF { //nolint:errorlint // io.Reader's own
		return n, err
	}
	return n, b.c.redacted(err)
}

// ObjectSize is the size of what is read, where the client knows it.
func (b body) ObjectSize() (int64, error) { return objstore.TryToGetSize(b.ReadCloser) }

// reads returns what a client returned to read from, and its error, both with what they tell
// redacted.
func (c *client) reads(
	operation, object string, r io.ReadCloser, err error,
) (io.ReadCloser, error) {
	if err != nil {
		return r, c.told(operation, object, err)
	}
	c.answered.Store(true)
	return body{r, c}, nil
}

// redacted returns an error without what may be a secret. Of a client that was replaced since, it
// knows the shapes of secrets, not their values.
func (c *client) redacted(err error) error { return c.hidden.Load().Error(err) }

// silence is how long a start waits for the bucket before it says that there is no answer.
const silence = 2 * time.Second

// reportSilence says that the bucket has not answered since the start. The first sync goes on
// trying, and reports only when it gives up.
func (c *client) reportSilence(ctx context.Context) {
	wait := time.NewTimer(silence)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return
	case <-wait.C:
	}
	if c.answered.Load() {
		return
	}
	attrs := []any{"bucket", c.place.bucket, "endpoint", c.place.endpoint, "waited", silence}
	if err := c.failure.Load(); err != nil {
		attrs = append(attrs, "err", *err)
	}
	c.logger.Warn("the bucket has not answered yet", attrs...)
}
