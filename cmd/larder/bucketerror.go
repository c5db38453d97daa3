package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// bucketError says which bucket, where, and what was asked of it.
type bucketError struct {
	bucket, endpoint, operation, object string
	err                                 error
}

func (e *bucketError) Error() string {
	object := ""
	if e.object != "" {
		object = " " + e.object
	}
	return fmt.Sprintf("bucket %q at %s: %s%s: %v", e.bucket, e.endpoint, e.operation, object, e.err)
}

func (e *bucketError) Unwrap() error { return e.err }

// Cause is how the object store clients find their own errors.
func (e *bucketError) Cause() error { return e.err }

// told notes that the bucket answered or did not, and returns the error of an operation with what
// it was about. That an object is missing is an answer, which callers expect.
func (c *bucketClient) told(operation, object string, err error) error {
	if err == nil || c.use().IsObjNotFoundErr(err) {
		c.answered.Store(true)
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	bucket, endpoint := c.place.bucket, c.place.endpoint
	err = &bucketError{bucket: bucket, endpoint: endpoint, operation: operation, object: object, err: err}
	c.failure.Store(&err)
	return err
}

// silence is how long a start waits for the bucket before it says that there is no answer.
const silence = 2 * time.Second

// reportSilence says that the bucket has not answered since the start. The first sync goes on
// trying, and reports only when it gives up.
func (c *bucketClient) reportSilence(ctx context.Context) {
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
