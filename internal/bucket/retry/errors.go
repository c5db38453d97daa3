package retry

import (
	"errors"
	"fmt"
	"time"
)

var (
	// errNoAnswer is the error of a request that was not answered in time.
	errNoAnswer = errors.New("the bucket did not answer")
	// errStalled is the error of a body or a listing that made no progress.
	errStalled = errors.New("the bucket stopped sending")
	// errJumbled is the error of a listing that cannot be continued: without an order, delivered
	// names cannot be told from others.
	errJumbled = errors.New("the listing broke and cannot be continued: its names are not sorted")
)

// Error is the error of an operation that failed after more than one request.
type Error struct {
	// Err is the error of the last request, as the client made it.
	Err error
	// Requests is the number of requests that were sent.
	Requests int
	// Took is the time since the first request.
	Took time.Duration
	// Ended is the error of the caller's context if that ended the operation, else nil.
	Ended error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%v (%d requests in %s)", e.Err, e.Requests, e.Took.Round(time.Millisecond))
	if e.Ended != nil {
		text = fmt.Sprintf("%v: %s", e.Ended, text)
	}
	return text
}

func (e *Error) Unwrap() []error {
	if e.Ended != nil {
		return []error{e.Ended, e.Err}
	}
	return []error{e.Err}
}

// raw returns the client's own error.
func raw(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
