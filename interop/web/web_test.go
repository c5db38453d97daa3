package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sorted(list string) string {
	parts := strings.Split(list, ", ")
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// TestSameAnswers compares a larder without flags with a Thanos whose admin operations are
// disabled, as they are by default in larder.
func TestSameAnswers(t *testing.T) {
	p := start(
		t, []string{"--bucket-web-label=replica", "--disable-admin-operations"},
		[]string{"--bucket-web-label=replica"},
	)
	before := files(t, p.larderBucket)

	t.Run("blocks", func(t *testing.T) {
		want, got := data(
			t, p.thanos, "/api/v1/blocks?view=loaded",
		), data(
			t, p.larder, "/api/v1/blocks?view=loaded",
		)
		for _, d := range []map[string]any{want, got} {
			at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(d["refreshedAt"]))
			if err != nil || time.Since(at) > time.Hour || time.Since(at) < 0 {
				t.Errorf("refreshedAt %v, %v", d["refreshedAt"], err)
			}
			delete(d, "refreshedAt")
			// Thanos lists them in the order of a map.
			blocks := d["blocks"].([]any)
			slices.SortFunc(blocks, func(a, b any) int {
				return strings.Compare(
					a.(map[string]any)["ulid"].(string), b.(map[string]any)["ulid"].(string),
				)
			})
		}
		if len(want["blocks"].([]any)) < 5 {
			t.Errorf("%d blocks are too few to compare", len(want["blocks"].([]any)))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-thanos +larder)\n%s", diff)
		}
		p.sameHeaders(
			request{path: "/api/v1/blocks?view=loaded"},
			ask(t, p.larder, request{path: "/api/v1/blocks?view=loaded"}),
			ask(t, p.thanos, request{path: "/api/v1/blocks?view=loaded"}),
		)
		p.same(request{path: "/api/v1/blocks?view=global"})
		p.same(request{path: "/api/v1/blocks"})
	})

	t.Run("status", func(t *testing.T) {
		for _, path := range []string{"/api/v1/status/runtimeinfo", "/api/v1/status/buildinfo"} {
			want, got := data(t, p.thanos, path), data(t, p.larder, path)
			if diff := cmp.Diff(shape(want), shape(got)); diff != "" {
				t.Errorf("%s (-thanos +larder)\n%s", path, diff)
			}
		}
		want, got := data(
			t, p.thanos, "/api/v1/status/flags",
		), data(
			t, p.larder, "/api/v1/status/flags",
		)
		for name, v := range got {
			if _, ok := v.(string); !ok {
				t.Errorf("--%s is %v, no text", name, v)
			}
		}
		for name := range want {
			if _, ok := got[name]; !ok {
				t.Errorf("larder does not show --%s", name)
			}
		}
		for _, name := range []string{
			"objstore.config", "objstore.config-file", "bucket-web-label", "web.disable",
			"web.external-prefix", "web.prefix-header", "web.disable-cors",
			"cache-index-header", "block-discovery-strategy", "store.grpc.series-max-concurrency",
			"selector.relabel-config", "grpc-server-tls-min-version",
		} {
			if want[name] == nil || want[name] != got[name] {
				t.Errorf("--%s: larder shows %v, thanos %v", name, got[name], want[name])
			}
		}
	})

	t.Run("others", func(t *testing.T) {
		if r := p.same(request{path: "/-/ready"}); r.code != 200 || r.body != "OK" {
			t.Errorf("/-/ready: %d %q", r.code, r.body)
		}
		p.same(request{path: "/-/healthy"})
		p.same(request{path: "/nowhere"})
		p.same(request{path: "/api/v1/nowhere"})
		p.same(request{path: "/api/v1/"})
		p.same(request{path: "/debug/pprof/cmdline"})
		p.same(request{method: "OPTIONS", path: "/api/v1/blocks"})
		p.same(request{method: "OPTIONS", path: "/api/v1/nowhere"})
		p.same(request{method: "POST", path: "/api/v1/blocks"})
		p.same(request{method: "POST", path: "/api/v1/status/flags"})
		p.same(request{path: "/api/v1/blocks/mark"})
		for _, path := range []string{"/", "/blocks", "/loaded", "/metrics", "/debug/pprof/",
			"/debug/fgprof?seconds=1"} {
			want, got := ask(
				t, p.thanos, request{path: path},
			), ask(
				t, p.larder, request{path: path},
			)
			if want.code != 200 || got.code != 200 {
				t.Errorf("%s: larder answers %d, thanos %d", path, got.code, want.code)
			}
		}
	})

	t.Run("marks are refused", func(t *testing.T) {
		for _, form := range []string{"", "id=01ARZ3NDEKTSV4RRFFQ69G5FAV&action=DELETION",
			"id=01ARZ3NDEKTSV4RRFFQ69G5FAV&action=NO_COMPACTION"} {
			if r := p.same(request{method: "POST", path: "/api/v1/blocks/mark",
				form: form}); r.code != 400 {
				t.Errorf("%q: %d %s", form, r.code, r.body)
			}
		}
		if diff := cmp.Diff(before, files(t, p.larderBucket)); diff != "" {
			t.Errorf("larder wrote to the bucket (-before +after)\n%s", diff)
		}
	})
	t.Log(
		"proved: blocks, status and errors of /api/v1/, probes and pages equal those of thanos store; marks are rejected and write nothing",
	)
}

