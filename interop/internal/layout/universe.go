package layout

import (
	"fmt"
	"math/rand/v2"
	"sort"

	"github.com/prometheus/prometheus/model/labels"
)

// member is a source with its labels.
type member struct {
	source
	labels labels.Labels
}

// chainNames are label names that sort before, between and after every external name the generator
// uses: upper case before "__name__", "~" and non-ASCII after everything.
var chainNames = []string{
	"A",
	"Zone",
	"__a",
	"_b",
	"aa",
	"cluster_x",
	"d",
	"le",
	"m",
	"prometheus_x",
	"q",
	"replica_x",
	"s",
	"zz",
	"zzz",
	"~",
	"äther",
}

// universe returns the series that the producers of a layout scrape, each label set once.
func universe(
	r *rand.Rand, from, to int64, clash []string, replica string, histograms, giants bool,
) []member {
	u := &builder{r: r, from: from, to: to, seen: map[string]bool{}}
	for i := range 1 + r.IntN(3) {
		for j := range 2 + r.IntN(6) {
			u.add(
				counter, "__name__", "http_requests_total", "job", fmt.Sprintf("job-%d", i),
				"instance", fmt.Sprintf("10.0.0.%d:9090", j), "code", pick1(r, "200", "404", "500"),
			)
		}
	}
	for i := range 3 + r.IntN(5) {
		u.add(
			gauge, "__name__", "up", "job", fmt.Sprintf("job-%d", i%3), "instance",
			fmt.Sprintf("10.0.0.%d:9090", i),
		)
	}
	for _, le := range []string{"0.1", "1", "10", "+Inf"} {
		u.add(counter, "__name__", "latency_bucket", "le", le, "pod", pick1(r, "pod-0", "pod-1"))
	}
	// Series with few labels, so that empty-matching selectors find something.
	u.add(gauge, "__name__", "lonely")
	u.add(gauge, "job", "nameless")
	// Names and values outside ASCII, quotes and newlines in values, a value that looks like a
	// regular expression.
	u.add(gauge, "__name__", "utf8.metric/ö", "status.code", "grün", "züge", "„42“")
	u.add(
		gauge, "__name__", "odd_values", "path", "/a\"b\\c", "text", "line\nline", "expr", "a.*|b+",
	)
	u.add(gauge, "__name__", "odd_values", "path", "/ü", "text", "\x01", "expr", ".+")
	for i := range 2 + r.IntN(2) {
		u.chain(fmt.Sprintf("chain_%d", i))
	}
	if r.IntN(2) == 0 {
		u.chain("")
	}
	// Replica labels inside the block: pairs that become equal once the label is removed.
	for i := range 3 {
		for _, v := range []string{"in-a", "in-b"} {
			u.add(gauge, "__name__", "inner_replica", "job", fmt.Sprintf("job-%d", i), replica, v)
		}
	}
	// The same with a prefix chain: removing the label reorders the block.
	u.add(gauge, "__name__", "inner_replica", replica, "in-a")
	u.add(gauge, "__name__", "inner_replica", "zz", "1")
	u.add(gauge, "__name__", "inner_replica", replica, "in-b", "zz", "1")
	// Labels that the external labels of some blocks override.
	for i, name := range clash {
		u.add(gauge, "__name__", "clashing", name, fmt.Sprintf("inside-%d", i), "x", "1")
		u.add(gauge, "__name__", "clashing", name, fmt.Sprintf("inside-%d", i+1), "x", "1")
		u.add(gauge, "__name__", "clashing", "x", "1")
	}
	if histograms {
		for i := range 3 {
			u.add(nativeHistogram, "__name__", "native", "job", fmt.Sprintf("job-%d", i))
			u.add(nativeFloatHistogram, "__name__", "native_float", "job", fmt.Sprintf("job-%d", i))
		}
	}
	if giants {
		for i := range 2 {
			u.add(giant, "__name__", "giant", "n", fmt.Sprint(i))
		}
	}
	sort.Slice(
		u.out, func(i, j int) bool { return labels.Compare(u.out[i].labels, u.out[j].labels) < 0 },
	)
	return u.out
}

type builder struct {
	r        *rand.Rand
	from, to int64
	seen     map[string]bool
	out      []member
}

func (u *builder) add(k kind, pairs ...string) {
	ls := labels.FromStrings(pairs...)
	if u.seen[ls.String()] {
		return
	}
	u.seen[ls.String()] = true
	m := member{labels: ls, source: source{number: len(u.out), kind: k, step: 30_000}}
	m.alive = []Range{{u.from, u.to}}
	if k == giant {
		m.step = 60
		m.alive = []Range{{u.from, u.from + 130*minute}}
	} else if len(u.out)%5 == 0 {
		m.step = 60_000
	}
	if u.r.IntN(3) == 0 && k != giant {
		// Born late, dead early, or silent in between.
		a, b := u.from+u.r.Int64N(u.to-u.from), u.from+u.r.Int64N(u.to-u.from)
		if a > b {
			a, b = b, a
		}
		switch u.r.IntN(3) {
		case 0:
			m.alive = []Range{{a, u.to}}
		case 1:
			m.alive = []Range{{u.from, b}}
		default:
			m.alive = []Range{{u.from, a}, {b, u.to}}
		}
	}
	u.out = append(u.out, m)
}

// chain adds four label sets, each a strict prefix of the next, and a few that branch off.
func (u *builder) chain(metric string) {
	names := append([]string(nil), chainNames...)
	if metric != "" {
		// A chain that starts with the metric's name can only grow by names that sort after it.
		var after []string
		for _, n := range names {
			if n > "__name__" {
				after = append(after, n)
			}
		}
		names = after
	}
	u.r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:4]
	sort.Strings(names)
	var pairs []string
	if metric != "" {
		pairs = append(pairs, "__name__", metric)
		u.add(gauge, pairs...)
	}
	for _, n := range names {
		u.add(gauge, append(append([]string(nil), pairs...), n, "0")...)
		pairs = append(pairs, n, "1")
		u.add(gauge, pairs...)
		if u.r.IntN(2) == 0 {
			u.add(
				gauge,
				append(append([]string(nil), pairs[:len(pairs)-2]...), n, "2", "~~", "end")...)
		}
	}
}

func pick1[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }
