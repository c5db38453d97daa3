package web

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
)

func TestPagesShow(t *testing.T) {
	reg := prometheus.NewRegistry()
	gauge := func(name string, l prometheus.Labels, v float64) {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, ConstLabels: l})
		g.Set(v)
		reg.MustRegister(g)
	}
	gauge("larder_cache_bytes", prometheus.Labels{"cache": "chunks", "tier": "memory"}, 1<<20)
	gauge("larder_cache_max_bytes", prometheus.Labels{"cache": "chunks", "tier": "memory"}, 3<<29)
	gauge(
		"larder_cache_requests_total", prometheus.Labels{"cache": "chunks", "tier": "memory"}, 200,
	)
	gauge("larder_cache_hits_total", prometheus.Labels{"cache": "chunks", "tier": "memory"}, 150)
	gauge(
		"larder_cache_requests_total", prometheus.Labels{"cache": "chunks", "tier": "memcached"},
		50,
	)
	gauge("larder_cache_hits_total", prometheus.Labels{"cache": "chunks", "tier": "memcached"}, 20)
	gauge("larder_pages_touched_total", prometheus.Labels{"kind": "chunks"}, 400)
	for tier, hits := range map[string]float64{"memory": 200, "disk": 0, "memcached": 40} {
		gauge("larder_pages_hits_total", prometheus.Labels{"kind": "chunks", "tier": tier}, hits)
	}
	gauge("larder_pages_coalesced_total", prometheus.Labels{"kind": "chunks"}, 60)
	gauge("larder_pages_touched_total", prometheus.Labels{"kind": "index"}, 0)
	gauge("larder_request_allowance_bytes", prometheus.Labels{"state": "in_use"}, 5)
	gauge("larder_request_allowance_bytes", prometheus.Labels{"state": "limit"}, 2048)
	gauge("larder_request_allowance_bytes", prometheus.Labels{"state": "waiting"}, 77777)

	blocks := two()
	blocks.snap.States = map[string]int{"too-fresh": 4, "duplicate": 0}
	blocks.snap.Blocks[1].Irregular = "labels <in> disorder"
	blocks.snap.Broken = []Broken{
		{ID: ulid.ULID{1}, State: "no-meta-json", Err: errors.New("<script>gone</script>")},
	}
	blocks.snap.Err = errors.New("<img src=x>")
	o := Options{Blocks: blocks, Label: "cluster", Gatherer: reg, Probe: NewProbe(nil, nil)}
	headings := regexp.MustCompile(` data-l="[^"]*"`) // of cells in narrow windows
	f := func(path string, want ...string) string {
		t.Helper()
		w := get(t, site(o), path, "")
		body := w.Body.String()
		cells := headings.ReplaceAllString(body, "")
		for _, s := range want {
			if !strings.Contains(cells, s) {
				t.Errorf("GET %s: %q is not in\n%s", path, s, body)
			}
		}
		for _, s := range []string{"<script", "<img", "<b>", "ZgotmplZ"} {
			if strings.Contains(body, s) {
				t.Errorf("GET %s: %q is in\n%s", path, s, body)
			}
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(
			csp, "default-src 'none'",
		) {
			t.Errorf("GET %s: Content-Security-Policy %q", path, csp)
		}
		return body
	}
	f(
		"/",
		">not ready<",
		"2 blocks</a> with 2 sets of external labels",
		"1970-01-01 00:00 to 04:00 UTC",
		"&lt;img src=x&gt;",
		`<dt>Not served</dt><dd><a href="./blocks#absent">4 blocks</a>: `+
			`newer than --consistency-delay</dd>`,
		`<tr><td>chunk pages<br><small>pieces of chunk files: samples</small></td>`+
			`<td class="n">1.0 MiB</td><td class="n">1.5 GiB</td>`,
		`<td class="n">200</td><td class="n">75.0 %</td>`,
		`<tr><td>chunk pages in memcached<br><small>pieces of chunk files: samples</small></td>`+
			`<td class="n"></td><td class="n"></td>`,
		`<td class="n">50</td><td class="n">40.0 %</td>`,
		// There is no disk cache.
		`<tr><td>chunks</td><td class="n">400</td><td class="n">50.0 %</td><td class="n"></td>`+
			`<td class="n">10.0 %</td><td class="n">15.0 %</td><td class="n">25.0 %</td></tr>`,
		`<tr><td>requests<br><small>reserved by requests that run or wait</small></td>`+
			`<td class="n">5 B</td><td class="n">2.0 KiB</td>`,
	)
	o.Probe.SetReady()
	f("/", ">ready<")
	for _, path := range []string{"/blocks", "/loaded"} {
		body := f(
			path,
			"<h2>eu</h2>",
			"<h2>us</h2>",
			"{cluster=&#34;eu&#34;, replica=&#34;&lt;b&gt;&#34;}",
			"<title>"+idA.String()+"\n1970-01-01 00:00 to 1970-01-01 02:00 UTC, 1h 59m\n5m, level 3, 34 series, 56 chunks, 104 B</title>",
			"<td><code>"+idB.String()+"</code></td>",
			"&lt;script&gt;gone&lt;/script&gt;",
			"<td><code>"+idB.String()+"</code></td><td>labels &lt;in&gt; disorder</td>",
			`<rect class="s3" x="0.000%"`,
		)
		if n := strings.Count(body, "<rect "); n != 2 {
			t.Errorf("GET %s: %d blocks are drawn, want 2", path, n)
		}
	}
	o.Probe.Drain()
	f("/", ">stopping<")

	o.Blocks = fakeBlocks{}
	f("/", "0 blocks")
	f("/blocks", "0 blocks are served", "never")
}

