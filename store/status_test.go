package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/store/block"
)

// TestStatusNamesTheBlockOnce checks the texts that clients get: the step with the prefix of
// Thanos, the block once, then the cause without a code of its own.
func TestStatusNamesTheBlockOnce(t *testing.T) {
	id := ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV")
	inBlock := func(err error) error { return &block.Error{ID: id, Err: err} }
	limit := status.Error(codes.ResourceExhausted, "series limit")
	step := func(err error) error {
		return fmt.Errorf("postings of block %s: %w", id, inBlock(err))
	}
	for want, err := range map[string]error{
		"Aborted: postings of block ID: gone":                   step(errors.New("gone")),
		"ResourceExhausted: postings of block ID: series limit": step(limit),
		"Aborted: block ID: gone":                               inBlock(errors.New("gone")),
		"ResourceExhausted: series limit":                       limit,
		"Aborted: block ID: rpc error: code = NotFound desc = lost": inBlock(
			&block.Fault{Err: status.Error(codes.NotFound, "lost")}),
	} {
		st := status.Convert(statusOf(context.Background(), err, codes.Aborted))
		got := strings.ReplaceAll(
			fmt.Sprintf("%s: %s", st.Code(), st.Message()), id.String(), "ID")
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestCancelledAtTheDeadline checks that a request has the code DeadlineExceeded if its client
// cancels it as the deadline passes, and Canceled if the client cancels it long before.
func TestCancelledAtTheDeadline(t *testing.T) {
	for left, want := range map[time.Duration]codes.Code{
		0: codes.DeadlineExceeded, clientAhead / 2: codes.DeadlineExceeded,
		time.Hour: codes.Canceled, -1: codes.Canceled, // -1: without a deadline
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if left >= 0 {
			ctx, cancel = context.WithTimeout(t.Context(), left)
		}
		cancel()
		for _, err := range []error{
			fmt.Errorf("read: %w", context.Canceled), status.Error(codes.Canceled, "queued"),
		} {
			if got := status.Code(statusOf(ctx, err, codes.Aborted)); got != want {
				t.Errorf("%s before the deadline: got %s for %v, want %s", left, got, err, want)
			}
		}
	}
}
