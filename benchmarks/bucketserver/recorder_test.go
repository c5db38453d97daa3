package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"larder/internal/faultstore/s3server"
)

func TestRecordsRequests(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "object"), []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	bucket, err := s3server.New(s3server.Options{Dir: dir, Bucket: bucketName})
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	var r recorder
	srv := httptest.NewServer(r.record(bucket))
	defer srv.Close()

	get := func(path, ranged string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ranged != "" {
			req.Header.Set("Range", ranged)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	get("/"+bucketName+"/object", "bytes=3-6")
	get("/"+bucketName+"/missing", "")
	get("/"+bucketName+"/?list-type=2&prefix=", "")
	srv.Close() // the last handler has returned

	w := httptest.NewRecorder()
	r.report(w, nil)
	var got []request
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 {
		t.Fatalf("%d requests recorded, want 3: %+v", len(got), got)
	}
	if e := got[0]; e.Op != "GET" || e.Key != "object" || e.Offset != 3 || e.Bytes != 4 ||
		e.Status != http.StatusPartialContent || e.End < e.Start {
		t.Errorf("range: recorded %+v", e)
	}
	if e := got[1]; e.Key != "missing" || e.Status != http.StatusNotFound {
		t.Errorf("missing object: recorded %+v", e)
	}
	if e := got[2]; e.Op != "LIST" || e.Key != "" {
		t.Errorf("listing: recorded %+v", e)
	}
	w = httptest.NewRecorder()
	r.report(w, nil)
	if body := w.Body.String(); body != "[]\n" {
		t.Errorf("the second report is %q, want an empty list", body)
	}
}
