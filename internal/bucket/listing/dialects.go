package listing

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// page compares an answer with its request. values lacks what the answer does not state, and values
// that are too long to be kept.
type page struct {
	values map[string]string // of the answer
	query  url.Values        // of the request
}

// repeats compares a value of the answer with a parameter of the request. It returns why they
// differ, "" if they do not. The value may be URL-encoded, because S3 encodes values on request.
func (p page) repeats(value, parameter string) string {
	got, ok := p.values[value]
	want := p.query.Get(parameter)
	if !ok || got == want {
		return ""
	}
	if decoded, err := url.QueryUnescape(got); err == nil && decoded == want {
		return ""
	}
	return fmt.Sprintf("its %s is %.80q, the request has %.80q", value, got, want)
}

// continues returns why the next page is not another one, "" if it is or there is none.
func (p page) continues(value, parameter string) string {
	// An empty value is no continuation.
	if p.values[value] != "" && p.repeats(value, parameter) == "" {
		return fmt.Sprintf(
			"it is continued by itself: its %s is the %s of the request", value, parameter,
		)
	}
	return ""
}

func first(reasons ...string) string {
	for _, r := range reasons {
		if r != "" {
			return r
		}
	}
	return ""
}

// s3 lists with GET of the bucket, in version 1 or 2.
type s3 struct{ bucket string }

func (d s3) scanner(r *http.Request) (scanner, *http.Request) {
	q := r.URL.Query()
	if !q.Has("list-type") && !(q.Has("prefix") && q.Has("delimiter")) {
		return nil, r
	}
	return &xmlScanner{root: "ListBucketResult", wanted: []string{
		"Name", "Prefix", "IsTruncated", "ContinuationToken", "NextContinuationToken", "Marker",
		"NextMarker",
	}, verify: func(_, v map[string]string) string {
		p := page{v, q}
		name, named := v["Name"]
		_, truncated := v["IsTruncated"]
		switch {
		case !named && !truncated:
			return "it has neither Name nor IsTruncated"
		case name != "" && name != d.bucket && !alias(d.bucket):
			return fmt.Sprintf("it lists bucket %.80q", name)
		case v["IsTruncated"] == "true" && q.Has("list-type") && v["NextContinuationToken"] == "":
			return "it is truncated and has no continuation token"
		}
		return first(
			p.repeats("Prefix", "prefix"),
			p.repeats("ContinuationToken", "continuation-token"),
			p.repeats("Marker", "marker"),
			p.continues("NextContinuationToken", "continuation-token"),
			p.continues("NextMarker", "marker"),
		)
	}}, r
}

// alias reports whether the bucket is named by an access point, whose answers may have another
// name.
func alias(bucket string) bool {
	return strings.HasPrefix(bucket, "arn:") || strings.HasSuffix(bucket, "-s3alias") ||
		strings.HasSuffix(bucket, "--ol-s3") || strings.HasSuffix(bucket, ".mrap")
}

// azure lists with GET of the container.
type azure struct{ container string }

func (d azure) scanner(r *http.Request) (scanner, *http.Request) {
	q := r.URL.Query()
	if q.Get("comp") != "list" {
		return nil, r
	}
	return &xmlScanner{
		root:   "EnumerationResults",
		wanted: []string{"Prefix", "Marker", "NextMarker"},
		verify: func(attributes, v map[string]string) string {
			// Older answers have a URL instead of the name.
			name := attributes["ContainerName"]
			name = name[strings.LastIndex(name, "/")+1:]
			if name != "" && name != d.container {
				return fmt.Sprintf("it lists container %.80q", name)
			}
			p := page{v, q}
			return first(
				p.repeats("Prefix", "prefix"), p.repeats("Marker", "marker"),
				p.continues("NextMarker", "marker"),
			)
		},
	}, r
}

// objectsOf reports whether a URL ends in /b/<bucket>/o, as list requests of GCS and OCI do.
func objectsOf(u *url.URL) bool {
	_, rest, _ := strings.Cut(u.EscapedPath(), "/b/")
	_, what, _ := strings.Cut(rest, "/")
	return what == "o"
}

// gcs lists with the JSON API. It adds kind to the fields that the client requests.
type gcs struct{}

func (gcs) scanner(r *http.Request) (scanner, *http.Request) {
	if !objectsOf(r.URL) {
		return nil, r
	}
	q := r.URL.Query()
	if fields := q.Get("fields"); fields != "" {
		r = r.Clone(r.Context())
		changed := r.URL.Query()
		changed.Set("fields", fields+",kind")
		r.URL.RawQuery = changed.Encode()
	}
	return &jsonScanner{
		wanted: []string{"kind", "nextPageToken"},
		verify: func(_ map[string]bool, v map[string]string) string {
			if v["kind"] != "storage#objects" {
				return fmt.Sprintf("its kind is %.80q, want \"storage#objects\"", v["kind"])
			}
			return page{v, q}.continues("nextPageToken", "pageToken")
		},
	}, r
}

// oci lists with the object storage API of Oracle's cloud.
type oci struct{}

func (oci) scanner(r *http.Request) (scanner, *http.Request) {
	if !objectsOf(r.URL) {
		return nil, r
	}
	q := r.URL.Query()
	return &jsonScanner{
		wanted: []string{"nextStartWith"},
		verify: func(keys map[string]bool, v map[string]string) string {
			if !keys["objects"] {
				return "it has no objects"
			}
			return page{v, q}.continues("nextStartWith", "start")
		},
	}, r
}