// TestMarks: with admin operations larder writes the same as Thanos, and its next sync honours it.
func TestMarks(t *testing.T) {
	p := start(t, []string{"--web.prefix-header=X-Prefix"}, []string{
		"--web.prefix-header=X-Prefix", "--enable-admin-operations", "--sync-block-duration=500ms",
		"--ignore-deletion-marks-delay=0s",
	})
	const id, other = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAY"
	before := files(t, p.larderBucket)
	if !p.loaded(t.Context(), id) {
		t.Fatal("the block is not served")
	}
	mark := func(form string, code int) {
		t.Helper()
		if r := p.same(request{method: "POST", path: "/api/v1/blocks/mark",
			form: form}); r.code != code {
			t.Errorf("%q: %d %s", form, r.code, r.body)
		}
	}
	mark("", 400)
	mark("id="+id, 400)
	mark("action=DELETION", 400)
	mark("id=x&action=DELETION", 400)
	mark("id="+id+"&action=BURN", 400)
	mark("id="+id+"&action=deletion", 400)
	if diff := cmp.Diff(before, files(t, p.larderBucket)); diff != "" {
		t.Errorf("a rejected request wrote to the bucket (-before +after)\n%s", diff)
	}
	began := time.Now().Unix()
	mark("id="+id+"&action=DELETION&detail=too+%3Cold%3E", 204)
	mark("id="+id+"&action=DELETION&detail=again", 204)
	mark("id="+other+"&action=NO_COMPACTION&detail=why", 204)
	mark("id="+strings.ToLower(id)+"&action=NO_COMPACTION", 204)

	wrote := func(bucket string) map[string]any {
		t.Helper()
		out := map[string]any{}
		for _, name := range files(t, bucket) {
			if slices.Contains(before, name) {
				continue
			}
			b, err := os.ReadFile(filepath.Join(bucket, name))
			if err != nil {
				t.Fatal(err)
			}
			var m map[string]any
			if err := json.Unmarshal(b, &m); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, key := range []string{"deletion_time", "no_compact_time"} {
				if at, ok := m[key].(float64); ok && int64(at) >= began &&
					int64(at) <= time.Now().Unix() {
					m[key] = "now"
				}
			}
			out[name] = m
		}
		return out
	}
	want, got := wrote(p.thanosBucket), wrote(p.larderBucket)
	if diff := cmp.Diff(want, got); diff != "" || len(want) != 3 {
		t.Errorf("thanos wrote %d marks (-thanos +larder)\n%s", len(want), diff)
	}
	if err := p.larderProcess.Wait(t.Context(), func(ctx context.Context) bool {
		return !p.loaded(ctx, id)
	}); err != nil {
		t.Errorf("the mark is not honoured: %v", err)
	}
	if !p.loaded(t.Context(), other) {
		t.Error("a block that is not to be compacted is not served")
	}

	// What Thanos does not reject.
	const unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAZ"
	if r := ask(t, p.larder, request{method: "POST", path: "/api/v1/blocks/mark",
		form: "id=" + unknown + "&action=DELETION"}); r.code != 400 ||
		!strings.Contains(r.body, "no such block") {
		t.Errorf("mark of an unknown block: %d %s", r.code, r.body)
	}
	if r := ask(t, p.larder, request{method: "POST", path: "/api/v1/blocks/mark", form: "id=" + other + "&action=DELETION", header: [2]string{"Origin", "http://elsewhere"}}); r.code != 403 {
		t.Errorf("from another site: %d %s", r.code, r.body)
	}
	if diff := cmp.Diff(got, wrote(p.larderBucket)); diff != "" {
		t.Errorf("a rejected request wrote to the bucket (-before +after)\n%s", diff)
	}

	p.prefixed(
		"a prefix in a header", request{header: [2]string{"X-Prefix", "http://host/a//b/"}}, "/a/b",
	)
	p.prefixed("none in the header", request{}, "")
	t.Log(
		"proved: with --enable-admin-operations larder writes the marks that thanos store writes, and honours them after its next sync",
	)
}

