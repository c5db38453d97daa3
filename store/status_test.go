package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

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
