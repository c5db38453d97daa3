package web

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/programs"
)

// pair is the two gateways of a test with their HTTP addresses.
type pair struct {
	t              *testing.T
	thanos, larder string
	// Each gateway has its own bucket with the same blocks, because the other one must not find
	// what one writes.
	thanosBucket, larderBucket string
	larderProcess              *gateway.Larder
}

// everyField is the meta.json of a block with every field that Thanos knows, and one that it does
// not know.
const everyField = `{
	"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "minTime": 1000, "maxTime": 7200000, "version": 1,
	"stats": {"numSamples": 12, "numSeries": 34, "numChunks": 56, "numFloatSamples": 10, "numHistogramSamples": 2, "numTombstones": 1},
	"compaction": {"level": 3, "sources": ["01ARZ3NDEKTSV4RRFFQ69G5FAX", "01ARZ3NDEKTSV4RRFFQ69G5FAW"], "deletable": true, "failed": true,
		"parents": [{"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAW", "minTime": 1, "maxTime": 2}], "hints": ["from-out-of-order"]},
	"thanos": {
		"version": 1, "labels": {"replica": "<b>", "every": "field", "gone": ""}, "downsample": {"resolution": 300000}, "source": "compactor",
		"segment_files": ["000001"],
		"files": [{"rel_path": "chunks/000001", "size_bytes": 5}, {"rel_path": "index", "size_bytes": 99, "hash": {"hashFunc": "SHA256", "value": "ab"}}, {"rel_path": "meta.json"}],
		"rewrites": [{"sources": ["01ARZ3NDEKTSV4RRFFQ69G5FAW"], "deletions_applied": [{"matchers": [{"Type": 0, "Name": "a", "Value": "b"}],
			"intervals": [{"Mint": 1, "Maxt": 2}], "request_id": "x"}], "relabels_applied": [{"regex": "x", "action": "labeldrop"}]}],
		"index_stats": {"series_max_size": 77, "chunk_max_size": 88}, "extensions": {"anything": [1, 2.5, null], "a": {"b": "c"}},
		"upload_time": "2026-01-02T03:04:05.678Z"
	},
	"added_by_a_later_writer": {}
}`

// fewFields is the meta.json of a block of an early writer.
const fewFields = `{"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAY", "minTime": 1000, "maxTime": 7200000, "version": 1, "compaction": {"level": 1},
	"thanos": {"labels": {"few": "fields"}, "downsample": {"resolution": 0}}}`

// start runs both gateways, larder with additional flags.
func start(t *testing.T, thanosFlags, larderFlags []string) *pair {
	t.Helper()
	ctx := t.Context()
	bin, err := gateway.BuildLarder(ctx, "../..")
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, thanosBucket: t.TempDir(), larderBucket: t.TempDir()}
	l, err := layout.Write(ctx, p.thanosBucket, 1, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// They have no index, which the list of blocks does not need.
	for id, meta := range map[string]string{"01ARZ3NDEKTSV4RRFFQ69G5FAV": everyField,
		"01ARZ3NDEKTSV4RRFFQ69G5FAY": fewFields} {
		dir := filepath.Join(p.thanosBucket, id)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "meta.json"),
			[]byte(meta), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(p.larderBucket, os.DirFS(p.thanosBucket)); err != nil {
		t.Fatal(err)
	}
	bucket := gateway.Bucket{
		Dir:     p.thanosBucket,
		DataDir: t.TempDir(),
		MinTime: l.MinTime,
		MaxTime: l.MaxTime,
	}
	th, err := neighbour.StartStore(ctx, programs.Thanos(t), bucket, thanosFlags...)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, "thanos", th)
	bucket.Dir, bucket.DataDir = p.larderBucket, t.TempDir()
	p.larderProcess, err = gateway.StartLarder(ctx, bin, bucket, larderFlags...)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, "larder", p.larderProcess)
	p.thanos, p.larder = "http://"+th.HTTPAddr, "http://"+p.larderProcess.HTTPAddr
	return p
}

func closed(t *testing.T, name string, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
}

// request is a request to both gateways.
type request struct {
	method, path string // GET if empty
	form         string // a form in the body
	header       [2]string
}

// reply is the part of an answer that is compared.
type reply struct {
	code   int
	header http.Header
	body   string
}

// ask sends a request and does not follow redirects.
func ask(t *testing.T, base string, q request) reply {
	t.Helper()
	if q.method == "" {
		q.method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(
		t.Context(), q.method, base+q.path, strings.NewReader(q.form),
	)
	if err != nil {
		t.Fatal(err)
	}
	if q.form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if q.header[0] != "" {
		req.Header.Set(q.header[0], q.header[1])
	}
	c := http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

// same asks both and demands the same code, body and headers. It returns larder's answer.
func (p *pair) same(q request) reply {
	p.t.Helper()
	want, got := ask(p.t, p.thanos, q), ask(p.t, p.larder, q)
	if got.code != want.code || got.body != want.body {
		p.t.Errorf(
			"%+v: larder answers %d %q, thanos %d %q", q, got.code, got.body, want.code, want.body,
		)
	}
	p.sameHeaders(q, got, want)
	return got
}

// headers returns the headers with a meaning; others depend on the server.
func headers() []string {
	return []string{
		"Access-Control-Allow-Headers", "Access-Control-Allow-Methods",
		"Access-Control-Allow-Origin", "Access-Control-Expose-Headers",
		"Allow", "Cache-Control", "Content-Type", "Vary",
	}
}

func (p *pair) sameHeaders(q request, got, want reply) {
	p.t.Helper()
	for _, h := range headers() {
		g, w := got.header.Get(h), want.header.Get(h)
		switch h {
		case "Allow": // a set
			g, w = sorted(g), sorted(w)
		case "Cache-Control": // of larder's answers none may be stored, of Thanos's only errors
			w = "no-store"
		}
		if g != w {
			p.t.Errorf("%+v: larder's %s is %q, thanos's %q", q, h, g, w)
		}
	}
}

// data requests a path of the API and returns the value of data.
func data(t *testing.T, base, path string) map[string]any {
	t.Helper()
	r := ask(t, base, request{path: path})
	var body struct {
		Status string         `json:"status"`
		Data   map[string]any `json:"data"`
	}
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || r.code != http.StatusOK ||
		body.Status != "success" {
		t.Fatalf("GET %s%s: %d, %v, %s", base, path, r.code, err, r.body)
	}
	return body.Data
}
