package store

import (
	"context"
	"errors"

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
// otherwise. The text is not changed, because Queriers search it.
//
// Errors of the bucket get the code otherwise, even if they carry a code or a deadline. These do
// not belong to the request: the client of an object store may use gRPC or have deadlines of its
// own.
func statusOf(ctx context.Context, err error, otherwise codes.Code) error {
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
		return status.Error(status.FromContextError(ctx.Err()).Code(), err.Error())
	case errors.As(err, &fault), errors.As(err, &read):
	case errors.As(err, &carried):
		if st := carried.GRPCStatus(); st.String() != err.Error() {
			return status.Error(st.Code(), err.Error())
		}
		return err // it is not wrapped; a new status would repeat the code in its text
	}
	return status.Error(otherwise, err.Error())
}

// ready returns Unavailable until the blocks of the bucket are known, because an empty answer would
// wrongly mean that there is no data.
func (s *Server) ready() error {
	if !s.opts.Catalog.View().Ready {
		return status.Error(codes.Unavailable,
			"Not ready: the blocks of the bucket are not known yet")
	}
	return nil
}
