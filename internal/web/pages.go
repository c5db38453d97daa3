package web

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzhttp"
)

//go:embed pages
var pageFiles embed.FS

// pages serves the web pages: /, /blocks, which is also /loaded, and /debug/explain. Pages contain
// no script and load nothing from other hosts. html/template escapes all text in them.
type pages struct {
	Options
	history                     *History
	alone                       bool // this address has no other pages
	overview, blocks, explained *template.Template
}

func newPages(o Options) *pages {
	funcs := template.FuncMap{
		"bytes": formatBytes, "time": formatTime, "span": formatSpan,
		"percent": func(x float64) string { return fmt.Sprintf("%.3f%%", x) },
		"count":   formatCount, "usd": formatUSD, "seconds": formatSeconds,
		"stage": stageTitle,
		"state": stateTitle, "age": formatAge, "spark": sparkHeight,
		"dur":   func(d time.Duration) string { return formatSeconds(d.Seconds()) },
		"since": func(t, now time.Time) string { return formatAge(now.Sub(t)) },
		"ago":   formatAgo, "period": formatPeriod, "states": notServed,
		"sync": func(snap Snapshot, now time.Time, base string) syncFacts {
			return syncFacts{snap, now, base}
		},
	}
	parse := func(name string) *template.Template {
		t := template.New("frame.html").Funcs(funcs)
		return template.Must(t.ParseFS(
			pageFiles, "pages/frame.html", "pages/style.css", "pages/"+name,
		))
	}
	history := o.History
	if history == nil {
		history = NewHistory(o.Gatherer)
	}
	return &pages{
		Options: o, history: history,
		overview: parse("overview.html"), blocks: parse("blocks.html"),
		explained: parse("explain.html"),
	}
}

func (p *pages) register(mux *routes, bound func(http.Handler) http.Handler) {
	prefix := p.PrefixHeader
	if p.ExternalPrefix != "" {
		prefix = "" // base ignores it
	}
	page := func(path string, serve http.HandlerFunc) {
		mux.Handle("GET "+path, bound(varies(prefix, gzhttp.GzipHandler(serve))))
	}
	page("/{$}", p.serveOverview)
	page("/favicon.ico", serveIcon)
	for _, name := range []string{"blocks", "loaded"} {
		page("/"+name, p.serveBlocks)
		redirect := func(w http.ResponseWriter, r *http.Request) {
			base := p.base(r)
			if base == "./" {
				base = "/"
			}
			http.Redirect(w, r, base+name, http.StatusMovedPermanently)
		}
		mux.Handle("GET /"+name+"/{$}", varies(prefix, http.HandlerFunc(redirect)))
	}
}

//go:embed pages/favicon.svg
var icon []byte

// serveIcon serves a jar. Browsers request this name for pages without an icon of their own.
func serveIcon(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "image/svg+xml")
	h.Set("Cache-Control", "public, max-age=86400")
	_, _ = w.Write(icon) // fails only if the client has disconnected
}

// frame is the data that every page has.
type frame struct {
	Base, Title string
	Alone       bool // there are no other pages to link to
	Explain     bool // the page that explains requests is at this address
	Ready       bool
	Draining    bool
	Now         time.Time
	Page        any
}

func (p *pages) render(
	w http.ResponseWriter, r *http.Request, t *template.Template, title string, page any,
) {
	p.renderCode(w, r, t, title, page, http.StatusOK)
}

