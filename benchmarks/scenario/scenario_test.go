package scenario

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"

	"larder/benchmarks"
	"larder/internal/budget"
	"larder/store/storepb"
)

func builtIn(t *testing.T) *Document {
	t.Helper()
	d, err := Parse(benchmarks.Scenarios())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestBuiltIn checks that the documents in the binary are valid and fit each other.
func TestBuiltIn(t *testing.T) {
	d := builtIn(t)
	b, err := budget.Parse(benchmarks.Budgets(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if other := b.Except(d.Names()); len(other) > 0 {
		t.Errorf("budgets of scenarios that do not exist: %v", other)
	}
	for _, want := range []int{0, 1, 8, 32} {
		if !slices.ContainsFunc(d.Scenarios, func(s Scenario) bool { return s.Clients() == want }) {
			t.Errorf("no scenario has %d clients (0: an open loop)", want)
		}
	}
}

// TestDashboardsAreRecent holds the mix to the published proportion: 92 % of the Series requests
// touch only the last 25 hours.
func TestDashboardsAreRecent(t *testing.T) {
	d := builtIn(t)
	recent, all := 0, 0
	for name, weight := range d.Mixes["dashboards"] {
		q := d.query(name)
		if q.Series == "" {
			continue
		}
		all += weight
		if max(q.Within, q.length()) <= 25*time.Hour {
			recent += weight
		}
	}
	if 100*recent != 92*all {
		t.Errorf("%d of %d Series requests touch only the last 25 hours, want 92 %%", recent, all)
	}
}

func TestParseErrors(t *testing.T) {
	const queries = "queries: [{name: q, series: up}]\n"
	for _, c := range []struct{ text, want string }{
		{"queries: [{name: q, serie: up}]", "line 1: queries[0]: unknown key serie, did you mean series?"},
		{"queries: [{name: q, series: up, range: soon}]", "line 1: queries[0].range: "},
		{"queries: [{name: q, series: 'up{'}]\nscenarios: [{}]", "queries: q: selector up{:"},
		{"queries: [{name: q, series: '{a=\"${valeu}\"}'}]\nscenarios: [{}]",
			"there is no variable ${valeu}, did you mean ${value}?"},
		{"queries: [{name: q}]\nscenarios: [{}]", "exactly one of series, label_values"},
		{queries, "queries and scenarios are required"},
		{queries + "scenarios: [{name: s, query: p, cache: warm, requests: 1}]",
			"scenarios: s: there is no query p: known queries are q"},
		{queries + "scenarios: [{name: s, query: q, cache: tepid, requests: 1}]",
			`cache: got "tepid", want cold, warm or restart`},
		{queries + "scenarios: [{name: s, query: q, cache: warm, requests: 1, rate: 2, " +
			"concurrency: 2}]", "mutually exclusive"},
		{queries + "scenarios: [{name: s, query: q, cache: cold, duration: 1s}]",
			"a cold scenario needs requests"},
		{queries + "mixes: {m: {p: 1}}\nscenarios: [{name: s, mix: m, cache: warm, requests: 1}]",
			"mixes: m: there is no query p"},
	} {
		_, err := Parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n  got  %v\n  want %s", c.text, err, c.want)
		}
	}
}

// TestSchedule draws the requests of all built-in scenarios twice, for a label whose value needs
// quotes.
func TestSchedule(t *testing.T) {
	d := builtIn(t)
	const hour = int64(3_600_000)
	about := &Subject{
		MinTime: 0, MaxTime: 300 * hour, Metric: "m", Label: "pod", Values: []string{`a"+b`, "cd"},
		Other: "code", OtherValues: []string{"200"},
		Series: []labels.Labels{labels.FromStrings("__name__", "m", "pod", `a"+b`)},
	}
	values := map[string]bool{}
	for i := range d.Scenarios {
		s := &d.Scenarios[i]
		if !d.NeedsSurvey(s) && s.Query != "scan" {
			t.Errorf("%s has no variables", s.Name)
		}
		rs, err := d.Schedule(s, about, 1)
		if err != nil {
			t.Fatal(err)
		}
		again, err := d.Schedule(s, about, 1)
		if err != nil {
			t.Fatal(err)
		}
		if s.Requests > 0 && len(rs) != s.Requests {
			t.Errorf("%s: %d requests, want %d", s.Name, len(rs), s.Requests)
		}
		for j, r := range rs {
			if !proto.Equal(r.Message, again[j].Message) {
				t.Fatalf("%s: request %d differs in a second draw", s.Name, j)
			}
			if q := d.query(r.Query); r.MaxTime > about.MaxTime ||
				r.MaxTime-r.MinTime != q.length().Milliseconds() ||
				q.Within > 0 && r.MinTime < max(0, about.MaxTime-q.Within.Milliseconds()) {
				t.Errorf("%s: range [%d,%d]", s.Name, r.MinTime, r.MaxTime)
			}
			if m, ok := r.Message.(*storepb.SeriesRequest); ok {
				for _, m := range m.Matchers {
					values[m.Name+m.Type.String()+m.Value] = true
				}
			}
		}
	}
	for _, want := range []string{`podEQa"+b`, `podREa".*`, "podREc.*", "codeNEQ200", "podEQcd"} {
		if !values[want] {
			t.Errorf("no request has a matcher %s", want)
		}
	}
}
