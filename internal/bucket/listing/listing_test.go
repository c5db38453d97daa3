package listing

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/thanos-io/objstore"
	azureclient "github.com/thanos-io/objstore/providers/azure"
	gcsclient "github.com/thanos-io/objstore/providers/gcs"
	s3client "github.com/thanos-io/objstore/providers/s3"
)

// canned answers every request with HTTP 200 and the next of the bodies. It repeats the last one.
type canned struct {
	bodies []string
	kind   string // Content-Type
	asked  []*http.Request
}

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	b := c.bodies[min(len(c.asked), len(c.bodies)-1)]
	c.asked = append(c.asked, r)
	if len(c.asked) > 10 {
		return nil, errors.New("the client lists for ever")
	}
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1,
		ProtoMinor: 1, Request: r,
		Header: http.Header{
			"Content-Type": {c.kind},
		}, ContentLength: int64(len(b)), Body: io.NopCloser(strings.NewReader(b)),
	}, nil
}

// config returns the configuration of a client that uses no network.
func config(t *testing.T, kind objstore.ObjProvider) string {
	switch kind {
	case objstore.S3:
		return "{bucket: blocks, endpoint: 127.0.0.1:1, region: test, insecure: true, access_key: a, secret_key: b, max_retries: 1}"
	case objstore.GCS:
		t.Setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:1")
		return "{bucket: blocks, max_retries: 1, service_account: '" + serviceAccount(t) + "'}"
	case objstore.AZURE:
		return "{container: blocks, storage_account: acc, storage_account_key: a2V5, endpoint: blob.invalid, pipeline_config: {max_tries: 1}}"
	}
	t.Fatalf("no configuration for %s", kind)
	return ""
}

// serviceAccount returns a service account whose tokens come from a server of the test.
func serviceAccount(t *testing.T) string {
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"token","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(tokens.Close)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "larder@test", "private_key_id": "1",
		"token_uri":   tokens.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(account)
}

// iter lists a bucket whose client gets the given answers.
func iter(
	t *testing.T, kind objstore.ObjProvider, c *canned, options ...objstore.IterOption,
) (names []string, err error) {
	t.Helper()
	conf := []byte(config(t, kind))
	wrap := func(http.RoundTripper) http.RoundTripper { return Transport(kind, "blocks")(c) }
	var b objstore.Bucket
	switch kind {
	case objstore.S3:
		b, err = s3client.NewBucket(log.NewNopLogger(), conf, "test", wrap)
	case objstore.GCS:
		b, err = gcsclient.NewBucket(context.Background(), log.NewNopLogger(), conf, "test", wrap)
	default:
		b, err = azureclient.NewBucket(log.NewNopLogger(), conf, "test", wrap)
	}
	if err != nil {
		t.Fatal(err)
	}
	err = b.Iter(
		context.Background(),
		"",
		func(name string) error { names = append(names, name); return nil },
		options...)
	return names, err
}

const (
	htmlPage = "<html><head><title>Maintenance</title></head><body><h1>We will be back soon</h1></body></html>"
	doctype  = "<!DOCTYPE html>\n" + htmlPage
	errorDoc = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>later</Message></Error>`
	s3Head   = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`
	s3Keys   = `<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>`
)

func s3Page(head, rest string) string {
	return s3Head + "<Name>blocks</Name><Prefix></Prefix>" + head + s3Keys + rest +
		"</ListBucketResult>"
}

// TestAnswersThatAreNoListing: an answer that a client would take for a listing is an error that
// says what came instead.
func TestAnswersThatAreNoListing(t *testing.T) {
	for _, tc := range []struct {
		name   string
		kind   objstore.ObjProvider
		bodies []string
		says   string // of the error; "": the answer is a listing
		want   []string
	}{
		{"listing", objstore.S3, []string{s3Page("<IsTruncated>false</IsTruncated>", "")}, "",
			[]string{"a/", "b/"}},
		{"empty listing", objstore.S3, []string{s3Head + "<Name>blocks</Name><Prefix/><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"}, "", nil},
		{"two pages", objstore.S3, []string{
			s3Page("<IsTruncated>true</IsTruncated>",
				"<NextContinuationToken>t&amp;1</NextContinuationToken>"),
			s3Page("<IsTruncated>false</IsTruncated><ContinuationToken>t&amp;1</ContinuationToken>", ""),
		}, "", []string{"a/", "b/", "a/", "b/"}},
		{"comments and CDATA", objstore.S3, []string{"\xef\xbb\xbf" + s3Head + "<!-- <Error> - > --><Name><![CDATA[blocks]]></Name><?x > ?><IsTruncated>false</IsTruncated></ListBucketResult>"}, "", nil},
		{"page", objstore.S3, []string{htmlPage}, `root element is "html"`, nil},
		{"page with a document type", objstore.S3, []string{doctype}, "document type", nil},
		{"error document", objstore.S3, []string{errorDoc}, `root element is "Error"`, nil},
		{"text", objstore.S3, []string{"OK"}, "no XML", nil},
		{"nothing", objstore.S3, []string{""}, "ends early", nil},
		{"half", objstore.S3, []string{s3Head + "<Name>blocks</Name>" + s3Keys}, "ends early", nil},
		{"no fields", objstore.S3, []string{s3Head + "</ListBucketResult>"},
			"neither Name nor IsTruncated", nil},
		{"no fields, closed at once", objstore.S3, []string{"<ListBucketResult/>"},
			"neither Name nor IsTruncated", nil},
		{"another bucket", objstore.S3, []string{s3Head + "<Name>other</Name><IsTruncated>false</IsTruncated></ListBucketResult>"}, `bucket "other"`, nil},
		{"another prefix", objstore.S3, []string{s3Head + "<Name>blocks</Name><Prefix>x/</Prefix><IsTruncated>false</IsTruncated></ListBucketResult>"}, "Prefix", nil},
		{"no continuation", objstore.S3, []string{s3Page("<IsTruncated>true</IsTruncated>", "")},
			"no continuation token", nil},
		{"the same page for ever", objstore.S3,
			[]string{s3Page("<IsTruncated>true</IsTruncated>",
				"<NextContinuationToken>t1</NextContinuationToken>")}, "continued by itself", nil},
		{"another page", objstore.S3, []string{
			s3Page("<IsTruncated>true</IsTruncated>",
				"<NextContinuationToken>t1</NextContinuationToken>"),
			s3Page("<IsTruncated>false</IsTruncated><ContinuationToken>t9</ContinuationToken>", ""),
		}, "ContinuationToken", nil},

		{"listing", objstore.GCS, []string{`{"kind": "storage#objects", "prefixes": ["a/", "b/"]}`},
			"", []string{"a/", "b/"}},
		{"empty listing", objstore.GCS, []string{`{"kind":"storage#objects"}`}, "", nil},
		{"page", objstore.GCS, []string{htmlPage}, "no JSON object", nil},
		{"error document", objstore.GCS, []string{`{"error": {"code": 503, "message": "later", "kind": "storage#objects"}}`}, `kind is ""`, nil},
		{"no fields", objstore.GCS, []string{`{}`}, `kind is ""`, nil},
		{"a bucket, not its objects", objstore.GCS, []string{`{"kind": "storage#bucket"}`},
			`kind is "storage#bucket"`, nil},
		{"the same page for ever", objstore.GCS, []string{`{"kind": "storage#objects", "prefixes": ["a/"], "nextPageToken": "t\u0031"}`}, "continued by itself", nil},

		{"listing", objstore.AZURE, []string{`<?xml version="1.0"?><EnumerationResults ServiceEndpoint="https://acc.blob.invalid/" ContainerName="blocks"><Delimiter>/</Delimiter><Blobs><BlobPrefix><Name>a/</Name></BlobPrefix></Blobs><NextMarker/></EnumerationResults>`}, "", []string{"a/"}},
		{"page", objstore.AZURE, []string{htmlPage}, `root element is "html"`, nil},
		{"error document", objstore.AZURE, []string{errorDoc}, `root element is "Error"`, nil},
		{"another container", objstore.AZURE, []string{`<EnumerationResults ContainerName = 'other'><Blobs/><NextMarker/></EnumerationResults>`}, `container "other"`, nil},
	} {
		t.Run(fmt.Sprintf("%s %s", tc.kind, tc.name), func(t *testing.T) {
			kind := "application/xml"
			if tc.kind == objstore.GCS {
				kind = "application/json"
			}
			names, err := iter(t, tc.kind, &canned{bodies: tc.bodies, kind: kind})
			var no *Error
			switch {
			case tc.says == "" && (err != nil || !slices.Equal(names, tc.want)):
				t.Errorf("got %q, %v, want %q", names, err, tc.want)
			case tc.says != "" && (!errors.As(err, &no) || !strings.Contains(err.Error(), tc.says)):
				t.Errorf("got %q, %v, want an error with %q", names, err, tc.says)
			}
		})
	}
}

