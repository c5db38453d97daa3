// Package promgen makes random PromQL about the series that cmd/headblocks writes; the same seed
// makes the same queries. A query is a tree of everything that PromQL has: selectors with every
// kind of matcher, modifiers, functions of ranges and of instants, aggregations, binary operators,
// subqueries, histograms of all kinds. Some queries fail when they are evaluated (a many-to-many
// match); that must be the same everywhere, too.
package promgen

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// Query is one query.
type Query struct {
	Text string
	// Start, End and Step are in milliseconds; Step 0 is an instant query at Start.
	Start, End, Step int64
	// Old reports whether the query means the same in Prometheus 2: it has neither calculations
	// with native histograms nor functions that were redefined since. Times never fall on a sample;
	// therefore it does not matter which end of a range is inclusive.
	Old bool
}

func (q Query) String() string {
	if q.Step == 0 {
		return fmt.Sprintf("%s @ %d", q.Text, q.Start)
	}
	return fmt.Sprintf("%s from %d to %d step %d", q.Text, q.Start, q.End, q.Step)
}

// Options describe the data.
type Options struct {
	// From and To bound the data, in milliseconds.
	From, To int64
	// External are the external labels of the data: names with their values. Queries use them like
	// other labels.
	External map[string][]string
	// NoHistograms leaves native histograms out.
	NoHistograms bool
}

// Generator makes queries.
type Generator struct {
	r   *rand.Rand
	o   Options
	old bool
}

// New returns the generator of a seed.
func New(seed uint64, o Options) *Generator {
	return &Generator{r: rand.New(rand.NewPCG(seed, 0x70726f6d)), o: o}
}

// Next returns the next query.
func (g *Generator) Next() Query {
	g.old = true
	q := Query{Text: g.vector(3)}
	span := g.o.To - g.o.From
	// Times end in 777 ms. Samples have other offsets, or at least do not lie a multiple of a range
	// before.
	at := func() int64 { return (g.o.From+g.r.Int64N(span))/1000*1000 + 777 }
	q.Start = at()
	if g.r.IntN(2) == 0 {
		q.End = at()
		if q.End < q.Start {
			q.Start, q.End = q.End, q.Start
		}
		q.Step = []int64{15_000, 60_000, 61_000, 300_000, 1_800_000}[g.r.IntN(5)]
		q.End = min(q.End, q.Start+120*q.Step)
	}
	q.Old = g.old
	return q
}

func (g *Generator) pick(of ...string) string { return of[g.r.IntN(len(of))] }

func (g *Generator) chance(n int) bool { return g.r.IntN(n) == 0 }

// vector is an expression of type instant vector, at most depth operators deep.
func (g *Generator) vector(depth int) string {
	if depth == 0 {
		return g.selector() + g.modifiers()
	}
	kinds := []func(int) string{
		g.plain, g.ranged, g.ranged, g.ranged, g.aggregation, g.aggregation, g.aggregation,
		g.binary, g.function, g.subquery, g.classic, g.absent, g.labels,
	}
	if !g.o.NoHistograms {
		kinds = append(kinds, g.native, g.native)
	}
	return kinds[g.r.IntN(len(kinds))](depth - 1)
}

func (g *Generator) plain(int) string { return g.selector() + g.modifiers() }

var (
	counters = []string{
		"http_requests_total",
		"http_request_duration_seconds_bucket",
		"http_request_duration_seconds_sum",
	}
	gauges = []string{
		"memory_bytes",
		"temperature_celsius",
		"up",
		"build_info",
		"backup_size_bytes",
		"pod_ready",
	}
	// natives are histograms, or at times.
	natives = []string{"rpc_duration_seconds", "rpc_wait_seconds", "batch_seconds", "mixed"}
)

// selector is a metric with matchers, or matchers alone.
func (g *Generator) selector() string {
	all := append(append([]string{}, counters...), gauges...)
	if !g.o.NoHistograms && g.chance(8) {
		all = natives
		g.old = false
	}
	return g.of(g.pick(all...))
}

func (g *Generator) of(metric string) string {
	var ms []string
	switch g.r.IntN(10) {
	case 0:
		// Without a name: of one service, because all series would be too many.
		ms = append(
			ms,
			`__name__=~"`+g.pick(
				"http_.*", "http_requests_total|up", "(memory|temperature)_.+", ".+_info",
				"(?i:UP)",
			)+`"`,
		)
		metric = ""
	case 1:
		ms = append(ms, `__name__="`+metric+`"`)
		metric = ""
	}
	for range g.r.IntN(3) {
		ms = append(ms, g.matcher(metric))
	}
	if len(ms) == 0 {
		return metric
	}
	return metric + "{" + strings.Join(ms, ", ") + "}"
}

