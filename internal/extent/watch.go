package extent

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/thanos-io/objstore"
)

// Seen collects what the answers to the requests under one context say about their object. All of
// these requests must be for one object.
type Seen struct {
	mu sync.Mutex
	e  Extent
	ok bool
}

type seenKey struct{}

// Watch returns a context, and a Seen of the answers to requests under it.
func Watch(ctx context.Context) (context.Context, *Seen) {
	s := &Seen{}
	return context.WithValue(ctx, seenKey{}, s), s
}

// Extent returns what the last answer stated. ok is false if no answer stated anything.
func (s *Seen) Extent() (e Extent, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.e, s.ok
}

func (s *Seen) note(e Extent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.e, s.ok = e, true
}

// Transport returns a transport that notes the extent that a response states on the context of its
// request.
func Transport(next http.RoundTripper) http.RoundTripper { return &transport{next: next} }

type transport struct{ next http.RoundTripper }

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil || resp == nil {
		return resp, err
	}
	seen, ok := r.Context().Value(seenKey{}).(*Seen)
	if !ok {
		return resp, nil
	}
	if e, ok := stated(r.Method, resp); ok {
		seen.note(e)
	}
	return resp, nil
}

// CloseIdleConnections closes the idle connections of the wrapped transport.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// stated returns what a response states about the whole object. The length of a response to a read
// of the whole object is ignored, because a compressing proxy changes it.
func stated(method string, resp *http.Response) (Extent, bool) {
	e := Extent{Size: -1}
	switch {
	case resp.StatusCode == http.StatusPartialContent,
		resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		// bytes 0-0/519, or bytes */519; the size may be * as well.
		_, total, ok := strings.Cut(resp.Header.Get("Content-Range"), "/")
		if !ok {
			return e, false
		}
		n, err := strconv.ParseInt(strings.TrimSpace(total), 10, 64)
		if err != nil || n < 0 {
			return e, false
		}
		e.Size = n
	case resp.StatusCode == http.StatusOK && method == http.MethodHead && resp.ContentLength >= 0:
		e.Size = resp.ContentLength
	default:
		return e, false
	}
	if tag := resp.Header.Get("ETag"); tag != "" &&
		resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		e.Version = "etag " + tag
	}
	return e, true
}

// Stating returns a bucket whose ranged reads note the extent of their object. It is for buckets
// whose attributes cost next to nothing: folders of the local disk.
func Stating(b objstore.Bucket) objstore.Bucket { return &stating{Bucket: b} }

type stating struct{ objstore.Bucket }

func (b *stating) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	body, err := b.Bucket.GetRange(ctx, name, off, length)
	if seen, ok := ctx.Value(seenKey{}).(*Seen); ok && err == nil {
		// This comes after the file was opened. If the file is replaced in between, the extent is
		// that of the new file, and the read is repeated.
		if a, aerr := b.Attributes(ctx, name); aerr == nil {
			seen.note(Extent{Size: a.Size})
		}
	}
	return body, err
}
