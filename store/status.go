package store

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/store/block"
)

// contained wraps f and turns its panic into an Internal error.
func contained(f func() error) func() error { return panics.Contained(f) }

// recovered turns a panic of a handler, or of work that it waited for, into an Internal error. It
// logs and counts each panic once.
func (s *Server) recovered(err *error) {
	if v := recover(); v != nil {
		*err = s.panics.Caught(v)
	}
	if s.panics.Note(*err) {
		*err = status.Error(codes.Internal, (*err).Error())
	}
}

// statusOf returns the status that the client gets for err. A request that was cancelled or timed
// out gets the corresponding code. An error with a code keeps it. All other errors get the code
// fallback. The text is that of clientText.
//
// Errors of the bucket get the code fallback, even if they carry a code or a deadline. These do
// not belong to the request: the client of an object store may use gRPC or have deadlines of its
// own.
func statusOf(ctx context.Context, err error, fallback codes.Code) error {
	if err == nil {
		return nil
	}
	var (
		pe      *panics.Error
		fault   *block.Fault
		read    *pagecache.ReadError
		carried interface{ GRPCStatus() *status.Status }
	)
	switch {
	case errors.As(err, &pe):
		return err
	case ctx.Err() != nil &&
		(errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return status.Error(status.FromContextError(ctx.Err()).Code(), clientText(err))
	case errors.As(err, &fault), errors.As(err, &read):
	case errors.As(err, &carried):
		if st := carried.GRPCStatus(); st.String() != err.Error() {
			// The status has the code. Its text need not repeat it.
			text := strings.Replace(clientText(err), st.String(), st.Message(), 1)
			return status.Error(st.Code(), text)
		}
		return err // it is not wrapped; a new status would repeat the code in its text
	}
	return status.Error(fallback, clientText(err))
}

// clientText returns the text of err. If it names a block twice in a row, because both the step and
// its cause do, the text names it once. Nothing else changes, because clients search the texts of
// Thanos.
func clientText(err error) string {
	text := err.Error()
	var be *block.Error
	if errors.As(err, &be) {
		id := be.ID.String() + ": "
		text = strings.ReplaceAll(text, id+"block "+id, id)
	}
	return text
}

// ready returns Unavailable until the blocks of the bucket are known, because an empty answer would
// wrongly mean that there is no data. Options.Refuse may forbid to answer later, too.
func (s *Server) ready() error {
	if s.opts.Refuse != nil {
		if why := s.opts.Refuse(); why != "" {
			return status.Error(codes.Unavailable, "Not ready: "+why)
		}
	}
	if !s.opts.Catalog.View().Ready {
		return status.Error(codes.Unavailable,
			"Not ready: the blocks of the bucket are not known yet")
	}
	return nil
}
