// Command s3 is an S3 server for tests: gofakes3 with one empty bucket in memory. It accepts only
// the given access key. It does not verify signatures.
//
//	s3 -listen=127.0.0.1:9000 -bucket=blocks -access-key=larder
//
// With -load the bucket begins with the files of a folder.
//
// With -slow-every=n each n-th ranged GET sends half of its body and then nothing for -slow, so
// that a client has a reason to hedge.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address")
	bucket := flag.String("bucket", "blocks", "name of the bucket")
	key := flag.String("access-key", "larder", "the access key that is let in")
	folder := flag.String("load", "", "folder whose files are in the bucket at the start")
	every := flag.Int64("slow-every", 0, "stall every n-th ranged GET; 0: none")
	slow := flag.Duration("slow", 30*time.Second, "for how long")
	flag.Parse()
	backend := s3mem.New()
	if err := backend.CreateBucket(*bucket); err != nil {
		fail(err)
	}
	if *folder != "" {
		if err := load(backend, *bucket, *folder); err != nil {
			fail(err)
		}
	}
	s := &server{next: gofakes3.New(backend).Server(), key: *key, every: *every, slow: *slow}
	if err := http.ListenAndServe(*listen, s); err != nil {
		fail(err)
	}
}

// load puts the files of a folder into the bucket. Their paths are the keys.
func load(backend gofakes3.Backend, bucket, folder string) error {
	// The server adds it to objects that come over HTTP, and clients need it.
	meta := map[string]string{"Last-Modified": time.Now().UTC().Format(http.TimeFormat)}
	return fs.WalkDir(os.DirFS(folder), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		_, err = backend.PutObject(bucket, name, meta, bytes.NewReader(content),
			int64(len(content)), nil)
		return err
	})
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "s3:", err)
	os.Exit(1)
}

type server struct {
	next   http.Handler
	key    string
	every  int64
	slow   time.Duration
	ranged atomic.Int64
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/-/ready" {
		return
	}
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	if got, _, _ := strings.Cut(scope, "/"); got != s.key {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(
			w,
			`<?xml version="1.0" encoding="UTF-8"?><Error><Code>InvalidAccessKeyId</Code>`+
				`<Message>The AWS access key ID that you provided does not exist in our records.</Message></Error>`,
		)
		return
	}
	if s.every > 0 && r.Method == http.MethodGet && r.Header.Get("Range") != "" &&
		s.ranged.Add(1)%s.every == 0 {
		w = &stalling{ResponseWriter: w, r: r, slow: s.slow}
	}
	s.next.ServeHTTP(w, r)
}

// stalling sends half of the first piece of a body at once and the rest later.
type stalling struct {
	http.ResponseWriter
	r    *http.Request
	slow time.Duration
	once bool
}

func (s *stalling) Write(p []byte) (int, error) {
	if s.once {
		return s.ResponseWriter.Write(p)
	}
	s.once = true
	half := len(p) / 2
	if n, err := s.ResponseWriter.Write(p[:half]); err != nil {
		return n, err
	}
	if f, ok := s.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	select {
	case <-time.After(s.slow):
	case <-s.r.Context().Done():
		return half, s.r.Context().Err()
	}
	n, err := s.ResponseWriter.Write(p[half:])
	return half + n, err
}
