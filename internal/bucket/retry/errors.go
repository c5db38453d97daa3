package retry

import (
	"errors"
	"fmt"
	"time"
)

var (
	// errNoAnswer ends a request that was not answered.
	errNoAnswer = errors.New("the bucket did not answer")
	// errStalled ends a body or a listing that made no progress.
	errStalled = errors.New("the bucket stopped sending")
	// errJumbled ends a listing that cannot be continued: what was delivered cannot
	// be told from what was not.
	errJumbled = errors.New(
		"the listing broke, and its names are in no order by which it could go on",
	)
)

// Error is an operation that was given up after more than one request.
type Error struct {
	// Err is what the last request failed with, as the client made it.
	Err error
	// Requests were sent since Took ago.
	Requests int
	Took     time.Duration
	// Ended is the error of the caller's context, if that ended the operation.
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

// raw returns what the client made of an error.
func raw(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