func TestBase(t *testing.T) {
	f := func(external, header, value, want string) {
		t.Helper()
		o := Options{ExternalPrefix: external, PrefixHeader: header}
		h := site(o)
		w := do(h, "GET", "/blocks", "", "X-Forwarded-Prefix", value)
		if link := `<a href="` + want + `blocks">`; !strings.Contains(w.Body.String(), link) {
			t.Errorf("prefix %q, header %q: %q: no %s in the page", external, header, value, link)
		}
		location := want
		if want == "./" {
			location = "/"
		}
		if w = do(h, "GET", "/loaded/", "", "X-Forwarded-Prefix", value); w.Code != 301 ||
			w.Header().Get("Location") != location+"loaded" {
			t.Errorf(
				"prefix %q, header %q: %q: redirected with %d to %s, want %s", external, header,
				value, w.Code, w.Header().Get("Location"), location+"loaded",
			)
		}
	}
	const header = "X-Forwarded-Prefix"
	f("", "", "/x", "./")
	f("", header, "", "./")
	f("", header, "/x", "/x/")
	f("/pre/fix", header, "/x", "/pre/fix/")
	f("pre/", "", "", "/pre/")
	f("/a//b/../c/", "", "", "/a/c/")
	f("https://host/p/", "", "", "/p/")
	f("/", "", "", "./")
	// A header cannot lead to another host or end the HTML attribute.
	f("", header, "//evil.example/p", "/p/")
	f("", header, "https://evil.example", "./")
	f("", header, "/../..", "./")
	f("", header, "%zz", "./")
	f("", header, "javascript:alert(1)", "./")
	f("", header, `/\evil.example`, "/%5Cevil.example/")
	f("", header, "/%5cevil.example/%3fa", "/%5Cevil.example/%3Fa/")
	f("", header, "/a b", "/a%20b/")
}

