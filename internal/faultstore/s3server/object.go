package s3server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"larder/internal/faultstore"
)

// content is an answer's body.
type content struct {
	io.Reader
	file   *os.File
	size   int64
	status int
	header map[string]string
}

func (c *content) Close() {
	if c.file != nil {
		// It was only read.
		_ = c.file.Close()
	}
}

// object opens an object, or what a Range header asks for of it.
func (s *Server) object(key, ranged string) (*content, minio.ErrorResponse) {
	if !fs.ValidPath(key) {
		return missing(key)
	}
	f, err := s.root.Open(key)
	if errors.Is(err, fs.ErrNotExist) {
		return missing(key)
	} else if err != nil {
		return failed(key, err)
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return missing(key)
	}
	c := &content{file: f, size: info.Size(), status: http.StatusOK, header: map[string]string{
		"Content-Type":  "application/octet-stream",
		"Accept-Ranges": "bytes",
		"Last-Modified": info.ModTime().UTC().Format(http.TimeFormat),
		"ETag":          etag(info),
	}}
	off := int64(0)
	if ranged != "" {
		first, last, ok := parseRange(ranged, info.Size())
		if !ok {
			c.Close()
			return nil, minio.ErrorResponse{
				StatusCode: http.StatusRequestedRangeNotSatisfiable,
				Code:       "InvalidRange",
				Message:    "The requested range is not satisfiable",
				Key:        key,
			}
		}
		off, c.size, c.status = first, last-first+1, http.StatusPartialContent
		c.header["Content-Range"] = fmt.Sprintf("bytes %d-%d/%d", first, last, info.Size())
	}
	c.Reader = io.NewSectionReader(f, off, c.size)
	return c, minio.ErrorResponse{}
}

func missing(key string) (*content, minio.ErrorResponse) {
	r, _ := faultstore.Vanished.Response(key)
	return nil, r
}

// failed tells the client about a fault of this machine.
func failed(key string, err error) (*content, minio.ErrorResponse) {
	r, _ := faultstore.ServerError.Response(key)
	r.Message = err.Error()
	return nil, r
}

func etag(info fs.FileInfo) string {
	return fmt.Sprintf(`"%x-%x"`, info.Size(), info.ModTime().UnixNano())
}

// parseRange understands one range: first-last, first- and -length.
func parseRange(h string, size int64) (first, last int64, ok bool) {
	spec, ok := strings.CutPrefix(h, "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return 0, 0, false
	}
	if from == "" {
		n, err := strconv.ParseInt(to, 10, 64)
		return max(size-n, 0), size - 1, err == nil && n > 0 && size > 0
	}
	first, err := strconv.ParseInt(from, 10, 64)
	if err != nil || first < 0 || first >= size {
		return 0, 0, false
	}
	last = size - 1
	if to != "" {
		if last, err = strconv.ParseInt(to, 10, 64); err != nil || last < first {
			return 0, 0, false
		}
	}
	return first, min(last, size-1), true
}

func bytesContent(b []byte) *content {
	return &content{
		Reader: bytes.NewReader(b),
		size:   int64(len(b)),
		status: http.StatusOK,
		header: map[string]string{"Content-Type": "application/xml"},
	}
}
