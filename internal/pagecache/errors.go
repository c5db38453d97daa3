package pagecache

import (
	"errors"
	"fmt"
)

// Errors that a Fetch or Refetch returns. Where an object was being read, they
// are wrapped in a *ReadError, which says which.
var (
	// ErrNotFound is returned when the object does not exist in the bucket. It
	// is not retried here: whoever planned the read decides what that means.
	ErrNotFound = errors.New("object not found")
	// ErrTimeout is returned when a read ran into the flight's deadline, not
	// into the caller's. It deliberately does not match
	// context.DeadlineExceeded.
	ErrTimeout = errors.New("bucket read exceeded its deadline")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("page reader is closed")
)

// errAbandoned ends a flight that nobody waits for: nobody sees it.
var errAbandoned = errors.New("nobody waits for this read")

// ReadError says which read of which object failed.
type ReadError struct {
	Object   string
	Off, Len int64
	Reads    int // how often it was tried; 0: it was not begun
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

// notFoundError carries the bucket's own words beside ErrNotFound.
type notFoundError struct{ cause error }

func (e notFoundError) Error() string   { return ErrNotFound.Error() + ": " + e.cause.Error() }
func (e notFoundError) Unwrap() []error { return []error{ErrNotFound, e.cause} }

// ShortObjectError is returned when the bucket sent fewer bytes than asked for:
// the object is shorter than expected, or the body was cut.
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

// LongBodyError is returned when the bucket sent more bytes than asked for, as
// a store does that ignores the range: what came is then not the range.
type LongBodyError struct {
	Object string
	Off    int64
	Want   int64
}

func (e *LongBodyError) Error() string {
	return fmt.Sprintf(
		"bucket sent more than the %d bytes asked for of object %s at offset %d", e.Want, e.Object,
		e.Off,
	)
}

// ChangedError is returned when the bucket says that an object has another size
// than it was known by: its bytes are not those that were meant.
type ChangedError struct {
	Object    string
	Want, Got int64
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("object %s has %d bytes in the bucket, not %d", e.Object, e.Got, e.Want)
}

// SpanError is returned for a span that does not lie in its object, or that
// starts before its predecessor. Spans come from references stored in a block,
// so this is bad data at least as often as a bug.
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
