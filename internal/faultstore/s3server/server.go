package s3server

import (
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/thanos-io/objstore"

	"larder/internal/faultstore"
)

// Options say what is served and how.
type Options struct {
	// Dir is the folder that is the bucket.
	Dir string
	// Bucket is its name; empty: "blocks".
	Bucket string
	// Addr is where Start listens; empty: a free port of the loopback interface.
	Addr string
	// Faults are what goes wrong; nil: nothing.
	Faults *faultstore.Faults
	// Latency is how far away the bucket is; the zero value: here.
	Latency Latency
	// PageEntries is how many entries a page of a listing has; 0: 1000, as S3's.
	PageEntries int
}

// Server is the server. It is an http.Handler too, for those who listen themselves.
type Server struct {
	opts   Options
	root   *os.Root
	http   *http.Server
	addr   string
	served chan error

	mu       sync.Mutex
	rand     *rand.Rand
	requests map[string]int
}

// New makes a server that does not listen.
func New(opts Options) (*Server, error) {
	if opts.Bucket == "" {
		opts.Bucket = "blocks"
	}
	if opts.Addr == "" {
		opts.Addr = "127.0.0.1:0"
	}
	if opts.PageEntries <= 0 {
		opts.PageEntries = 1000
	}
	root, err := os.OpenRoot(opts.Dir)
	if err != nil {
		return nil, err
	}
	return &Server{
		opts:     opts,
		root:     root,
		rand:     rand.New(rand.NewPCG(opts.Latency.Seed, 0x7333)),
		requests: map[string]int{},
	}, nil
}

// Start makes a server that listens.
func Start(opts Options) (*Server, error) {
	s, err := New(opts)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", s.opts.Addr)
	if err != nil {
		return nil, errors.Join(err, s.root.Close())
	}
	s.addr, s.served = l.Addr().String(), make(chan error, 1)
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() { s.served <- s.http.Serve(l) }()
	return s, nil
}

// Close breaks all connections and stops to listen.
func (s *Server) Close() error {
	var err error
	if s.http != nil {
		err = s.http.Close()
		if e := <-s.served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, s.root.Close())
}

// Addr is where Start listens, host and port.
func (s *Server) Addr() string { return s.addr }

// Config is what --objstore.config takes for this server. Lines that begin with two blanks may be
// added to it.
func (s *Server) Config() string {
	return fmt.Sprintf(
		"type: S3\nconfig:\n  bucket: %s\n  endpoint: %s\n  region: test\n  insecure: true\n  access_key: larder\n  secret_key: larder-secret\n",
		s.opts.Bucket, s.addr,
	)
}

// Requests returns how many requests there were since the start, by operation as objstore names it.
func (s *Server) Requests() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.requests)
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	query := r.URL.Query()
	switch {
	case bucket != s.opts.Bucket:
		refuse(
			w,
			r,
			minio.ErrorResponse{
				StatusCode: http.StatusNotFound,
				Code:       "NoSuchBucket",
				Message:    "The specified bucket does not exist.",
				BucketName: bucket,
			},
		)
	case r.Method == http.MethodGet && key == "" && query.Has("location"):
		document(w, struct {
			XMLName xml.Name `xml:"LocationConstraint"`
			Region  string   `xml:",chardata"`
		}{Region: "test"})
	case r.Method == http.MethodHead && key == "":
		w.WriteHeader(http.StatusOK)
	case r.Method == http.MethodGet && key == "" &&
		(query.Get("list-type") == "2" || query.Has("prefix")):
		s.answer(w, r, objstore.OpIter, query.Get("prefix"))
	case r.Method == http.MethodHead:
		s.answer(w, r, objstore.OpAttributes, key)
	case r.Method == http.MethodGet && key != "" && r.Header.Get("Range") != "":
		s.answer(w, r, objstore.OpGetRange, key)
	case r.Method == http.MethodGet && key != "":
		s.answer(w, r, objstore.OpGet, key)
	default:
		refuse(
			w,
			r,
			minio.ErrorResponse{
				StatusCode: http.StatusNotImplemented,
				Code:       "NotImplemented",
				Message:    "This server lists and reads, and no more.",
			},
		)
	}
}

// answer answers one request, after the bucket's latency and with the fault that was drawn for it.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, op, name string) {
	s.mu.Lock()
	s.requests[op]++
	late := s.opts.Latency.firstByte(s.rand)
	s.mu.Unlock()
	off := int64(0)
	if op == objstore.OpGetRange {
		// Of a range that says how much of the end is wanted, and of one that cannot be understood,
		// this is 0.
		from, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
		off, _ = strconv.ParseInt(from, 10, 64)
	}
	fault, faulty := s.opts.Faults.Draw(op, name, off)
	if fault.Kind == faultstore.SlowFirstByte {
		late += fault.Delay
	}
	if !pause(r.Context(), late) {
		return
	}
	if fault.Kind == faultstore.Timeout {
		<-r.Context().Done()
		return
	}
	if e, ok := fault.Kind.Response(name); ok && fault.Kind != faultstore.ListingError {
		e.BucketName = s.opts.Bucket
		refuse(w, r, e)
		return
	}
	var c *content
	var refused minio.ErrorResponse
	if fault.Kind.NoListing() {
		c = noListing(fault.Kind)
	} else if op == objstore.OpIter {
		c, refused = s.list(r.URL.Query(), fault)
	} else {
		c, refused = s.object(name, r.Header.Get("Range"))
	}
	if c == nil {
		refuse(w, r, refused)
		return
	}
	defer c.Close()
	for k, v := range c.header {
		w.Header().Set(k, v)
	}
	if r.Method == http.MethodHead {
		if fault.Kind == faultstore.Reset {
			cut(w, false, true)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(c.size, 10))
		w.WriteHeader(c.status)
		return
	}
	if !faulty {
		fault = faultstore.Fault{}
	}
	s.send(w, r, c, fault)
}

// refuse answers with an error document.
func refuse(w http.ResponseWriter, r *http.Request, e minio.ErrorResponse) {
	b, err := xml.Marshal(e)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(e.StatusCode)
	if r.Method != http.MethodHead {
		// A client that has gone needs no answer.
		_, _ = w.Write(b)
	}
}

func document(w http.ResponseWriter, v any) {
	b, err := xml.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	_, _ = w.Write(b)
}
