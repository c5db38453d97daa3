package web

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/activity"
)

// waiting is a request that waits for its turn.
type waiting struct{ since time.Time }

func (w *waiting) Started() time.Time { return w.since }

func (w *waiting) Activity() activity.Request {
	return activity.Request{
		Method: "Series", Tenant: "team<1>", Matchers: `{job="a"}`, Start: w.since,
		Stage: "gate", Waiting: true,
	}
}

// anIncident returns the options of a site whose bucket throttles, whose queue is long, and which
// has a damaged block.
func anIncident() Options {
	reg := prometheus.NewRegistry()
	throttles := prometheus.NewCounter(
		prometheus.CounterOpts{Name: "larder_bucket_throttles_total"})
	overruns := prometheus.NewCounterVec(
		prometheus.CounterOpts{Name: "larder_budget_overruns_total"}, []string{"method", "stage"})
	cache := prometheus.NewCounterVec(
		prometheus.CounterOpts{Name: "larder_cache_requests_total"}, []string{"cache", "tier"})
	hits := prometheus.NewCounterVec(
		prometheus.CounterOpts{Name: "larder_cache_hits_total"}, []string{"cache", "tier"})
	off := func(name string, labels prometheus.Labels) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, ConstLabels: labels})
	}
	breaker := off("larder_memcached_breaker_state", prometheus.Labels{"server": "m:1"})
	breaker.Set(2)
	reg.MustRegister(throttles, overruns, cache, hits, breaker,
		off("larder_disk_cache_writable", nil), off("larder_data_dir_usable", nil),
		off("larder_config_last_reload_successful", prometheus.Labels{"kind": "limits"}))
	h := NewHistory(reg)
	now := time.Now()
	for i := range 5 {
		cache.WithLabelValues("chunks", "memory").Add(10)
		hits.WithLabelValues("chunks", "memory").Add(float64(2 * i))
		h.Sample(now.Add(time.Duration(i-4) * sampleEvery))
	}
	throttles.Add(7)
	overruns.WithLabelValues("Series", "chunks").Add(3)
	overruns.WithLabelValues("LabelNames", "total").Inc()
	log := activity.New()
	for i := range 3 {
		log.Begin(&waiting{now.Add(-time.Duration(i+1) * 10 * time.Second)})
	}
	failed := &waiting{now.Add(-time.Minute)}
	log.End(failed, 3*time.Second, true, func(d time.Duration) activity.Ended {
		return activity.Ended{
			Request: failed.Activity(), Duration: d, Code: "Aborted", Queried: 2,
			Err: "block " + idA.String() + ": <checksum>",
			Stages: []activity.Stage{
				{Name: "gate", Total: time.Second, Until: time.Second},
				{Name: "chunks", Total: time.Second, From: time.Second, Until: 3 * time.Second,
					Blocks: []activity.Block{
						{ID: idA.String(), From: time.Second, Until: 3 * time.Second},
						{ID: idB.String(), From: time.Second, Until: 2 * time.Second},
					}},
			},
		}
	})
	log.Reject(activity.Ended{
		Request: activity.Request{Method: "Series", Start: now}, Code: "InvalidArgument",
		Err: "no such matcher",
	})
	blocks := two()
	blocks.snap.Broken = []Broken{
		{ID: ulid.ULID{7}, State: "corrupted-meta-json", Err: errors.New("no JSON")},
	}
	return Options{
		Gatherer: reg, History: h, Activity: log, Blocks: blocks, Probe: NewProbe(nil, nil),
		Serving: func() []Fact {
			return []Fact{
				{Name: "Bucket", Value: "metrics"},
				{Name: "Rules", Lines: []string{`keep a=~"<b>"`, "and 1 more"}},
			}
		},
	}
}

// TestOverviewSaysWhatIsWrong checks that the page begins with the faults of an incident, names
// the requests, and does not name faults that are over.
func TestOverviewSaysWhatIsWrong(t *testing.T) {
	o := anIncident()
	body := get(t, site(o), "/", "").Body.String()
	for _, text := range []string{
		"Not ready: ", "3 requests wait for a turn, the oldest for 30 s.",
		"it asked for fewer requests 7 times",
		"Block " + ulid.ULID{7}.String() + " is damaged and not served: its meta.json is not",
		"Series reading chunks, 3 times; LabelNames in total, 1 time.", "1 request failed",
		`<p class="caution">1 request was invalid or cancelled in the last 5 min. ` +
			`The last one: no such matcher`,
		"team&lt;1&gt;", "waiting for its turn", "&lt;checksum&gt;", "Aborted",
		`margin-left:33.333%;width:66.667%`, "<dt>Bucket</dt><dd>metrics</dd>",
		"<dd><code>keep a=~&#34;&lt;b&gt;&#34;</code><br><code>and 1 more</code></dd>",
		`class="spark"`, "height:80%", "The memcached server m:1 fails", "The disk cache is off",
		"The data directory cannot be used",
		"The configuration “limits” changed and is invalid",
	} {
		if !strings.Contains(body, text) {
			t.Errorf("the page lacks %q", text)
		}
	}
	if strings.Contains(body, "ZgotmplZ") || strings.Contains(body, "<script") {
		t.Error("the page has unsafe content")
	}
	if t.Failed() {
		t.Log(body[strings.Index(body, "<main>"):])
	}
	r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
	r.Host = "rebound.example.org"
	site(o).ServeHTTP(w, r)
	if body := w.Body.String(); strings.Contains(body, "team") ||
		strings.Contains(body, "checksum") || !strings.Contains(body, "Requests are hidden") {
		t.Error("a name that another site could use shows who asks for what")
	}
	calm := Options{Probe: NewProbe(nil, nil)}
	calm.Probe.SetReady()
	if body := get(t, site(calm), "/", "").Body.String(); !strings.Contains(body,
		"Nothing that larder can see") || strings.Contains(body, "class=\"alarm") {
		t.Error("without a fault, the page does not say so")
	}
}