func (p *pages) renderCode(
	w http.ResponseWriter, r *http.Request, t *template.Template, title string, page any, code int,
) {
	var out bytes.Buffer
	base := p.base(r)
	if above := strings.Count(r.URL.Path, "/") - 1; base == "./" && above > 0 {
		base = strings.Repeat("../", above)
	}
	f := frame{
		Base:     base,
		Alone:    p.alone,
		Explain:  p.Explainer != nil && (p.alone || !p.DebugElsewhere),
		Title:    title,
		Ready:    p.Probe.Ready(),
		Draining: p.Probe.Draining(),
		Now:      time.Now().UTC(),
		Page:     page,
	}
	if err := t.Execute(&out, f); err != nil {
		p.Logger.Error("page could not be rendered", "page", title, "err", err)
		http.Error(w, "the page could not be rendered", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	if h.Get("Content-Security-Policy") == contentPolicy {
		h.Set("Content-Security-Policy", pagePolicy)
	}
	w.WriteHeader(code)
	_, _ = w.Write(out.Bytes()) // fails only if the client has disconnected
}

func formatBytes(n int64) string {
	const units = "KMGTP"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	x, i := float64(n)/1024, 0
	for x >= 1024 && i < len(units)-1 {
		x, i = x/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", x, units[i])
}

// formatTime formats a time.Time or the milliseconds of a block.
func formatTime(v any) string {
	switch t := v.(type) {
	case time.Time:
		if t.IsZero() {
			return "never"
		}
		return t.UTC().Format("2006-01-02 15:04:05 UTC")
	case int64:
		return at(t).Format("2006-01-02 15:04")
	}
	return ""
}

// formatPeriod formats a range of milliseconds. Times that no sample can have are no bounds.
func formatPeriod(minT, maxT int64) string {
	year := func(ms int64) int { return at(ms).Year() }
	noStart, noEnd := year(minT) < 1, year(maxT) > 9998
	switch {
	case noStart && noEnd:
		return "all of time"
	case noStart:
		return "until " + formatTime(maxT)
	case noEnd:
		return "since " + formatTime(minT)
	}
	from, to := at(minT), at(maxT)
	if from.Truncate(24 * time.Hour).Equal(to.Truncate(24 * time.Hour)) {
		return formatTime(minT) + " to " + to.Format("15:04")
	}
	return formatTime(minT) + " to " + formatTime(maxT)
}

// formatSpan formats a length of milliseconds as days, hours and minutes.
func formatSpan(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	if ms < 0 || d/time.Millisecond != time.Duration(ms) {
		return "centuries"
	}
	if d < time.Minute {
		return d.String()
	}
	var parts []string
	for _, u := range []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}} {
		if n := d / u.size; n > 0 {
			parts = append(parts, fmt.Sprintf("%d%s", n, u.name))
			d %= u.size
		}
	}
	return strings.Join(parts, " ")
}

// formatCount formats a count with thin spaces between thousands.
func formatCount(n any) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// formatUSD formats an amount of US dollars, which is mostly a small part of a cent.
func formatUSD(x float64) string {
	switch {
	case x == 0:
		return "$0"
	case x < 0.01:
		return fmt.Sprintf("$%.7f", x)
	}
	return fmt.Sprintf("$%.2f", x)
}

// formatSeconds formats seconds with three digits.
func formatSeconds(x float64) string {
	switch {
	case x == 0:
		return "0"
	case x < 0.001:
		return fmt.Sprintf("%.3g µs", x*1e6)
	case x < 1:
		return fmt.Sprintf("%.3g ms", x*1000)
	case x < 120:
		return fmt.Sprintf("%.3g s", x)
	}
	return formatSpan(int64(x * 1000))
}

// stageTitle says what a request does in a stage.
func stageTitle(name string) string {
	switch name {
	case "gate":
		return "waiting for its turn"
	case "header":
		return "opening index headers"
	case "postings":
		return "finding series"
	case "series":
		return "reading labels"
	case "chunks":
		return "reading chunks"
	case "send":
		return "encoding"
	case "flow_control":
		return "waiting for the client to read"
	case "total":
		return "in total"
	case "first_frame":
		return "until the first series"
	}
	return name
}

// syncFacts are what the frame shows of the syncs.
type syncFacts struct {
	Snap Snapshot
	Now  time.Time
	Base string
}

// stateCount is the number of blocks in a state.
type stateCount struct {
	State string
	Count int
}

// notServed returns the states of the blocks that are not served, damaged ones first.
func notServed(snap Snapshot) (out []stateCount) {
	first := []string{"corrupted-meta-json", "failed", "no-meta-json"}
	add := func(state string) {
		if n := snap.States[state]; n > 0 {
			out = append(out, stateCount{state, n})
		}
	}
	for _, state := range first {
		add(state)
	}
	for _, state := range slices.Sorted(maps.Keys(snap.States)) {
		if state != "loaded" && !slices.Contains(first, state) {
			add(state)
		}
	}
	return out
}

// stateTitle says why the catalog does not serve blocks in a state. Unknown states are returned.
func stateTitle(state string) string {
	switch state {
	case "no-meta-json":
		return "no meta.json: being uploaded or deleted"
	case "corrupted-meta-json":
		return "damaged: its meta.json is not valid"
	case "failed":
		return "damaged: its meta.json could not be read"
	case "time-excluded":
		return "outside of --min-time and --max-time"
	case "label-excluded":
		return "dropped by --selector.relabel-config"
	case "too-fresh":
		return "newer than --consistency-delay"
	case "marked-for-deletion":
		return "marked for deletion"
	case "duplicate":
		return "replaced by a compacted block"
	case "shard":
		return "owned by another shard"
	case "parquet-converted":
		return "converted to Parquet"
	}
	return state
}

// formatAgo formats how long ago t was, for a time that may be zero.
func formatAgo(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return formatAge(now.Sub(t)) + " ago"
}

// sparkHeight returns the height of a bar for a hit ratio.
func sparkHeight(p point) string {
	if p < 0 {
		return "0"
	}
	return fmt.Sprintf("%.0f%%", max(float64(p)*100, 4))
}
