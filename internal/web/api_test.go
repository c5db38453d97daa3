package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
)

// golden is the exact answer of `thanos store` for fullMeta, followed by a block without a readable
// meta.json.
const golden = `{"status":"success","data":{"label":"cluster","blocks":[` +
	`{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","minTime":1000,"maxTime":7200000,` +
	`"stats":{"numSamples":12,"numFloatSamples":10,"numHistogramSamples":2,"numSeries":34,"numChunks":56,"numTombstones":1},` +
	`"compaction":{"level":3,"sources":["01ARZ3NDEKTSV4RRFFQ69G5FAX","01ARZ3NDEKTSV4RRFFQ69G5FAW","01ARZ3NDEKTSV4RRFFQ69G5FAX"],"deletable":true,` +
	`"parents":[{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAW","minTime":1,"maxTime":2}],"failed":true,"hints":["from-out-of-order"]},"version":1,` +
	`"thanos":{"version":1,"labels":{"cluster":"eu","gone":"","replica":"\u003cb\u003e"},"downsample":{"resolution":300000},"source":"compactor",` +
	`"segment_files":["000001"],"files":[{"rel_path":"chunks/000001","size_bytes":5},{"rel_path":"index","size_bytes":99,"hash":{"hashFunc":"SHA256","value":"ab"}},{"rel_path":"meta.json"}],` +
	`"rewrites":[{"sources":["01ARZ3NDEKTSV4RRFFQ69G5FAW"],"deletions_applied":[{"matchers":[{"Type":0,"Name":"a","Value":"b"}],"intervals":[{"Mint":1,"Maxt":2}]}],` +
	`"relabels_applied":[{"regex":"x","action":"labeldrop"}]}],"index_stats":{"series_max_size":77,"chunk_max_size":88},"extensions":{"a":"b","anything":[1]},"upload_time":"2026-01-02T03:04:05Z"}},` +
	`{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAW","minTime":7200000,"maxTime":14400000,"stats":{"numSeries":1,"numChunks":2},"compaction":{"level":1,"sources":["01ARZ3NDEKTSV4RRFFQ69G5FAW"]},"version":1,` +
	`"thanos":{"version":1,"labels":{"cluster":"us"},"downsample":{"resolution":0},"source":"","index_stats":{},"upload_time":"0001-01-01T00:00:00Z"}}` +
	`],"refreshedAt":"2026-01-02T03:04:05.000000006Z","err":"meta.json of 1 blocks cannot be read from the data directory, their entries are incomplete: file does not exist"}}`

func TestBlocksAPI(t *testing.T) {
	o := Options{Blocks: two(), Label: "cluster"}
	f := func(path, want string) {
		t.Helper()
		w := get(t, site(o), path, "")
		if diff := cmp.Diff(want, w.Body.String()); diff != "" || w.Code != 200 ||
			w.Header().Get("Content-Type") != "application/json" {
			t.Errorf(
				"GET %s: %d %s (-want +got)\n%s", path, w.Code, w.Header().Get("Content-Type"),
				diff,
			)
		}
	}
	f("/api/v1/blocks?view=loaded", golden)
	empty := `{"status":"success","data":{"label":"cluster","blocks":[],"refreshedAt":"0001-01-01T00:00:00Z","err":null}}`
	f("/api/v1/blocks?view=global", empty)
	f("/api/v1/blocks", empty)

	o.Blocks = fakeBlocks{snap: Snapshot{Err: errors.New(`"list": no`)}}
	f(
		"/api/v1/blocks?view=loaded",
		`{"status":"success","data":{"label":"cluster","blocks":[],"refreshedAt":"0001-01-01T00:00:00Z","err":"\"list\": no"}}`,
	)
}

// TestMetaFills serves a meta.json with missing fields. The answer has the same values as Thanos's.
func TestMetaFills(t *testing.T) {
	o := Options{Blocks: fakeBlocks{
		snap: Snapshot{Blocks: []Block{{ID: idA}}},
		docs: map[ulid.ULID]string{
			idA: `{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","minTime":1,"maxTime":2,"version":1,"thanos":{"rewrites":[],"files":[],"extensions":null,"labels":null}}`,
		},
	}}
	want := `{"status":"success","data":{"label":"","blocks":[{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","minTime":1,"maxTime":2,"stats":{},"compaction":{"level":0},"version":1,` +
		`"thanos":{"labels":{},"downsample":{"resolution":0},"source":"","index_stats":{},"upload_time":"0001-01-01T00:00:00Z"}}],"refreshedAt":"0001-01-01T00:00:00Z","err":null}}`
	if got := get(t, site(o), "/api/v1/blocks?view=loaded", "").Body.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestStatusAPI(t *testing.T) {
	h := site(
		Options{
			Flags:   map[string]string{"data-dir": "/d<"},
			Started: time.Date(2026, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600)),
		},
	)
	f := func(path string, want ...string) {
		t.Helper()
		body := get(t, h, path, "").Body.String()
		for _, s := range want {
			if !strings.Contains(body, s) {
				t.Errorf("GET %s: got %s, want it to contain %s", path, body, s)
			}
		}
	}
	f("/api/v1/status/flags", `{"status":"success","data":{"data-dir":"/d\u003c"}}`)
	f("/api/v1/status/runtimeinfo", `"startTime":"2026-01-02T03:04:05Z","CWD":"/`, `"GOMEMLIMIT":`)
	f("/api/v1/status/buildinfo", `"goVersion":"go`)
}

func do(h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestMethodsAndCORS(t *testing.T) {
	for _, disable := range []bool{false, true} {
		h := site(Options{DisableCORS: disable})
		f := func(method, path string, code int, cors bool, allow string) {
			t.Helper()
			w := do(h, method, path, "")
			if w.Code != code || w.Header().Get("Allow") != allow {
				t.Errorf(
					"%s %s: got %d, Allow %q, want %d, %q", method, path, w.Code,
					w.Header().Get("Allow"), code, allow,
				)
			}
			for name, want := range map[string]string{
				"Access-Control-Allow-Origin":   "*",
				"Access-Control-Allow-Methods":  "GET, POST, OPTIONS",
				"Access-Control-Expose-Headers": "Date",
				"Access-Control-Allow-Headers":  "Accept, Accept-Encoding, Authorization, Content-Type, Origin",
			} {
				if !cors || disable {
					want = ""
				}
				if got := w.Header().Get(name); got != want {
					t.Errorf(
						"%s %s, disabled %v: got %s %q, want %q", method, path, disable, name, got,
						want,
					)
				}
			}
		}
		f("GET", "/api/v1/blocks", 200, true, "")
		f("HEAD", "/api/v1/blocks?view=loaded", 200, true, "")
		f("GET", "/api/v1/status/flags", 200, true, "")
		f("POST", "/api/v1/blocks/mark", 400, true, "")
		f("OPTIONS", "/api/v1/blocks", 204, true, "")
		f("OPTIONS", "/api/v1/nowhere", 204, true, "")
		f("GET", "/api/v1/nowhere", 404, false, "")
		f("GET", "/api/v1/", 404, false, "")
		f("POST", "/api/v1/blocks", 405, false, "GET, OPTIONS")
		f("GET", "/api/v1/blocks/mark", 405, false, "POST, OPTIONS")
	}
}

func TestMark(t *testing.T) {
	const id, form = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "application/x-www-form-urlencoded"
	m := &fakeMarker{}
	h := site(Options{Marker: m})
	f := func(body string, code int, want string, header ...string) {
		t.Helper()
		w := do(
			h,
			"POST",
			"/api/v1/blocks/mark",
			body,
			append([]string{"Content-Type", form}, header...)...)
		if w.Code != code || w.Body.String() != want {
			t.Errorf("POST %q %q: got %d %s, want %d %s", body, header, w.Code, w.Body, code, want)
		}
	}
	bad := func(s string) string {
		return fmt.Sprintf(`{"status":"error","errorType":"bad_data","error":%q}`, s)
	}

	// Errors of Thanos, in its words.
	f("", 400, bad("ID cannot be empty"))
	f("id="+id, 400, bad("Action cannot be empty"))
	f(
		"id=x&action=DELETION", 400,
		bad(`ULID "x" is not valid: ulid: bad data size when unmarshaling`),
	)
	f(
		"id=01ARZ3NDEKTSV4RRFFQ69G5FA_&action=DELETION",
		400,
		bad(
			`ULID "01ARZ3NDEKTSV4RRFFQ69G5FA_" is not valid: ulid: bad data characters when unmarshaling`,
		),
	)
	f("id="+id+"&action=BURN", 400, bad("not supported marker BURN"))
	// Errors of larder.
	f(
		"id="+id+"&action=DELETION", 403,
		bad("cross-origin request detected from Sec-Fetch-Site header"), "Sec-Fetch-Site",
		"cross-site",
	)
	f(
		"id="+id+"&action=DELETION",
		403,
		bad(
			"cross-origin request detected, and/or browser is out of date: Sec-Fetch-Site is missing, and Origin does not match Host",
		),
		"Origin",
		"https://elsewhere",
	)
	f(
		"id="+id+"&action=DELETION&detail="+strings.Repeat("x", maxMarkBytes), 400,
		bad("form: http: request body too large"),
	)
	if w := do(
		h, "POST", "/api/v1/blocks/mark?id="+id+"&action=DELETION&detail="+strings.Repeat("x",
			maxMarkBytes+1), ""); w.Code != 400 {
		t.Errorf("long detail in the query: got %d %s, want 400", w.Code, w.Body)
	}
	if len(m.marks) > 0 {
		t.Fatalf("marked %q", m.marks)
	}

	f("id="+id+"&action=DELETION&detail="+url.QueryEscape("too old"), 204, "")
	f("id="+strings.ToLower(id)+"&action=NO_COMPACTION", 204, "", "Sec-Fetch-Site", "same-origin")
	var parts bytes.Buffer
	mw := multipart.NewWriter(&parts)
	for _, err := range []error{mw.WriteField("id", id), mw.WriteField("action", "DELETION"),
		mw.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f(parts.String(), 204, "", "Content-Type", mw.FormDataContentType())
	if w := do(h, "POST", "/api/v1/blocks/mark?id="+id+"&action=DELETION", ""); w.Code != 204 {
		t.Errorf("id and action in the query: got %d %s, want 204", w.Code, w.Body)
	}
	want := []string{
		id + " DELETION too old",
		id + " NO_COMPACTION ",
		id + " DELETION ",
		id + " DELETION ",
	}
	if diff := cmp.Diff(want, m.marks); diff != "" {
		t.Errorf("marks (-want +got)\n%s", diff)
	}

	m.err = fmt.Errorf("block %s: %w", id, ErrNoBlock)
	f(
		"id="+id+"&action=DELETION", 400,
		bad("block 01ARZ3NDEKTSV4RRFFQ69G5FAV: no such block in the bucket"),
	)
	m.err = io.ErrUnexpectedEOF
	f(
		"id="+id+"&action=DELETION", 500,
		`{"status":"error","errorType":"internal","error":"unexpected EOF"}`,
	)

	h = site(Options{})
	f("id="+id+"&action=DELETION", 400, bad("Admin operations are disabled"))
}
