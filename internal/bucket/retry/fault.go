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

// Why a request is repeated.
const (
	reasonThrottled = "throttled"    // 503, 429
	reasonServer    = "server_error" // any other answer that says that the server failed
	// no answer: refused, reset, timed out below us, and what is not known
	reasonConnection = "connection"
	reasonNoAnswer   = "no_answer"   // none within Options.FirstByte
	reasonBroken     = "broken_body" // the body failed
	reasonShort      = "short_body"  // the body ended early
	reasonStalled    = "stalled"     // nothing more came within Options.Stall
	reasonChanged    = "changed"     // a folder was deleted while it was being listed
)

func reasons() []string {
	return []string{
		reasonThrottled,
		reasonServer,
		reasonConnection,
		reasonNoAnswer,
		reasonBroken,
		reasonShort,
		reasonStalled,
		reasonChanged,
	}
}

// Final tells whether an error of a bucket is an answer that repeating the request
// does not change: access denied, an archived object, another 4xx. A missing object
// is one too, which only the client knows for all types of bucket.
func Final(err error) bool { return reasonOf(raw(err)) == "" }

// reasonOf tells why a request that failed with a client's error is repeated;
// "" if it must not be.
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
	if errors.As(err, &panicked) || errors.As(err, &certificate) || errors.Is(err, objstore.ErrOptionNotSupported) ||
		errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, fs.ErrInvalid) {
		return ""
	}
	var a answer
	a.find(err)
	return a.reason()
}

// listReasonOf is reasonOf for a listing, which names no object that could be missing.
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

// answer is what the error of a client tells of the server's answer.
type answer struct {
	status int // of HTTP; 0: unknown
	code   string
	grpc   codes.Code
}

func (a answer) reason() string {
	switch {
	// Codes that tell more than their status does: S3 has 400 for some that pass.
	case strings.HasPrefix(a.code, "SlowDown"),
		strings.HasPrefix(a.code, "Throttl"),
		a.code == "RequestLimitExceeded":
		return reasonThrottled
	case slices.Contains([]string{"RequestTimeout", "InternalError", "OperationAborted", "ExpiredToken", "ExpiredTokenException"}, a.code):
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
	case codes.InvalidArgument,
		codes.NotFound,
		codes.AlreadyExists,
		codes.PermissionDenied,
		codes.Unauthenticated,
		codes.FailedPrecondition,
		codes.OutOfRange,
		codes.Unimplemented:
		return ""
	}
	return reasonConnection
}

// Unsatisfiable reports whether the bucket says that the object ends before the
// range.
func Unsatisfiable(err error) bool {
	var a answer
	a.find(err)
	return a.status == http.StatusRequestedRangeNotSatisfiable || a.code == "InvalidRange" ||
		a.grpc == codes.OutOfRange
}

// find looks through what err wraps. The clients have no type of error, nor
// interface, in common, but all have fields that are named alike: to know them by
// these does not link eight clients.
func (a *answer) find(err error) {
	for err != nil && a.status == 0 && a.grpc == codes.OK {
		if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok &&
			s.GRPCStatus().Code() != codes.Unknown {
			a.grpc = s.GRPCStatus().Code()
		}
		a.fields(reflect.ValueOf(err))
		switch e := err.(type) { //nolint:errorlint // every layer is looked at by itself
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
	// All have StatusCode, but for GCS, whose Code is a number, and COS.
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