func (g *Generator) matcher(metric string) string {
	if len(g.o.External) > 0 && g.chance(4) {
		name := g.pick(keys(g.o.External)...)
		v := g.pick(g.o.External[name]...)
		return name + g.pick(`="`+v+`"`, `!="`+v+`"`, `=~"`+v+`|other"`, `=~".+"`, `!~"other.*"`)
	}
	if metric == "pod_ready" {
		return g.pick(
			`pod=~"pod-00.*"`, `pod!~"pod-0[01].*"`, `zone=""`, `zone!=""`, `zone="a"`,
			`pod="pod-0007"`, `pod=~"pod-0001|pod-0002|pod-0333"`, `zone=~"a|"`,
		)
	}
	own := []string{
		`job="api"`, `job!="api"`, `job=~"api|db"`, `job!~"a.*"`, `job="größe"`, `job=~"gr.*"`,
		`instance=~"10.0.0.[01]:80"`, `instance!="10.0.0.1:80"`,
		`instance=~".*2:80"`, `missing=""`, `missing!~".+"`, `job=~".*"`, `job=~"(?i)API"`,
		`job=~"|api"`,
	}
	switch {
	case g.chance(10):
		own = []string{`missing="x"`, `code=""`, `le!=""`, `job="nowhere"`}
	case metric == "http_requests_total":
		own = append(
			own, `code=~"4..|5.."`, `code!~"2.+"`, `code="500"`, `code!=""`, `method="GET"`,
			`method=~"P.*"`,
		)
	case metric == "http_request_duration_seconds_bucket":
		own = append(own, `le="+Inf"`, `le=~"0.+"`, `le!="+Inf"`, `code=""`)
	case metric == "build_info":
		own = append(own, `version=~"1\\.\\d+"`, `version!="1.9"`)
	}
	return g.pick(own...)
}

func (g *Generator) modifiers() string {
	switch g.r.IntN(12) {
	case 0:
		return " offset " + g.pick("1m", "17m", "1h", "90m7s")
	case 1:
		return " offset -" + g.pick("1m", "10m")
	case 2:
		return " @ " + g.moment()
	case 3:
		return " @ " + g.moment() + " offset 13m"
	case 4:
		return " @ " + g.pick("start()", "end()")
	}
	return ""
}

func (g *Generator) moment() string {
	return fmt.Sprintf("%d.777", (g.o.From+g.r.Int64N(g.o.To-g.o.From))/1000)
}

func (g *Generator) window() string {
	return "[" + g.pick("1m", "2m", "5m", "11m", "30m", "2h") +
		"]"
}

// ranged is a function over a range of time.
func (g *Generator) ranged(int) string {
	f := g.pick(
		"rate", "rate", "increase", "increase", "irate", "delta", "idelta", "deriv", "changes",
		"resets", "avg_over_time", "min_over_time", "max_over_time", "sum_over_time",
		"count_over_time", "last_over_time", "present_over_time", "stddev_over_time",
		"stdvar_over_time", "quantile_over_time", "predict_linear",
	)
	metric := g.pick(gauges...)
	switch f {
	case "rate", "increase", "irate", "resets":
		metric = g.pick(counters...)
	}
	sel := g.of(metric) + g.window() + g.modifiers()
	switch f {
	case "quantile_over_time":
		return fmt.Sprintf("quantile_over_time(%s, %s)", g.pick("0.5", "0.99", "-1", "2"), sel)
	case "predict_linear":
		g.old = false
		return fmt.Sprintf("predict_linear(%s, 600)", sel)
	case "stddev_over_time", "stdvar_over_time", "deriv", "changes", "resets":
		// Redefined for infinities and NaN since Prometheus 2.
		g.old = false
	}
	return f + "(" + sel + ")"
}

func (g *Generator) grouping() string {
	names := []string{"job", "instance", "code", "le", "zone", "version", "missing"}
	names = append(names, keys(g.o.External)...)
	n := g.r.IntN(3)
	if n == 0 && g.chance(2) {
		return ""
	}
	var by []string
	for range n {
		by = append(by, g.pick(names...))
	}
	return g.pick(" by ", " without ") + "(" + strings.Join(by, ", ") + ") "
}

func (g *Generator) aggregation(depth int) string {
	op := g.pick(
		"sum", "sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "bottomk",
		"quantile", "count_values",
	)
	arg := ""
	switch op {
	case "topk", "bottomk":
		// Of equal values the first ones are selected. That is defined only if the order of series
		// is.
		g.old = false
		return op + g.grouping() + "(" + g.pick(
			"1", "3", "100",
		) + ", " + g.pick(
			g.plain(0), g.ranged(0),
		) + ")"
	case "quantile":
		arg = g.pick("0.5", "0.9", "0", "1") + ", "
	case "count_values":
		// The text of a value becomes a label: a sum that is rounded otherwise would be another
		// series.
		g.old = false
		return op + g.grouping() + `("value", ` + g.pick(g.plain(0), g.ranged(0)) + ")"
	case "stddev", "stdvar", "min", "max":
		g.old = false // Infinities, NaN.
	}
	return op + g.grouping() + "(" + arg + g.vector(depth) + ")"
}

