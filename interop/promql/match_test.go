package promql

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"larder/interop/internal/neighbour"
	"larder/interop/internal/promgen"
)

// match compares larder's answers with those of the same kind of Querier over Thanos's store.
type match struct {
	t *testing.T
	tally
	differences int
	// undetermined counts queries to which Thanos's store has several answers: a Querier processes
	// chunks of equal times from several stores in the order of a hash map.
	undetermined int
	// rounded counts answers of Prometheus's engine that differ in the last digits of sums, see
	// rounding.
	rounded int
}

// play sends one query to both and returns how many queries have differed so far.
func (m *match) play(about string, q promgen.Query, engine string, thanos, larder answerer) int {
	m.t.Helper()
	pose := func(who answerer) *neighbour.Result {
		r, err := who(q)
		if err != nil {
			m.t.Fatalf("%s: %v", about, err)
		}
		return r
	}
	want, got := pose(thanos), pose(larder)
	m.add(want)
	tolerance := 0.0
	if engine == "thanos" {
		// It adds values in the order in which its workers finish.
		tolerance = rounding
	}
	d := same(want, got, tolerance)
	if d == "" {
		return m.differences
	}
	if same(want, got, rounding) == "" {
		m.rounded++
		return m.differences
	}
	const asks = 10
	for range asks {
		if same(want, pose(thanos), rounding) != "" {
			m.undetermined++
			return m.differences
		}
	}
	m.t.Errorf("%s: %s", about, d)
	m.differences++
	return m.differences
}

func (m *match) String() string {
	return fmt.Sprintf(
		"%s (Thanos has several answers to %d of them, %d differ in the last digits of sums)",
		&m.tally, m.undetermined, m.rounded,
	)
}

func (m *match) check() {
	m.t.Helper()
	if m.differences == maxReports {
		return
	}
	m.tally.check(m.t)
	if m.undetermined*20 > m.queries || m.rounded*25 > m.queries {
		m.t.Errorf(
			"of %d queries %d have several answers over Thanos's store, %d differ in the last digits: too many",
			m.queries, m.undetermined, m.rounded,
		)
	}
}

// same compares two answers of Queriers of one version: data, statistics, codes, warnings.
func same(want, got *neighbour.Result, tolerance float64) string {
	if want.Code != got.Code || want.ErrorType != got.ErrorType {
		return fmt.Sprintf(
			"want %d %s (%s), got %d %s (%s)", want.Code, want.ErrorType, want.Error, got.Code,
			got.ErrorType, got.Error,
		)
	}
	if d := neighbour.Diff(want, got, tolerance); d != "" {
		return d
	}
	if a, b := warnings(want), warnings(got); a != b {
		return fmt.Sprintf("want warnings %q, got %q", a, b)
	}
	return sampleStats(want, got)
}

var (
	address = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	// fault matches how a gateway reports a block from which it cannot answer. It names the first
	// one that it met, Thanos with code Unknown, larder with Aborted (see
	// allowed_differences.yaml). The cause is at the end.
	fault = regexp.MustCompile(
		`code = (Unknown|Aborted) desc = receive series from [0-9A-Z]{26}: (.*: )?`,
	)
)

// warnings may come in any order, and contain addresses and block ids.
func warnings(r *neighbour.Result) string {
	all := slices.Clone(r.Warnings)
	for i := range all {
		all[i] = fault.ReplaceAllString(
			address.ReplaceAllString(all[i], "ADDRESS"), "a block fails: ",
		)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// sampleStats compares how many samples two evaluations of one query report; times may differ.
func sampleStats(want, got *neighbour.Result) string {
	if len(want.Stats) == 0 && len(got.Stats) == 0 {
		return ""
	}
	var samples [2]struct {
		Samples struct {
			Total int `json:"totalQueryableSamples"`
			Peak  int `json:"peakSamples"`
		} `json:"samples"`
	}
	for i, r := range []*neighbour.Result{want, got} {
		if err := json.Unmarshal(r.Stats, &samples[i]); err != nil {
			return fmt.Sprintf("statistics: %v: %s", err, r.Stats)
		}
	}
	if samples[0] != samples[1] {
		return fmt.Sprintf("statistics: want %+v, got %+v", samples[0], samples[1])
	}
	return ""
}
