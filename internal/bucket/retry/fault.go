package retry

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/thanos-io/objstore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/panics"
)

// Reasons for repeating a request.
const (
	reasonThrottled = "throttled"    // 503, 429
	reasonServer    = "server_error" // any other answer that reports a failure of the server
	// reasonConnection: refused, reset, timed out in the client, and unknown errors
	reasonConnection = "connection"
	reasonNoAnswer   = "no_answer"   // no answer within Options.FirstByte
	reasonBroken     = "broken_body" // the body failed
	reasonShort      = "short_body"  // the body ended early
	reasonStalled    = "stalled"     // no progress within Options.Stall
	reasonChanged    = "changed"     // a folder was deleted while it was being listed
)

func reasons() []string {
	return []string{
		reasonThrottled, reasonServer, reasonConnection, reasonNoAnswer, reasonBroken, reasonShort,
		reasonStalled, reasonChanged,
	}
}

// Final reports whether an error of a bucket is an answer that a retry does not change: access
// denied, an archived object, another 4xx. A missing object is final too, but only the client knows
// that for all types of bucket.
func Final(err error) bool { return reasonOf(raw(err)) == "" }

// reasonOf returns the reason for repeating a request that failed with a client's error, "" if it
// must not be repeated.
func (b *Bucket) reasonOf(err error) string {
	if b.Bucket.IsObjNotFoundErr(err) || b.Bucket.IsAccessDeniedErr(err) {
		return ""
	}
	return reasonOf(err)
}

func reasonOf(err error) string {
	switch {
	case errors.Is(err, errNoAnswer):
		return reasonNoAnswer
	case errors.Is(err, errStalled):
		return reasonStalled
	}
	var panicked *panics.Error
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &panicked) || errors.As(err, &certificate) ||
		errors.Is(err, objstore.ErrOptionNotSupported) || errors.Is(err, fs.ErrPermission) ||
		errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return ""
	}
	var a answer
	a.find(err)
	return a.reason()
}

// listReasonOf returns the reason for repeating a listing, which names no object that could be
// missing.
//
// A listing of a file system takes several steps. It fails with ErrNotExist if a folder is deleted
// between two of them, as a compactor does. An object store has no such moment: the next listing of
// the file system shows the folder as empty, too.
func (b *Bucket) listReasonOf(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return reasonChanged
	}
	return b.reasonOf(err)
}

// answer is the server's answer as far as the error of a client tells it.
type answer struct {
	status int // HTTP status, 0 if unknown
	code   string
	grpc   codes.Code
}

func (a answer) reason() string {
	switch {
	// These codes tell more than their status: S3 sends some transient errors with 400.
	case strings.HasPrefix(a.code, "SlowDown"),
		strings.HasPrefix(a.code, "Throttl"),
		a.code == "RequestLimitExceeded":
		return reasonThrottled
	case slices.Contains([]string{
		"RequestTimeout", "InternalError", "OperationAborted", "ExpiredToken",
		"ExpiredTokenException",
	}, a.code):
		return reasonServer
	}
	switch {
	case a.status == http.StatusTooManyRequests, a.status == http.StatusServiceUnavailable:
		return reasonThrottled
	case a.status == http.StatusRequestTimeout, a.status == 499, a.status >= 500:
		return reasonServer
	case a.status >= 400:
		return ""
	}
	switch a.grpc {
	case codes.ResourceExhausted:
		return reasonThrottled
	case codes.Unavailable, codes.Internal, codes.Aborted, codes.DeadlineExceeded, codes.DataLoss:
		return reasonServer
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.Unauthenticated, codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented:
		return ""
	}
	return reasonConnection
}

// Unsatisfiable reports whether err says that the object ends before the requested range.
func Unsatisfiable(err error) bool {
	var a answer
	a.find(err)
	return a.status == http.StatusRequestedRangeNotSatisfiable || a.code == "InvalidRange" ||
		a.grpc == codes.OutOfRange
}

// find searches err and the errors that it wraps. The clients' errors have neither a type nor an
// interface in common, but their fields have the same names. Reading the fields by name avoids
// linking eight clients.
func (a *answer) find(err error) {
	for err != nil && a.status == 0 && a.grpc == codes.OK {
		if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok &&
			s.GRPCStatus().Code() != codes.Unknown {
			a.grpc = s.GRPCStatus().Code()
		}
		a.fields(reflect.ValueOf(err))
		switch e := err.(type) { //nolint:errorlint // each layer is examined by itself
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Cause() error }:
			err = e.Cause()
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				a.find(err)
			}
			return
		default:
			return
		}
	}
}

func (a *answer) fields(v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return
	}
	field := func(name string) reflect.Value {
		f, ok := v.Type().FieldByName(name)
		if !ok || !f.IsExported() {
			return reflect.Value{}
		}
		found, err := v.FieldByIndexErr(f.Index)
		if err != nil {
			return reflect.Value{}
		}
		return found
	}
	// All clients have StatusCode, except GCS, whose Code is a number, and COS.
	for _, name := range []string{"StatusCode", "Code"} {
		if f := field(name); f.IsValid() && f.CanInt() && a.status == 0 {
			a.status = int(f.Int())
		}
	}
	if f := field("Response"); f.IsValid() && a.status == 0 {
		if r, ok := f.Interface().(*http.Response); ok && r != nil {
			a.status = r.StatusCode
		}
	}
	for _, name := range []string{"ErrorCode", "Code"} {
		if f := field(name); f.IsValid() && f.Kind() == reflect.String && a.code == "" {
			a.code = f.String()
		}
	}
}