func (g *Generator) binary(depth int) string {
	if g.chance(3) {
		// A number on one side.
		op := g.pick("+", "-", "*", "/", "%", "^", "> ", "< bool ", "== ", "!= bool ", ">= ")
		if g.chance(2) {
			return "(" + g.vector(depth) + " " + op + " " + g.pick("2", "0.5", "-1", "1e3") + ")"
		}
		return "(" + g.pick("2", "0.5", "-1", "1e3") + " " + op + " " + g.vector(depth) + ")"
	}
	switch g.r.IntN(4) {
	case 0:
		return fmt.Sprintf(
			"(%s %s %s)", g.vector(depth), g.pick("and", "or", "unless"), g.vector(depth),
		)
	case 1:
		return fmt.Sprintf(
			"(%s %s on (job, instance) %s)", g.vector(depth), g.pick("and", "or", "unless"),
			g.vector(depth),
		)
	case 2:
		// This fails if a side has several series for one group.
		return fmt.Sprintf(
			"(%s %s %s)", g.vector(depth), g.pick("+", "-", "*", "/", ">", "== bool"),
			g.vector(depth),
		)
	default:
		return fmt.Sprintf(
			"(%s %s on (job, instance) group_left sum by (job, instance) (%s))",
			g.of("http_requests_total"), g.pick("/", "+", "> bool"),
			g.of(g.pick("http_requests_total", "up")),
		)
	}
}

func (g *Generator) function(depth int) string {
	v := g.vector(depth)
	switch g.r.IntN(12) {
	case 0:
		return "clamp(" + v + ", -5, 100)"
	case 1:
		return "round(" + v + ", 0.5)"
	case 2:
		return "vector(scalar(" + v + "))"
	case 3:
		return g.pick("timestamp", "sort", "sort_desc") + "(" + g.selector() + g.modifiers() + ")"
	case 4:
		return g.pick("hour", "minute", "day_of_week", "days_in_month") + "(" + v + ")"
	case 5:
		return "(-(" + v + "))"
	default:
		return g.pick(
			"abs", "ceil", "floor", "exp", "ln", "log2", "sqrt", "sgn", "rad",
		) + "(" + v + ")"
	}
}

func (g *Generator) labels(depth int) string {
	// How dropping a name and setting one interact was redefined.
	g.old = false
	if g.chance(2) {
		v := g.vector(depth)
		to, from := g.pick("part", "job", "code"), g.pick("job", "instance", "missing")
		return `label_replace(` + v + `, "` + to + `", "x-$1", "` + from + `", "(.).*")`
	}
	v, to := g.vector(depth), g.pick("joined", "job")
	return `label_join(` + v + `, "` + to + `", "/", "job", "instance")`
}

func (g *Generator) absent(depth int) string {
	if g.chance(2) {
		return "absent(" + g.selector() + ")"
	}
	return "absent_over_time(" + g.selector() + g.window() + ")"
}

func (g *Generator) subquery(depth int) string {
	g.old = false // which end of a range is inclusive was redefined
	f := g.pick(
		"max_over_time", "min_over_time", "avg_over_time", "sum_over_time", "count_over_time",
		"last_over_time", "rate", "increase", "deriv",
	)
	v, span := g.vector(depth), g.pick("[30m:5m]", "[10m:1m]", "[1h:7m]", "[15m:]")
	return f + "(" + v + span + g.pick("", "", " offset 20m", " @ end()") + ")"
}

// classic is a quantile of a classic histogram, which has one series for each bucket.
func (g *Generator) classic(int) string {
	g.old = false
	return fmt.Sprintf(
		"histogram_quantile(%s, sum by (%sle) (rate(%s%s)))",
		g.pick(
			"0.5", "0.9", "0.99", "1",
		),
		g.pick("", "job, ", "job, instance, "),
		g.of("http_request_duration_seconds_bucket"),
		g.window(),
	)
}

// native is a calculation with native histograms.
func (g *Generator) native(int) string {
	g.old = false
	h := g.of(g.pick(natives...))
	rate := fmt.Sprintf("%s(%s%s)", g.pick("rate", "increase", "delta", "irate"), h, g.window())
	sum := g.pick("sum", "avg") + g.grouping() + "(" + g.pick(h, rate) + ")"
	x := g.pick(h+g.modifiers(), rate, sum, sum)
	switch g.r.IntN(7) {
	case 0:
		return "histogram_quantile(" + g.pick("0.5", "0.95") + ", " + x + ")"
	case 1:
		return "histogram_fraction(0.1, 2, " + x + ")"
	case 2:
		return g.pick(
			"histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev",
		) + "(" + x + ")"
	case 3:
		return "(" + x + " " + g.pick("*", "/") + " 2)"
	case 4:
		return g.pick(
			"sum_over_time", "avg_over_time", "last_over_time", "count_over_time", "resets",
			"changes",
		) + "(" + h + g.window() + ")"
	default:
		return x
	}
}

// keys returns sorted keys, because the same seed must give the same query.
func keys(m map[string][]string) []string { return slices.Sorted(maps.Keys(m)) }
