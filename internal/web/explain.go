package web

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/explanation"
)

// Explainer explains Series requests. Its errors have a gRPC status. With an error it returns what
// a request that ran has read until it failed, nil if that is nothing.
type Explainer interface {
	Explain(ctx context.Context, req ExplainRequest) (*explanation.Explanation, error)
}

// ExplainRequest is the Series request to explain.
type ExplainRequest struct {
	// Tenant is the name that the client gave, "" for none.
	Tenant   string
	Matchers []Matcher
	// MinTime and MaxTime are in milliseconds, both included.
	MinTime, MaxTime int64
	// MaxResolution is the coarsest resolution that may answer, in milliseconds.
	MaxResolution int64
	SkipChunks    bool
	// Run makes the request and reports what it has read.
	Run bool
}

const (
	// explainTimeout bounds an explanation, as a Querier bounds a query by default.
	explainTimeout = 2 * time.Minute
	// explainRange is the time range up to now that is explained unless start is given.
	explainRange = time.Hour
	// maxExplainRows bounds the blocks of the page. JSON has more.
	maxExplainRows = 200
	// maxSelector bounds the selector in bytes. Its bytes also count in the account of requests.
	maxSelector = 32 << 10
)

// explainPage is the page at /debug/explain.
type explainPage struct {
	Match, Start, End, Tenant string
	Run, SkipChunks           bool
	Error                     string
	Result                    *explanation.Explanation
	Phases                    []namedPhase
	Rows                      []explanation.Block
	JSON                      string // the address of the same as JSON, without base
}

type namedPhase struct {
	Name, Unit string // Unit is what Items counts
	explanation.Phase
}

// serveExplain serves /debug/explain as JSON, or as a page to clients that prefer HTML.
func (p *pages) serveExplain(w http.ResponseWriter, r *http.Request) {
	accepts := r.Header.Get("Accept")
	asPage := r.FormValue("format") != "json" && strings.Contains(accepts, "text/html")
	page := &explainPage{
		Match: r.FormValue("match[]"), Start: r.FormValue("start"), End: r.FormValue("end"),
		Tenant: r.FormValue("tenant"), Run: on(r.FormValue("run")),
		SkipChunks: on(r.FormValue("skip_chunks")),
	}
	var err error
	if !asPage || page.Match != "" {
		page.Result, err = p.explain(r)
	}
	code := http.StatusOK
	if err != nil {
		code = explainCode(err)
		page.Error = errorText(err)
	}
	w.Header().Add("Vary", "Accept")
	if !asPage {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		var body any = page.Result
		if err != nil {
			body = failedExplanation{page.Error, status.Code(err).String(), page.Result}
		}
		_ = json.NewEncoder(w).Encode(body) // fails only if the client has disconnected
		return
	}
	if e := page.Result; e != nil {
		page.Phases = []namedPhase{
			{"Postings", "lists", e.Total.Postings}, {"Series", "series", e.Total.Series},
			{"Chunks", "chunks", e.Total.Chunks}, {Name: "All", Phase: e.Total.Sum},
		}
		page.Rows = e.Blocks[:min(len(e.Blocks), maxExplainRows)]
		q := r.URL.Query()
		q.Set("format", "json")
		q.Del("run") // a link must not run the request again
		page.JSON = "debug/explain?" + q.Encode()
	}
	p.renderCode(w, r, p.explained, "larder: explain", page, code)
}

// failedExplanation is the JSON of a request that was refused, or failed.
type failedExplanation struct {
	Error string `json:"error"`
	Code  string `json:"code"`
	*explanation.Explanation
}

func on(v string) bool { return v == "1" || v == "true" || v == "on" }

// switches are the values of parameters that are on or off.
var switches = []string{"", "1", "true", "on", "0", "false", "off"}

// explainParams are the parameters of /debug/explain, with their values if these are few.
var explainParams = map[string][]string{
	"match[]": nil, "start": nil, "end": nil, "max_resolution": nil, "tenant": nil,
	"run": switches, "skip_chunks": switches, "format": {"", "json", "html"},
}

