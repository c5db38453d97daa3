package web

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/explanation"
)

// fakeExplainer records the last request.
type fakeExplainer struct {
	asked *ExplainRequest
	out   *explanation.Explanation
	err   error
}

func (f *fakeExplainer) Explain(
	_ context.Context, req ExplainRequest,
) (*explanation.Explanation, error) {
	f.asked = &req
	return f.out, f.err
}

func anExplanation() *explanation.Explanation {
	phases := explanation.Phases{
		Postings: explanation.Phase{Items: 3, Read: explanation.Reads{Requests: 2, Bytes: 16384}},
		Chunks:   explanation.Phase{Items: 9, Estimated: true},
	}
	phases.Finish()
	return &explanation.Explanation{
		Tenant: "a<b>", Matchers: `{job="<i>"}`, Total: phases, Queried: 1,
		Blocks: []explanation.Block{{
			ID: idA.String(), Labels: "<script>", From: explanation.FromKept, Phases: phases,
		}},
		Notes: []string{"note"},
	}
}

func TestExplainAsksForWhatTheAddressSays(t *testing.T) {
	f := &fakeExplainer{out: anExplanation()}
	h := site(Options{Explainer: f})
	q := url.Values{
		"match[]": {
			`up{job=~"a|b", 'mode'!="x",}`,
		}, "start": {"1000.5"}, "end": {"1970-01-01T01:00:00Z"},
		"run": {"1"}, "skip_chunks": {"true"}, "max_resolution": {"5m"},
	}
	r := httptest.NewRequest(http.MethodGet, "/debug/explain?"+q.Encode(), nil)
	r.Header.Set("THANOS-TENANT", "team")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var got explanation.Explanation
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		t.Fatalf("got %d %s: %v", w.Code, w.Body, err)
	}
	if diff := cmp.Diff(f.out, &got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	want := &ExplainRequest{
		Tenant: "team", MinTime: 1_000_500, MaxTime: 3_600_000, MaxResolution: 300_000,
		SkipChunks: true, Run: true,
		Matchers: []Matcher{
			{"__name__", "=", "up"}, {"job", "=~", "a|b"}, {"mode", "!=", "x"},
		},
	}
	if diff := cmp.Diff(want, f.asked); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestExplainPage(t *testing.T) {
	h := site(Options{Explainer: &fakeExplainer{out: anExplanation()}})
	w := get(t, h, "/debug/explain", "text/html")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "<form") {
		t.Errorf("without a selector: got %d %s", w.Code, w.Body)
	}
	w = get(t, h, "/debug/explain?match[]=up&start=1&end=2", "text/html")
	body := w.Body.String()
	for _, text := range []string{idA.String(), "kept postings", "estimate", `href="../blocks"`,
		"&lt;script&gt;"} {
		if !strings.Contains(body, text) {
			t.Errorf("the page lacks %q", text)
		}
	}
	if strings.Contains(body, "<script") || strings.Contains(body, "run=1\"") {
		t.Error("the page has a script, or a link that runs requests")
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(
		csp,
		"form-action 'self'",
	) ||
		!strings.Contains(csp, "default-src 'none'") {
		t.Errorf("policy is %s", csp)
	}
}

func TestExplainRefuses(t *testing.T) {
	f := &fakeExplainer{err: status.Error(codes.ResourceExhausted, "too many series")}
	h := site(Options{Explainer: f})
	for _, c := range []struct {
		query string
		code  int
	}{
		{"", http.StatusBadRequest},
		{"match[]=up&match[]=down", http.StatusBadRequest},
		{"match[]=%7B%7D", http.StatusBadRequest},
		{"match[]=rate(up[5m])", http.StatusBadRequest},
		{"match[]=up%7B" + strings.Repeat("x", maxSelector) + "%7D", http.StatusBadRequest},
		{"match[]=up&start=x", http.StatusBadRequest},
		{"match[]=up&end=1e300", http.StatusBadRequest},
		{"match[]=up&max_resolution=-5m", http.StatusBadRequest},
		{"match[]=up&run=2", http.StatusBadRequest},
		{"match[]=up&skip_chunks=7", http.StatusBadRequest},
		{"match[]=up&format=xml", http.StatusBadRequest},
		{"match[]=up&start=1&start=2", http.StatusBadRequest},
		{"match[]=up&step=5", http.StatusBadRequest},
		{"match[]=up&start=3&end=2", http.StatusBadRequest},
		{"match[]=up", http.StatusTooManyRequests},
	} {
		w := get(t, h, "/debug/explain?"+c.query, "*/*")
		if w.Code != c.code || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%.60s: got %d %s, want %d", c.query, w.Code, w.Body, c.code)
		}
		// A text about a parameter begins with its name, the last one of the query here.
		last := c.query[strings.LastIndex(c.query, "&")+1:]
		name, _, _ := strings.Cut(last, "=")
		if name != "match[]" && name != "" && !strings.Contains(w.Body.String(), `"`+name+": ") &&
			!strings.Contains(w.Body.String(), `"start: `) {
			t.Errorf("%s: %s does not begin with the name of the parameter", c.query, w.Body)
		}
	}
	f.out = anExplanation()
	body := get(t, h, "/debug/explain?match[]=up&run=1", "*/*").Body.String()
	if !strings.Contains(body, `"error":"too many series","code":"ResourceExhausted"`) ||
		!strings.Contains(body, idA.String()) {
		t.Errorf("of a run that failed, the answer is %s", body)
	}
	body = get(t, h, "/debug/explain?match[]=up&run=1", "text/html").Body.String()
	if !strings.Contains(body, "too many series") || !strings.Contains(body, idA.String()) {
		t.Errorf("of a run that failed, the page is %s", body)
	}
	f.asked = nil
	r := httptest.NewRequest(http.MethodGet, "/debug/explain?match[]=up&run=1", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden || f.asked != nil {
		t.Errorf("another site ran a request: %d", w.Code)
	}
	w = get(
		t,
		site(Options{Explainer: f, DebugElsewhere: true}),
		"/debug/explain?match[]=up",
		"*/*",
	)
	if w.Code != http.StatusNotFound {
		t.Errorf("with an address for debugging, the main one answers %d", w.Code)
	}
}

func TestParseSelector(t *testing.T) {
	for text, want := range map[string][]Matcher{
		`up`:                       {{"__name__", "=", "up"}},
		`a:b{}`:                    {{"__name__", "=", "a:b"}},
		`{"my metric", "a b"="c"}`: {{"__name__", "=", "my metric"}, {"a b", "=", "c"}},
		"{a!~`x\\d`}":              {{"a", "!~", `x\d`}},
		`{a="\"\u00e9"}`:           {{"a", "=", `"é`}},
	} {
		got, err := parseSelector(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", text, err, diff)
		}
	}
	for _, text := range []string{
		"", "{}", "up{", "up}", `up{a=}`, `up{a="b"`, `up{a="b" c="d"}`, `up{,}`, "up up", "1",
		"sum(up)",
		`up{a=b}`, `up{"a"`, `up[5m]`, `up{a="b"} offset 5m`, "\xff",
	} {
		if got, err := parseSelector(text); err == nil {
			t.Errorf("%s: got %v, want an error", text, got)
		}
	}
}
