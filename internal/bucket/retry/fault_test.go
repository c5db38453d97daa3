package retry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/aliyun/aliyun-oss-go-sdk/oss"
	"github.com/baidubce/bce-sdk-go/bce"
	"github.com/huaweicloud/huaweicloud-sdk-go-obs/obs"
	"github.com/minio/minio-go/v7"
	"github.com/ncw/swift"
	"github.com/tencentyun/cos-go-sdk-v5"
	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ociError has the fields of the error of the client of OCI, whose type is not exported.
type ociError struct {
	StatusCode int
	Code       string
}

func (e ociError) Error() string { return e.Code }

// caused wraps as github.com/pkg/errors did before it knew Unwrap.
type caused struct{ cause error }

func (c caused) Error() string { return "stat object: " + c.cause.Error() }
func (c caused) Cause() error  { return c.cause }

// TestReasons covers the errors that the clients of all providers return for an HTTP status.
func TestReasons(t *testing.T) {
	clients := map[string]func(status int, code string) error{
		"S3": func(status int, code string) error {
			return minio.ErrorResponse{StatusCode: status, Code: code}
		},
		"GCS": func(status int, code string) error { return &googleapi.Error{Code: status} },
		"AZURE": func(status int, code string) error {
			return &azcore.ResponseError{StatusCode: status, ErrorCode: code}
		},
		"COS": func(status int, code string) error {
			return &cos.ErrorResponse{Code: code, Response: &http.Response{StatusCode: status}}
		},
		"ALIYUNOSS": func(status int, code string) error {
			return oss.ServiceError{StatusCode: status, Code: code}
		},
		"BOS": func(status int, code string) error {
			return &bce.BceServiceError{StatusCode: status, Code: code}
		},
		"OBS": func(status int, code string) error {
			e := obs.ObsError{Code: code}
			e.StatusCode = status
			return e
		},
		"OCI": func(status int, code string) error { return ociError{status, code} },
		"SWIFT": func(status int, code string) error {
			return &swift.Error{StatusCode: status, Text: code}
		},
	}
	b := newRig(Options{}, first()).Bucket
	for name, make := range clients {
		for _, tc := range []struct {
			status int
			code   string
			want   string
		}{
			{503, "SlowDown", reasonThrottled},
			{503, "ServiceUnavailable", reasonThrottled},
			{429, "TooManyRequests", reasonThrottled},
			{500, "InternalError", reasonServer},
			{502, "BadGateway", reasonServer},
			{504, "GatewayTimeout", reasonServer},
			{408, "RequestTimeout", reasonServer},
			{400, "InvalidRequest", ""},
			{401, "Unauthorized", ""},
			{403, "SignatureDoesNotMatch", ""},
			{404, "NoSuchBucket", ""},
			{412, "PreconditionFailed", ""},
			{416, "InvalidRange", ""},
		} {
			err := make(tc.status, tc.code)
			for _, err := range []error{err, fmt.Errorf("get: %w", err), caused{err},
				errors.Join(io.EOF, err)} {
				if got := b.reasonOf(err); got != tc.want {
					t.Errorf(
						"%s: %d %s (%T): got %q, want %q", name, tc.status, tc.code, err, got,
						tc.want,
					)
				}
			}
			if got := Unsatisfiable(err); got != (tc.status == 416) {
				t.Errorf("%s: %d: not satisfiable is %v", name, tc.status, got)
			}
		}
	}
}

func TestReasonsOfOtherErrors(t *testing.T) {
	b := newRig(Options{}, first()).Bucket
	for _, tc := range []struct {
		err  error
		want string
	}{
		{minio.ErrorResponse{StatusCode: 400, Code: "RequestTimeout"}, reasonServer},
		{minio.ErrorResponse{StatusCode: 400, Code: "ExpiredToken"}, reasonServer},
		{minio.ErrorResponse{StatusCode: 200, Code: "SlowDown"}, reasonThrottled},
		{status.Error(codes.ResourceExhausted, "quota"), reasonThrottled},
		{status.Error(codes.Unavailable, "gone away"), reasonServer},
		{status.Error(codes.PermissionDenied, "no"), ""},
		{status.Error(codes.OutOfRange, "range"), ""},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, reasonConnection},
		{&url.Error{Op: "Get", Err: syscall.ECONNRESET}, reasonConnection},
		{&net.DNSError{Err: "no such host"}, reasonConnection},
		{io.ErrUnexpectedEOF, reasonConnection},
		// a timeout in the client: the caller's own is checked first
		{context.DeadlineExceeded, reasonConnection},
		{
			&url.Error{Op: "Get",
				Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, ""},
		{&fs.PathError{Op: "open", Err: syscall.EACCES}, ""},
		{&fs.PathError{Op: "read", Err: syscall.EIO}, reasonConnection},
		{(*nilError)(nil), reasonConnection},
	} {
		if got := b.reasonOf(tc.err); got != tc.want {
			t.Errorf("%T %v: got %q, want %q", tc.err, tc.err, got, tc.want)
		}
	}
}

// nilError is a nil pointer that a careless client returns as an error.
type nilError struct{ StatusCode int }

func (*nilError) Error() string { return "nil" }

// TestRecognisedAfterGivingUp: IsObjNotFoundErr and Final look through an *Error.
func TestRecognisedAfterGivingUp(t *testing.T) {
	b := newRig(Options{}, first()).Bucket
	if !b.IsObjNotFoundErr(fmt.Errorf("%w", &Error{Err: errGone{}, Requests: 2})) ||
		!b.IsAccessDeniedErr(&Error{Err: errDenied{}, Requests: 2}) {
		t.Error("the client's error in an *Error is not recognised")
	}
	if b.IsObjNotFoundErr(&Error{Err: errOops, Requests: 2}) || b.IsObjNotFoundErr(nil) {
		t.Error("another error counts as a missing object")
	}
}