// loaded reports whether larder serves a block.
func (p *pair) loaded(ctx context.Context, id string) bool {
	p.t.Helper()
	if ctx.Err() != nil {
		return false
	}
	for _, b := range data(p.t, p.larder, "/api/v1/blocks?view=loaded")["blocks"].([]any) {
		if b.(map[string]any)["ulid"] == id {
			return true
		}
	}
	return false
}

// prefixed demands that the links of both gateways' pages have a prefix, which requests do not
// have.
func (p *pair) prefixed(what string, q request, prefix string) {
	p.t.Helper()
	q.path = "/blocks"
	// In Thanos's page the prefix is a string of a script.
	thanos, larder := ask(p.t, p.thanos, q).body, ask(p.t, p.larder, q).body
	script := `GLOBAL_PATH_PREFIX="` + strings.ReplaceAll(prefix, "/", `\/`) + `"`
	if !strings.Contains(thanos, script) {
		p.t.Errorf("%s: thanos's page lacks %s:\n%s", what, script, thanos)
	}
	link := `href="` + prefix + `/blocks"`
	if prefix == "" {
		link = `href="./blocks"`
	}
	if !strings.Contains(larder, link) {
		p.t.Errorf("%s: larder's page lacks %s:\n%s", what, link, larder)
	}
	q.path = "/blocks/"
	want, got := ask(p.t, p.thanos, q), ask(p.t, p.larder, q)
	// Thanos's redirect leaves the prefix.
	if want.code != http.StatusMovedPermanently || got.code != want.code ||
		got.header.Get("Location") != prefix+"/blocks" ||
		want.header.Get("Location") != "/blocks" {
		p.t.Errorf(
			"%s: /blocks/: larder %d %s, thanos %d %s", what, got.code, got.header.Get("Location"),
			want.code, want.header.Get("Location"),
		)
	}
}

func TestPrefixAndNoCORS(t *testing.T) {
	flags := []string{
		"--web.external-prefix=/pre//fix/",
		"--web.prefix-header=X-Prefix",
		"--web.disable-cors",
		"--disable-admin-operations",
	}
	p := start(t, flags, flags)
	p.prefixed("a prefix in a flag", request{}, "/pre/fix")
	p.prefixed("both", request{header: [2]string{"X-Prefix", "/other"}}, "/pre/fix")
	for _, path := range []string{"/pre/fix", "/pre/fix/", "/pre/fix/blocks",
		"/pre/fix/api/v1/blocks"} {
		if r := p.same(request{path: path}); r.code != 404 {
			t.Errorf("%s: %d", path, r.code)
		}
	}
	for _, q := range []request{
		{path: "/api/v1/blocks"}, {method: "OPTIONS", path: "/api/v1/blocks"},
		{method: "POST", path: "/api/v1/blocks/mark"}, {method: "POST", path: "/api/v1/blocks"},
	} {
		if r := p.same(q); r.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%+v: %v", q, r.header)
		}
	}
	t.Log("proved: external prefix, prefix header and --web.disable-cors")
}

func TestDisabled(t *testing.T) {
	flags := []string{"--web.disable"}
	p := start(t, flags, flags)
	for _, path := range []string{"/", "/blocks", "/loaded", "/api/v1/blocks",
		"/api/v1/status/flags", "/api/v1/status/buildinfo", "/favicon.ico"} {
		if r := p.same(request{path: path}); r.code != 404 {
			t.Errorf("%s: %d", path, r.code)
		}
	}
	p.same(request{method: "OPTIONS", path: "/api/v1/blocks"})
	p.same(request{method: "POST", path: "/api/v1/blocks/mark"})
	p.same(request{path: "/-/ready"})
	for _, path := range []string{"/metrics", "/debug/pprof/"} {
		if want, got := ask(t, p.thanos, request{path: path}),
			ask(t, p.larder, request{path: path}); want.code != 200 ||
			got.code != 200 {
			t.Errorf("%s: larder answers %d, thanos %d", path, got.code, want.code)
		}
	}
	t.Log("proved: --web.disable leaves the same paths")
}

// shape replaces values by their JSON types.
func shape(m map[string]any) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[k] = fmt.Sprintf("%T", v)
	}
	return out
}

// files lists the files of a bucket.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			path, err = filepath.Rel(dir, path)
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}
