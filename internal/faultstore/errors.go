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

// Response returns the error that S3 answers with for the kind, as objstore's S3 client returns it.
// ok is false for kinds without an answer.
func (k Kind) Response(name string) (r minio.ErrorResponse, ok bool) {
	r = minio.ErrorResponse{Key: name, RequestID: "faultstore"}
	switch k {
	case ServerError, ListingError:
		r.StatusCode, r.Code, r.Message = http.StatusInternalServerError, "InternalError",
			"We encountered an internal error. Please try again."
	case SlowDown:
		r.StatusCode, r.Code, r.Message = http.StatusServiceUnavailable, "SlowDown",
			"Please reduce your request rate."
	case AccessDenied:
		r.StatusCode, r.Code, r.Message = http.StatusForbidden, "AccessDenied", "Access Denied."
	case Vanished:
		r.StatusCode, r.Code, r.Message = http.StatusNotFound, "NoSuchKey",
			"The specified key does not exist."
	case Archived:
		r.StatusCode, r.Code, r.Message = http.StatusForbidden, "InvalidObjectState",
			"The operation is not valid for the object's storage class"
	default:
		return r, false
	}
	return r, true
}

// reset returns the error of a read of a broken connection.
func reset() error {
	return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
}

// errNoListing is the error of a client that verifies listings for an answer that is no listing.
var errNoListing = errors.New("the answer is HTTP 200 and no listing of the bucket")

// inCall wraps an error that came before any answer as an HTTP client does.
func inCall(name string, err error) error {
	return &url.Error{Op: "Get", URL: "http://faultstore/" + name, Err: err}
}
