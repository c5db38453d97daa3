package pagecache

import (
	"errors"
	"fmt"
)

// Errors of Fetch and Refetch. An error of a read is wrapped in a *ReadError.
var (
	// ErrNotFound is returned if the object does not exist in the bucket. The caller decides what
	// that means.
	ErrNotFound = errors.New("object not found")
	// ErrTimeout is returned if a read exceeded the flight's deadline. It does not match
	// context.DeadlineExceeded, which is kept for the caller's deadline.
	ErrTimeout = errors.New("bucket read exceeded its deadline")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("page reader is closed")
)

// errAbandoned ends a flight without waiters. No caller sees it.
var errAbandoned = errors.New("no request waits for this read")

// ReadError is the error of a read of an object.
type ReadError struct {
	Object   string
	Off, Len int64
	Reads    int // how many times it was read; 0: it was not started
	Err      error
}

func (e *ReadError) Error() string {
	again := ""
	if e.Reads > 1 {
		again = fmt.Sprintf(", %d times", e.Reads)
	}
	return fmt.Sprintf(
		"read object %s at offset %d, %d bytes%s: %v", e.Object, e.Off, e.Len, again, e.Err,
	)
}

func (e *ReadError) Unwrap() error { return e.Err }

// notFoundError is ErrNotFound with the bucket's own error.
type notFoundError struct{ cause error }

func (e notFoundError) Error() string   { return ErrNotFound.Error() + ": " + e.cause.Error() }
func (e notFoundError) Unwrap() []error { return []error{ErrNotFound, e.cause} }

// ShortObjectError is returned if the bucket sent fewer bytes than requested: the object is shorter
// than expected, or the body was cut.
type ShortObjectError struct {
	Object    string
	Off       int64
	Want, Got int64
}

func (e *ShortObjectError) Error() string {
	return fmt.Sprintf(
		"object %s is shorter than expected: %d of %d bytes at offset %d", e.Object, e.Got, e.Want,
		e.Off,
	)
}

// LongBodyError is returned if the bucket sent more bytes than requested. A store that ignores the
// range does that, so the bytes are not those of the range.
type LongBodyError struct {
	Object string
	Off    int64
	Want   int64
}

func (e *LongBodyError) Error() string {
	return fmt.Sprintf(
		"bucket sent more than the %d requested bytes of object %s at offset %d", e.Want, e.Object,
		e.Off,
	)
}

// ChangedError is returned if the bucket states another size of the object than expected: the
// object was replaced.
type ChangedError struct {
	Object    string
	Want, Got int64
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("object %s has %d bytes in the bucket, not %d", e.Object, e.Got, e.Want)
}

// SpanError is returned for a span that does not lie in its object, or that starts before its
// predecessor. Spans come from references in a block, so this may be bad data as well as a bug.
type SpanError struct {
	Object string
	Size   int64
	Span   Span
	Reason string
}

func (e *SpanError) Error() string {
	return fmt.Sprintf(
		"span [%d,%d) of object %s (%d bytes): %s", e.Span.Off, e.Span.End, e.Object, e.Size,
		e.Reason,
	)
}