// TestHistoryForgets checks that a fault leaves the page after some minutes.
func TestHistoryForgets(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "larder_bucket_throttles_total"})
	reg.MustRegister(c)
	c.Add(5)
	h, now := NewHistory(reg), time.Now()
	if got := h.lately(now).values[keyThrottles]; got != 5 {
		t.Errorf("without samples: got %v, want all since the start", got)
	}
	for i := range maxSamples + 10 {
		h.Sample(now.Add(time.Duration(i) * sampleEvery))
	}
	end := now.Add((maxSamples + 10) * sampleEvery)
	if got := h.lately(end); got.values[keyThrottles] != 0 || got.over > lately {
		t.Errorf("an hour later: %v in %v", got.values[keyThrottles], got.over)
	}
	if n := len(h.samples); n != maxSamples {
		t.Errorf("%d samples are kept", n)
	}
}

// TestBlocksPageOfManyBlocks searches and pages through 10,000 blocks.
func TestBlocksPageOfManyBlocks(t *testing.T) {
	const hour = int64(3_600_000)
	var snap Snapshot
	for i := range int64(10_000) {
		at := i * 2 * hour
		if i >= 5000 {
			at += hour * 4 // a gap
		}
		id := ulid.MustNew(uint64(at+1), nil)
		snap.Blocks = append(snap.Blocks, Block{
			ID: id, MinTime: at, MaxTime: at + 2*hour,
			Labels: labels.FromStrings("cluster", fmt.Sprintf("c%d", i/5000*0)),
		})
		snap.Excluded = append(snap.Excluded, Excluded{
			Block: Block{ID: ulid.MustNew(uint64(at+2), nil), MinTime: at, MaxTime: at + 2*hour},
			State: "duplicate", By: id,
		})
	}
	h := site(Options{Blocks: fakeBlocks{snap: snap}})
	page := func(query string) string {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/blocks?"+query, nil))
		if w.Code != 200 {
			t.Fatalf("%s: %d %s", query, w.Code, w.Body)
		}
		return w.Body.String()
	}
	rows := func(body string) int { return strings.Count(body, "<tr><td><code>") }
	first := page("")
	if n := rows(first); n != 2*rowsPerPage {
		t.Errorf("%d rows, want %d", n, 2*rowsPerPage)
	}
	if len(first) > 2<<20 {
		t.Errorf("the page has %d bytes", len(first))
	}
	second := page("page=1")
	if !strings.Contains(first, "1 to 100 of 10\u202f000") ||
		!strings.Contains(second, "101 to 200") {
		t.Error("the pages do not say which blocks they show")
	}
	last := snap.Blocks[9999].ID.String()
	if body := page("q=" + strings.ToLower(last)); rows(body) != 1 ||
		!strings.Contains(body, last) {
		t.Errorf("search by ULID: %d rows", rows(body))
	}
	body := page("from=1971-01-01&to=1971-01-01T05:00:00Z")
	if n := rows(body); n != 6 {
		t.Errorf("search by time: %d rows, want 3 served and 3 others", n)
	}
	body = page("q=cluster%3D%22c0%22&from=1971-02-21T00:00:00Z&to=1971-02-25")
	if !strings.Contains(body, `<rect class="gap"`) || !strings.Contains(body, "Gaps (1)") {
		t.Error("the gap is not flagged")
	}
	if body := page("q=nothing"); rows(body) != 0 || !strings.Contains(body, "0 of them match") {
		t.Error("a search without results has results")
	}
	if !strings.Contains(first, "replaced by a compacted block") {
		t.Error("the page does not say why blocks are not served")
	}
	for _, bad := range []string{"from=x", "q=" + strings.Repeat("x", maxSearch+1)} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/blocks?"+bad, nil))
		if w.Code != 400 {
			t.Errorf("%.20s: %d, want 400", bad, w.Code)
		}
	}
}

// TestBlocksOfOtherProcessesLeaveNoGaps checks that times which another shard or a Parquet gateway
// serves are no gaps. A block of other external labels, or of another resolution, fills none.
func TestBlocksOfOtherProcessesLeaveNoGaps(t *testing.T) {
	of := func(labelValue string, resolution, from, to int64) Block {
		return Block{
			MinTime: from, MaxTime: to, Resolution: resolution,
			Labels: labels.FromStrings("a", labelValue),
		}
	}
	f := func(excluded []Excluded, want ...int64) {
		t.Helper()
		page := drawBlocks(Snapshot{
			Blocks:   []Block{of("1", 0, 0, 10), of("1", 0, 50, 60), of("1", 0, 70, 80)},
			Excluded: excluded,
		}, "", 0)
		var got []int64
		for _, g := range page.Gaps {
			got = append(got, g.From, g.To)
		}
		if !slices.Equal(got, want) || page.GapTotal != len(want)/2 {
			t.Errorf("%v: gaps %v, want %v", excluded, got, want)
		}
	}
	f(nil, 10, 50, 60, 70)
	f([]Excluded{{Block: of("1", 0, 20, 30), State: "shard"}}, 10, 20, 30, 50, 60, 70)
	f([]Excluded{
		{Block: of("1", 0, 30, 75), State: "parquet-converted"},
		{Block: of("1", 0, 0, 35), State: "shard"},
	})
	f([]Excluded{
		{Block: of("2", 0, 0, 80), State: "shard"},
		{Block: of("1", 5, 0, 80), State: "shard"},
		{Block: of("1", 0, 0, 80), State: "marked-for-deletion"},
	}, 10, 50, 60, 70)
}
