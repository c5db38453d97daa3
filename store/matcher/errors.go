package matcher

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// rejection is the error of a request that may succeed later or in another process. It has a gRPC
// code. Other errors of this package are mistakes of the client.
type rejection struct {
	code codes.Code
	text string
}

func rejectf(code codes.Code, format string, args ...any) error {
	return &rejection{code, fmt.Sprintf(format, args...)}
}

func (r *rejection) Error() string { return r.text }

// GRPCStatus returns its code and text.
func (r *rejection) GRPCStatus() *status.Status { return status.New(r.code, r.text) }

// maxClipped bounds the part of a request's text that an error repeats, in bytes.
const maxClipped = 512

// Clip shortens a text of a request for an error, because errors are sent, logged and traced.
func Clip(s string) string {
	if len(s) <= maxClipped {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:maxClipped], "\uFFFD"), len(s))
}
