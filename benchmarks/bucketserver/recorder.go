package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// request is one request that has ended.
type request struct {
	// Op is GET, HEAD or LIST.
	Op string `json:"op"`
	// Key is the object, or the prefix of a listing.
	Key string `json:"key"`
	// Offset is where a range begins; 0 without a range.
	Offset int64 `json:"offset"`
	// Bytes were sent as the body.
	Bytes  int64 `json:"bytes"`
	Status int   `json:"status"`
	// Start and End are when the request arrived and when the last byte of its answer was written,
	// in nanoseconds since 1970.
	Start int64 `json:"start"`
	End   int64 `json:"end"`
}

// recorder remembers requests until they are reported.
type recorder struct {
	mu       sync.Mutex
	requests []request
}

// record returns a handler that calls next and remembers each request.
func (r *recorder) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, key, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
		e := request{Op: req.Method, Key: key, Offset: offset(req.Header.Get("Range"))}
		if query := req.URL.Query(); key == "" && (query.Has("list-type") || query.Has("prefix")) {
			e.Op, e.Key = "LIST", query.Get("prefix")
		}
		counted := &counter{ResponseWriter: w, status: http.StatusOK}
		e.Start = time.Now().UnixNano()
		// Deferred, because the server ends a broken answer by a panic.
		defer func() {
			e.End, e.Bytes, e.Status = time.Now().UnixNano(), counted.bytes, counted.status
			r.mu.Lock()
			defer r.mu.Unlock()
			r.requests = append(r.requests, e)
		}()
		next.ServeHTTP(counted, req)
	})
}

// report writes the requests and forgets them.
func (r *recorder) report(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	ended := r.requests
	r.requests = nil
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if ended == nil {
		ended = []request{}
	}
	// If the client is gone, the requests are lost with its measurement.
	_ = json.NewEncoder(w).Encode(ended)
}

// offset returns the first byte of a Range header; 0 if it has none.
func offset(header string) int64 {
	first, _, _ := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// counter counts what is written to the client.
type counter struct {
	http.ResponseWriter
	bytes  int64
	status int
}

func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