// checkParams refuses parameters that /debug/explain does not have, because a request that ignores
// one explains something else than was asked.
func checkParams(form url.Values) error {
	for _, name := range slices.Sorted(maps.Keys(form)) {
		values, known := explainParams[name]
		switch given := form[name]; {
		case !known:
			return fmt.Errorf("%.40s: no such parameter: want %s", name,
				strings.Join(slices.Sorted(maps.Keys(explainParams)), ", "))
		case name == "match[]":
		case len(given) > 1:
			return fmt.Errorf("%s: given %d times", name, len(given))
		case values != nil && !slices.Contains(values, given[0]):
			return fmt.Errorf("%s: %.40q is not one of %s", name, given[0],
				strings.Join(values[1:], ", "))
		}
	}
	return nil
}

// explain checks a request and explains it.
func (p *pages) explain(r *http.Request) (*explanation.Explanation, error) {
	bad := func(format string, args ...any) (*explanation.Explanation, error) {
		return nil, status.Errorf(codes.InvalidArgument, format, args...)
	}
	req := ExplainRequest{
		Tenant: r.Header.Get("THANOS-TENANT"), Run: on(r.FormValue("run")),
		SkipChunks: on(r.FormValue("skip_chunks")),
	}
	if err := checkParams(r.Form); err != nil {
		return bad("%v", err)
	}
	if t := r.FormValue("tenant"); t != "" { // a browser cannot set the header
		req.Tenant = t
	}
	// A page of another site must not make the browser of an operator run requests here.
	if site := r.Header.Get("Sec-Fetch-Site"); req.Run && site == "cross-site" {
		return nil, status.Error(codes.PermissionDenied,
			"run=1 was requested by a page of another site: open the address yourself")
	}
	if n := len(r.Form["match[]"]); n != 1 {
		return bad(
			"want one parameter match[], got %d: a Series request has one set of matchers",
			n,
		)
	}
	selector := r.FormValue("match[]")
	if len(selector) > maxSelector {
		return bad("match[]: %d bytes, more than %d", len(selector), maxSelector)
	}
	var err error
	if req.Matchers, err = parseSelector(selector); err != nil {
		return bad("match[]: %v", err)
	}
	now := time.Now()
	if req.MaxTime, err = timeParam(r, "end", now); err != nil {
		return bad("%v", err)
	}
	if req.MinTime, err = timeParam(r, "start", at(req.MaxTime).Add(-explainRange)); err != nil {
		return bad("%v", err)
	}
	if req.MinTime > req.MaxTime {
		return bad("start: %s is after the end, %s", formatTime(at(req.MinTime)),
			formatTime(at(req.MaxTime)))
	}
	if s := r.FormValue("max_resolution"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return bad("max_resolution: %.40q is not a duration such as 5m", s)
		}
		req.MaxResolution = d.Milliseconds()
	}
	ctx, cancel := context.WithTimeout(r.Context(), explainTimeout)
	defer cancel()
	return p.Explainer.Explain(ctx, req)
}

// timeParam parses a time as Prometheus's API does: seconds since 1970, or RFC 3339. It returns
// milliseconds.
func timeParam(r *http.Request, name string, otherwise time.Time) (int64, error) {
	s := r.FormValue(name)
	if s == "" {
		return otherwise.UnixMilli(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UnixMilli(), nil
	}
	const most = math.MaxInt64 / 1000
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < -most || f > most {
		return 0, fmt.Errorf(
			"%s: %.40q is not a time: want seconds since 1970, or RFC 3339",
			name,
			s,
		)
	}
	return int64(math.Round(f * 1000)), nil
}

// explainCode returns the HTTP status for an error.
func explainCode(err error) int {
	switch status.Code(err) {
	case codes.InvalidArgument:
		return http.StatusBadRequest
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.Aborted:
		return http.StatusBadGateway
	}
	return http.StatusInternalServerError
}

// errorText returns the text of an error without the name of its code.
func errorText(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
