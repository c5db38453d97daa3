package listing

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/thanos-io/objstore"
)

// Error says that the answer to a list request is no listing of the bucket.
type Error struct {
	// URL is the URL of the request, without its query.
	URL string
	// Why says what is wrong with the answer.
	Why string
	// Start is the start of the answer, at most 80 bytes.
	Start string
}

func (e *Error) Error() string {
	return fmt.Sprintf(
		"list %s: the answer is HTTP 200 and no listing of the bucket: %s; it begins %q "+
			"(check the endpoint, and proxies between larder and the bucket)",
		e.URL,
		e.Why,
		e.Start,
	)
}

// Transport returns a function that wraps the HTTP transport of a client of the given type. It
// returns nil for types whose answers need no check. bucket is the name of the bucket or container.
func Transport(kind objstore.ObjProvider, bucket string) func(http.RoundTripper) http.RoundTripper {
	var d dialect
	switch objstore.ObjProvider(strings.ToUpper(string(kind))) {
	case objstore.S3:
		d = s3{bucket}
	case objstore.GCS:
		d = gcs{}
	case objstore.AZURE:
		d = azure{bucket}
	case objstore.OCI:
		d = oci{}
	default:
		return nil
	}
	return func(next http.RoundTripper) http.RoundTripper { return &transport{next, d} }
}

// dialect knows the list requests of one type of object store.
type dialect interface {
	// scanner returns the scanner for the answer to a request, and the request to send. The scanner
	// is nil if the request is not for a page of a listing.
	scanner(r *http.Request) (scanner, *http.Request)
}

// scanner checks a document while its bytes pass.
type scanner interface {
	// feed checks the next bytes. It returns why the document is no listing, "" if it may be one.
	feed(p []byte) string
	// complete reports whether the document has come to its end and was verified.
	complete() bool
}

type transport struct {
	next    http.RoundTripper
	dialect dialect
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		return t.next.RoundTrip(r)
	}
	s, r := t.dialect.scanner(r)
	resp, err := t.next.RoundTrip(r)
	if err != nil || s == nil || resp.StatusCode != http.StatusOK {
		return resp, err // the client handles error statuses
	}
	resp.Body = &body{ReadCloser: resp.Body, scan: s, url: address(r.URL)}
	return resp, nil
}

// address returns a URL without the parts that may be secret or long.
func address(u *url.URL) string { return u.Scheme + "://" + u.Host + u.Path }

// body is a list answer that is checked while it is read.
type body struct {
	io.ReadCloser
	scan  scanner
	url   string
	start []byte // the first bytes, for the error
	err   error
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	if missing := 80 - len(b.start); missing > 0 {
		b.start = append(b.start, p[:min(n, missing)]...)
	}
	if why := b.scan.feed(p[:n]); why != "" {
		b.fail(why)
		return 0, b.err
	}
	if err == io.EOF && !b.scan.complete() {
		b.fail("it ends early")
		return n, b.err
	}
	return n, err
}

func (b *body) fail(why string) { b.err = &Error{URL: b.url, Why: why, Start: string(b.start)} }

// maxValue bounds the bytes that a scanner keeps of one value. Longer values are not compared.
const maxValue = 4 << 10

// kept is a value of a document.
type kept struct {
	b   []byte
	cut bool // the value is longer than maxValue
}

func (k *kept) add(p []byte) {
	if left := maxValue - len(k.b); len(p) > left {
		k.cut, p = true, p[:left]
	}
	k.b = append(k.b, p...)
}
