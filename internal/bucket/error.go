package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/thanos-io/objstore"
)

// opError is the error of an operation. It names the bucket, its endpoint, the operation and the
// object.
type opError struct {
	bucket, endpoint, operation, object string
	err                                 error
}

func (e *opError) Error() string {
	object := ""
	if e.object != "" {
		object = " " + e.object
	}
	return fmt.Sprintf("bucket %q at %s: %s%s: %v",
		e.bucket, e.endpoint, e.operation, object, e.err)
}

func (e *opError) Unwrap() error { return e.err }

// Cause returns the wrapped error. The object store clients find their own errors by it.
func (e *opError) Cause() error { return e.err }

// told records whether the bucket has answered, and wraps the error of an operation in an opError.
// The error for a missing object is an answer that callers expect; it is not wrapped.
//
// Errors of clients contain the URL of the request, whose query may have a shared access signature.
// They reach the log, pages, spans and clients of the StoreAPI. Therefore told redacts them.
func (c *client) told(operation, object string, err error) error {
	if err == nil || c.use().IsObjNotFoundErr(err) {
		c.answered.Store(true)
		return c.redacted(err)
	}
	if err = c.redacted(err); errors.Is(err, context.Canceled) {
		return err
	}
	err = &opError{
		bucket: c.place.bucket, endpoint: c.place.endpoint,
		operation: operation, object: object, err: err,
	}
	c.failure.Store(&err)
	return err
}

// body is the body of an answer. It redacts errors of reads.
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

// ObjectSize returns the size of the body if the provider's client knows it.
func (b body) ObjectSize() (int64, error) { return objstore.TryToGetSize(b.ReadCloser) }

// reads wraps the body and the error that the provider's client returned for a read.
func (c *client) reads(
	operation, object string, r io.ReadCloser, err error,
) (io.ReadCloser, error) {
	if err != nil {
		return r, c.told(operation, object, err)
	}
	c.answered.Store(true)
	return body{r, c}, nil
}

// redacted removes secrets from an error. Secrets of a client that was replaced since are found
// by their shape only, not by their value.
func (c *client) redacted(err error) error { return c.hidden.Load().Error(err) }

// silence is how long larder waits for a first answer of the bucket before it logs a warning.
const silence = 2 * time.Second

// reportSilence logs a warning if the bucket has not answered since the start. The first sync
// retries during that time, and reports an error only when it fails for good.
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
