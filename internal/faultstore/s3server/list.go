package s3server

import (
	"encoding/xml"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"larder/internal/faultstore"
)

type listing struct {
	XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name                  string
	Prefix                string
	Delimiter             string `xml:",omitempty"`
	MaxKeys               int
	KeyCount              int
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	NextMarker            string `xml:",omitempty"` // of version 1
	EncodingType          string `xml:",omitempty"`
	Contents              []entry
	CommonPrefixes        []commonPrefix
}

type entry struct {
	Key          string
	LastModified string
	ETag         string
	Size         int64
	StorageClass string
}

type commonPrefix struct{ Prefix string }

// noListing is a document in the place of a listing.
func noListing(kind faultstore.Kind) *content {
	if kind == faultstore.HTMLPage {
		c := bytesContent(
			[]byte(
				"<html><head><title>Maintenance</title></head><body><h1>We will be back soon</h1></body></html>",
			),
		)
		c.header["Content-Type"] = "text/html"
		return c
	}
	return bytesContent(
		[]byte(
			xml.Header + "<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>",
		),
	)
}

// list answers a page of a listing. ShortListing ends it within the page.
func (s *Server) list(query url.Values, fault faultstore.Fault) (*content, minio.ErrorResponse) {
	prefix, delimiter := query.Get("prefix"), query.Get("delimiter")
	if delimiter != "" && delimiter != "/" {
		return nil, minio.ErrorResponse{
			StatusCode: http.StatusNotImplemented,
			Code:       "NotImplemented",
			Message:    "The only delimiter is /",
		}
	}
	keys, err := s.keys(prefix, delimiter == "/")
	if err != nil {
		return failed(prefix, err)
	}
	after := max(query.Get("continuation-token"), query.Get("start-after"), query.Get("marker"))
	keys = keys[sort.Search(len(keys), func(i int) bool { return keys[i] > after }):]

	l := listing{
		Name:      s.opts.Bucket,
		Prefix:    prefix,
		Delimiter: delimiter,
		MaxKeys:   s.opts.PageEntries,
	}
	if n, err := strconv.Atoi(query.Get("max-keys")); err == nil && n > 0 {
		l.MaxKeys = min(n, l.MaxKeys)
	}
	if len(keys) > l.MaxKeys {
		keys = keys[:l.MaxKeys]
		l.IsTruncated = true
		if query.Has("list-type") {
			l.NextContinuationToken = keys[len(keys)-1]
		} else {
			l.NextMarker = url.QueryEscape(keys[len(keys)-1])
		}
	}
	if fault.Kind == faultstore.ShortListing {
		keys = keys[:fault.At(int64(len(keys)))]
		l.IsTruncated, l.NextContinuationToken, l.NextMarker = false, "", ""
	}
	l.KeyCount = len(keys)
	name := func(key string) string { return key }
	if l.EncodingType = query.Get("encoding-type"); l.EncodingType == "url" {
		name = url.QueryEscape
		l.Prefix = name(l.Prefix)
	}
	for _, key := range keys {
		if strings.HasSuffix(key, "/") {
			l.CommonPrefixes = append(l.CommonPrefixes, commonPrefix{name(key)})
			continue
		}
		info, err := s.root.Stat(key)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		} else if err != nil {
			return failed(prefix, err)
		}
		l.Contents = append(l.Contents, entry{
			Key: name(
				key,
			), LastModified: info.ModTime().UTC().Format("2006-01-02T15:04:05.000Z"),
			ETag: etag(info), Size: info.Size(), StorageClass: "STANDARD",
		})
	}
	b, err := xml.Marshal(l)
	if err != nil {
		return failed(prefix, err)
	}
	return bytesContent(append([]byte(xml.Header), b...)), minio.ErrorResponse{}
}

// keys returns in order what begins with a prefix: objects, and with flat the folders next below it
// (ending in /) in the place of what is in them.
func (s *Server) keys(prefix string, flat bool) ([]string, error) {
	dir := strings.TrimSuffix(prefix[:strings.LastIndex(prefix, "/")+1], "/")
	if dir == "" {
		dir = "."
	}
	var keys []string
	if !fs.ValidPath(dir) {
		return nil, nil
	}
	err := fs.WalkDir(s.root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // of a folder that does not exist, or that was deleted meanwhile
		case err != nil:
			return err
		case name == dir && d.IsDir():
			return nil
		case d.IsDir() && !strings.HasPrefix(name+"/", prefix) &&
			!strings.HasPrefix(prefix, name+"/"):
			return fs.SkipDir
		case d.IsDir() && flat:
			if path.Dir(name) == dir {
				keys = append(keys, name+"/")
			}
			return fs.SkipDir
		case !d.IsDir() && strings.HasPrefix(name, prefix):
			keys = append(keys, name)
		}
		return nil
	})
	slices.Sort(keys)
	return keys, err
}