// TestOtherRequestsPass: the contents of objects are not checked.
func TestOtherRequestsPass(t *testing.T) {
	for kind, url := range map[objstore.ObjProvider]string{
		objstore.S3:    "http://h/blocks/x/meta.json",
		objstore.GCS:   "http://h/storage/v1/b/blocks/o/x%2Fo?alt=media",
		objstore.AZURE: "http://h/blocks/x",
		objstore.OCI:   "http://h/n/ns/b/blocks/o/x",
	} {
		r, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := Transport(kind, "blocks")(&canned{bodies: []string{htmlPage}}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != htmlPage {
			t.Errorf("%s: got %q, %v", kind, b, err)
		}
	}
	if Transport(objstore.FILESYSTEM, "") != nil {
		t.Error("a file system has no answers")
	}
}

// TestOCI lists without the client, which needs keys of a tenancy.
func TestOCI(t *testing.T) {
	for body, says := range map[string]string{
		`{"objects": [], "prefixes": ["a/"]}`:      "",
		`{"code": "x", "message": "later"}`:        "no objects",
		htmlPage:                                   "no JSON",
		`{"objects": [], "nextStartWith": "here"}`: "continued by itself",
	} {
		r, err := http.NewRequest(http.MethodGet, "http://h/n/ns/b/blocks/o?start=here", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := Transport(objstore.OCI, "blocks")(&canned{bodies: []string{body}}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(resp.Body)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", body, err, says)
		}
	}
}

// TestGCSIsAskedForTheKind: kind is added to the fields that the client requests.
func TestGCSIsAskedForTheKind(t *testing.T) {
	c := &canned{bodies: []string{`{"kind": "storage#objects"}`}, kind: "application/json"}
	if _, err := iter(t, objstore.GCS, c, objstore.WithRecursiveIter()); err != nil {
		t.Fatal(err)
	}
	if fields := c.asked[0].URL.Query().Get("fields"); !slices.Contains(
		strings.Split(fields, ","), "kind",
	) {
		t.Errorf("requested fields %q", fields)
	}
}

// FuzzScanners: no document makes a scanner panic, and its verdict does not depend on the size of
// the pieces.
func FuzzScanners(f *testing.F) {
	for _, seed := range []string{htmlPage, doctype, errorDoc,
		s3Page("<IsTruncated>true</IsTruncated>",
			"<NextContinuationToken>t</NextContinuationToken>"),
		`{"kind": "storage#objects", "a": [{"\"": "}"}]}`} {
		f.Add([]byte(seed), 3)
	}
	f.Fuzz(func(t *testing.T, doc []byte, piece int) {
		xml, err := http.NewRequest(
			http.MethodGet, "http://h/blocks/?list-type=2&prefix=&delimiter=%2F", nil,
		)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := http.NewRequest(http.MethodGet, "http://h/b/blocks/o", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, start := range []func() scanner{
			func() scanner { s, _ := s3{"blocks"}.scanner(xml); return s },
			func() scanner { s, _ := gcs{}.scanner(objects); return s },
		} {
			whole, pieces := start(), start()
			want := whole.feed(doc)
			got, size := "", max(1, min(piece, 64))
			for rest := doc; len(rest) > 0 && got == ""; {
				n := min(size, len(rest))
				got = pieces.feed(rest[:n])
				rest = rest[n:]
			}
			if got != want || pieces.complete() != whole.complete() {
				t.Errorf(
					"whole: %q, %v, in pieces of %d: %q, %v", want, whole.complete(), size, got,
					pieces.complete(),
				)
			}
		}
	})
}