func TestLayout(t *testing.T) {
	const hour = int64(3600_000)
	block := func(min, max int64, level int) Block {
		return Block{
			ID:      ulid.ULID{byte(level), byte(min / hour)},
			MinTime: min,
			MaxTime: max,
			Level:   level,
		}
	}
	page := drawBlocks(Snapshot{Blocks: []Block{
		block(2*hour, 4*hour, 1), block(0, 2*hour, 2),
		block(hour, 3*hour, 9), block(4*hour, 4*hour+1, 0),
	}}, "", 0)
	lane := page.Groups[0].Lanes[0]
	type drawn struct {
		X, Width float64
		Y, Shade int
	}
	var got []drawn
	for _, b := range lane.Bars {
		got = append(got, drawn{math.Round(b.X), math.Round(b.Width*100) / 100, b.Y, b.Shade})
	}
	// The overlapping block is in the second row. The block of one millisecond has the minimum
	// width.
	want := []drawn{{0, 50, 2, 2}, {25, 50, 18, 5}, {50, 50, 2, 1}, {100, minWidth, 2, 1}}
	if diff := cmp.Diff(want, got); diff != "" || lane.Height != 34 {
		t.Errorf("height %d, bars (-want +got)\n%s", lane.Height, diff)
	}
	if last := lane.Bars[3]; last.X+last.Width > 100 {
		t.Errorf("the last bar ends at %v percent", last.X+last.Width)
	}

	// With too many blocks, the page shows the newest and says that others are missing.
	var many []Block
	for i := range int64(maxDrawn + 5) {
		many = append(many, block(i*hour, (i+1)*hour, 1))
	}
	page = drawBlocks(Snapshot{Blocks: many}, "", 0)
	if page.Total != maxDrawn+5 || page.LeftOut != 5 || page.Min != 5*hour ||
		len(page.Groups[0].Blocks) != maxDrawn {
		t.Errorf(
			"got %d blocks, %d left out, %d drawn from %d", page.Total, page.LeftOut,
			len(page.Groups[0].Blocks), page.Min,
		)
	}
	body := get(
		t, site(Options{Blocks: fakeBlocks{snap: Snapshot{Blocks: many}}}), "/blocks", "",
	).Body.String()
	if !strings.Contains(body, "The 5 oldest are not drawn") {
		t.Error("the page does not say that blocks are missing")
	}

	// The same for sets of external labels.
	for i := range many {
		many[i].Labels = labels.FromStrings("shop", strconv.Itoa(1000+i))
	}
	page = drawBlocks(Snapshot{Blocks: many}, "", 0)
	if n := len(page.Groups); n != maxGroups || page.GroupsLeftOut != maxDrawn-maxGroups ||
		page.Groups[0].Labels != `{shop="1005"}` {
		t.Errorf("%d drawings, %d left out, the first of %s", n, page.GroupsLeftOut,
			page.Groups[0].Labels)
	}

	// With days set, a block is shown from the beginning of the last days.
	page = drawBlocks(
		Snapshot{
			Blocks: []Block{
				block(0, 24*hour, 1),
				block(24*hour, 60*hour, 2),
				block(60*hour, 72*hour, 3),
			},
		},
		"",
		1,
	)
	got = nil
	for _, b := range page.Groups[0].Lanes[0].Bars {
		got = append(got, drawn{math.Round(b.X), math.Round(b.Width), b.Y, b.Shade})
	}
	if diff := cmp.Diff([]drawn{{0, 50, 2, 2}, {50, 50, 2, 3}}, got); diff != "" ||
		page.Min != 48*hour ||
		page.Total != 3 {
		t.Errorf("one day, from %d, bars (-want +got)\n%s", page.Min, diff)
	}
	first := Block{MinTime: math.MinInt64, MaxTime: math.MinInt64 + 1}
	page = drawBlocks(Snapshot{Blocks: []Block{first}}, "", maxDays)
	if len(page.Groups) != 1 {
		t.Error("a block at the beginning of time is not drawn")
	}
	for _, days := range []string{"0", "x", "100001"} {
		if w := get(t, site(Options{}), "/blocks?days="+days, ""); w.Code != 400 ||
			!strings.Contains(w.Body.String(), "days: ") {
			t.Errorf("days=%s: got %d %q", days, w.Code, w.Body)
		}
	}

	// Blocks are grouped by label set and resolution. The heading is the value of the label, if
	// present.
	page = drawBlocks(Snapshot{Blocks: []Block{
		{MinTime: 0, MaxTime: 1, Labels: labels.FromStrings("a", "2")},
		{MinTime: 0, MaxTime: 1, Labels: labels.FromStrings("a", "1"), Resolution: hour},
		{MinTime: 0, MaxTime: 1, Labels: labels.FromStrings("a", "1"), Resolution: 0},
		{MinTime: 0, MaxTime: 1},
	}}, "a", 0)
	var names []string
	for _, g := range page.Groups {
		for _, l := range g.Lanes {
			names = append(names, g.Title+" "+l.Name)
		}
	}
	if diff := cmp.Diff([]string{"1 raw", "1 1h", "2 raw", "{} raw"}, names); diff != "" {
		t.Errorf("lanes (-want +got)\n%s", diff)
	}
}

func TestTicks(t *testing.T) {
	const hour, day = int64(3600_000), 24 * int64(3600_000)
	f := func(from, to int64, first string, n int) {
		t.Helper()
		got := ticks(from, to)
		if len(got) != n || n > 0 && got[0].Text != first {
			t.Errorf("%d to %d: got %v, want %d from %s", from, to, got, n, first)
		}
		for _, k := range got {
			if !(k.X >= 0 && k.X <= 100) {
				t.Errorf("%d to %d: a tick at %v percent", from, to, k.X)
			}
		}
	}
	f(0, 2*hour, "01-01 00:00", 9)
	f(hour+1, 7*hour, "01-01 02:00", 6)
	f(0, 14*day, "1970-01-01", 8)
	f(0, 5*364*day, "1970-01-01", 6)
	f(-1, 1, "01-01 00:00", 1)
	f(5, 6, "", 0)
	f(
		math.MinInt64/2, math.MaxInt64/2, ticks(math.MinInt64/2, math.MaxInt64/2)[0].Text,
		len(ticks(math.MinInt64/2, math.MaxInt64/2)),
	)
	if n := len(ticks(math.MinInt64, math.MaxInt64)); n < 2 || n > 9 {
		t.Errorf("all of time has %d ticks", n)
	}
}

func TestFormat(t *testing.T) {
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(formatBytes(1023), "1023 B")
	f(formatBytes(1536), "1.5 KiB")
	f(formatBytes(3<<40), "3.0 TiB")
	f(formatBytes(math.MaxInt64), "8192.0 PiB")
	f(formatSpan(0), "0s")
	f(formatSpan(1500), "1.5s")
	f(formatSpan(300_000), "5m")
	f(formatSpan(((24*15+2)*60+3)*60_000), "15d 2h 3m")
	f(formatSpan(math.MaxInt64), "centuries")
}
