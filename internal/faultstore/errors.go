package faultstore

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"

	"github.com/minio/minio-go/v7"
)

// Response is what S3 answers with for the kind, and objstore's S3 client returns for it. ok is
// false for kinds that are no answer.
func (k Kind) Response(name string) (r minio.ErrorResponse, ok bool) {
	r = minio.ErrorResponse{Key: name, RequestID: "faultstore"}
	switch k {
	case ServerError, ListingError:
		r.StatusCode, r.Code, r.Message = http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again."
	case SlowDown:
		r.StatusCode, r.Code, r.Message = http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate."
	case AccessDenied:
		r.StatusCode, r.Code, r.Message = http.StatusForbidden, "AccessDenied", "Access Denied."
	case Vanished:
		r.StatusCode, r.Code, r.Message = http.StatusNotFound, "NoSuchKey", "The specified key does not exist."
	case Archived:
		r.StatusCode, r.Code, r.Message = http.StatusForbidden, "InvalidObjectState", "The operation is not valid for the object's storage class"
	default:
		return r, false
	}
	return r, true
}

// reset is what a read of a broken connection returns.
func reset() error {
	return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
}

// errNoListing is what a client that verifies listings makes of an answer that is none.
var errNoListing = errors.New("the answer is HTTP 200 and no listing of the bucket")

// inCall is what an HTTP client makes of an error before there is an answer.
func inCall(name string, err error) error {
	return &url.Error{Op: "Get", URL: "http://faultstore/" + name, Err: err}
}
