package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/internal/requestlog"
	"larder/store/admission"
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

// clientAhead is how much earlier than larder a client may see that the deadline of its request has
// passed: it started the timer before it sent the request.
const clientAhead = 100 * time.Millisecond

// endOf returns the code of a request whose context has ended. A client cancels its request when
// its deadline passes, and that may arrive before the timer of larder fires. Such a request did not
// end in time. Only a cancellation long before the deadline is the client's decision.
func endOf(ctx context.Context) codes.Code {
	if at, ok := ctx.Deadline(); ok && time.Until(at) < clientAhead {
		return codes.DeadlineExceeded
	}
	return status.FromContextError(ctx.Err()).Code()
}

// statusOf returns the status that the client gets for err. A request that was cancelled or timed
// out gets the corresponding code. An error with a code keeps it. All other errors get the code
// fallback. The text is that of clientText. If other requests are why this one was rejected, the
// log says so at warn. The goroutine of the handler calls it.
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
	if admission.Overloaded(err) {
		requestlog.AtFault(ctx)
	}
	switch {
	case errors.As(err, &pe):
		return err
	case ctx.Err() != nil &&
		(errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return status.Error(endOf(ctx), clientText(err))
	case errors.As(err, &fault), errors.As(err, &read):
	case errors.As(err, &carried):
		st := carried.GRPCStatus()
		code := st.Code()
		if code == codes.Canceled && ctx.Err() != nil { // while it waited for its turn
			code = endOf(ctx)
		}
		if code != st.Code() || st.String() != err.Error() {
			// The status has the code. Its text need not repeat it.
			text := strings.Replace(clientText(err), st.String(), st.Message(), 1)
			return status.Error(code, text)
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
