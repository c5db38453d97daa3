package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"larder/internal/budget"
)

func example() *Report {
	reads := 3.5
	return &Report{
		Larder: "v1", Target: "gateway", Bucket: "bucket <b>", CPUs: 2, Quantile: 0.99,
		Scenarios: []Scenario{
			{
				Name: "fast", About: "one series", Load: "Warm", Requests: 10, Seconds: 1,
				Rows: []Row{
					{Name: "total", Source: "client", P50: 1, P90: 2, P99: 3, Max: 4, At: 3,
						Budget: 5},
					{Name: "gate", Source: "gateway", P50: 1, P90: 2, P99: 3, Max: 4, At: 3,
						Budget: 2.5},
				},
				Curve: []Point{{0, 0.5}, {0.5, 1}, {0.99, 3}, {1, 4}},
				Reads: &reads,
			},
			{Name: "broken", Requests: 4, Errors: 1, Error: "no <bucket>"},
			{Name: "cold", Skipped: "not possible"},
		},
	}
}

func TestOverruns(t *testing.T) {
	want := []string{
		"fast: gate: 3 ms at 99 %, budget 2.5 ms",
		"broken: 1 of 4 requests failed: no <bucket>",
	}
	if diff := cmp.Diff(want, example().Overruns()); diff != "" {
		t.Error(diff)
	}
	var out bytes.Buffer
	if err := example().WriteText(&out); err != nil {
		t.Fatal(err)
	}
	for _, part := range append(want, "OVER", "skipped: not possible", "3.5 reads") {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the text lacks %q:\n%s", part, &out)
		}
	}
}

func TestJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	var out bytes.Buffer
	r := example()
	if err := r.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Error(diff)
	}
	if _, err := ReadRun(path); err != nil {
		t.Errorf("the report of a run: %v", err)
	}
	other := bytes.Replace(out.Bytes(), []byte(`"version": 1`), []byte(`"version": 9`), 1)
	if err := os.WriteFile(path, other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("another version: %v", err)
	}
	r.Tuning = &Tuning{}
	out.Reset()
	if err := r.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRun(path); err == nil || !strings.Contains(err.Error(), "of a search") {
		t.Errorf("the report of a search: %v", err)
	}
}

// TestHTML checks that the page is well formed, needs nothing else, and escapes names.
func TestHTML(t *testing.T) {
	var out bytes.Buffer
	if err := example().WriteHTML(&out); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	for _, part := range []string{"<script", "<b>", "<bucket>", "src=", "<link", "url("} {
		if strings.Contains(page, part) {
			t.Errorf("the page contains %q", part)
		}
	}
	if strings.Count(page, "<svg") != 2 || !strings.Contains(page, `over">3</td>`) {
		t.Errorf("plots or overruns are missing:\n%s", page)
	}
	d := xml.NewDecoder(strings.NewReader(page[strings.Index(page, "<body>"):]))
	for depth := 0; ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			if depth == 0 { // </html> has no beginning in this part
				break
			}
			t.Fatalf("the page is not well formed: %v", err)
		}
		switch token.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		}
	}
}

// TestTuningWithoutBudgets: no budget is not a budget that was kept.
func TestTuningWithoutBudgets(t *testing.T) {
	r := &Report{Tuning: &Tuning{Load: []Part{{Name: "alert-cold", Weight: 1}}}}
	for _, budgeted := range []bool{false, true} {
		r.Tuning.Load[0].Budgeted = budgeted
		var text, page bytes.Buffer
		if err := r.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if err := r.WriteHTML(&page); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text.String(), "no budget\n") == budgeted ||
			strings.Contains(text.String(), noBudgets) == budgeted ||
			strings.Contains(page.String(), noBudgets) == budgeted {
			t.Errorf("budgeted %v:\n%s", budgeted, &text)
		}
	}
}

// TestUndecided: a search that decided nothing does not look like one that found nothing better.
func TestUndecided(t *testing.T) {
	r := &Report{Tuning: &Tuning{Verdict: "Nothing was decided."}}
	for _, undecided := range []bool{false, true} {
		r.Tuning.Undecided = undecided
		var page bytes.Buffer
		if err := r.WriteHTML(&page); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(page.String(), `class="box open"`) != undecided {
			t.Errorf("undecided %v:\n%s", undecided, &page)
		}
	}
}

func TestCompare(t *testing.T) {
	a, b := example(), example()
	b.Seed = 2
	b.Scenarios[0].Rows[0].P50 = 2
	b.Scenarios = append(b.Scenarios[:1], Scenario{Name: "new"})
	var out bytes.Buffer
	if err := Compare(&out, a, b); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(out.String()), " ")
	for _, part := range []string{
		"seeds or numbers of CPUs differ", "fast total p50 ms 1 2 2.00",
		"bucket reads 3.5 3.5 1.00",
		"broken not in both", "new not in both",
	} {
		if !strings.Contains(got, part) {
			t.Errorf("no %q in:\n%s", part, &out)
		}
	}
}

// TestCompareFailures: requests that fail early do not count as fast ones.
func TestCompareFailures(t *testing.T) {
	a, b := example(), example()
	b.Scenarios[0].Errors, b.Scenarios[0].Error = 6, "deadline exceeded"
	b.Scenarios[0].Rows[0].P50 = 0.5
	var out bytes.Buffer
	err := Compare(&out, a, b)
	if err == nil || !strings.Contains(err.Error(), "requests failed") ||
		!strings.Contains(err.Error(), ": fast, broken") {
		t.Errorf("failed requests are no error: %v", err)
	}
	got := strings.Join(strings.Fields(out.String()), " ")
	for _, part := range []string{
		"fast failed requests 0 of 10 6 of 10 - total p50 ms 1 0.5 - total p99 ms 3 3 -",
		"bucket reads 3.5 3.5 -", "broken failed requests 1 of 4 1 of 4 -",
	} {
		if !strings.Contains(got, part) {
			t.Errorf("no %q in:\n%s", part, &out)
		}
	}
}

// TestWriteBudgets: budgets are twice the median of the runs, and are read as they were written.
func TestWriteBudgets(t *testing.T) {
	var reports []*Report
	for i, at := range []float64{61.1, 400, 52} {
		r := example()
		r.Scenarios = slices.DeleteFunc(r.Scenarios, func(s Scenario) bool { return s.Errors > 0 })
		r.Bucket, r.Seed = fmt.Sprintf("generated bucket small, seed %d, no model", i), uint64(i)
		r.Scenarios[0].Rows[0].At = at
		reports = append(reports, r)
	}
	var out bytes.Buffer
	if err := WriteBudgets(&out, reports); err != nil {
		t.Fatal(err)
	}
	d, err := budget.Parse(out.Bytes(), nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	want := map[string]budget.Times{
		"fast": {Total: 130 * time.Millisecond, Gate: 6 * time.Millisecond},
	}
	if diff := cmp.Diff(want, d.Budgets); diff != "" || d.Quantile != 0.99 {
		t.Errorf("quantile %v, budgets (-want +got):\n%s", d.Quantile, diff)
	}
	out.Reset()
	if err := WriteBudgets(&out, reports[:2]); err != nil ||
		!strings.Contains(out.String(), "total: 470ms") { // 2 * (61.1 + 400) / 2, rounded up
		t.Errorf("the median of two runs: %v\n%s", err, &out)
	}
	throttled := *reports[1]
	throttled.Bucket = "generated bucket small, seed 1, throttled above 5 requests/s"
	err = WriteBudgets(&out, []*Report{reports[0], &throttled})
	if err == nil || !strings.Contains(err.Error(), "differ") {
		t.Errorf("reports of different models: %v", err)
	}
	if err := WriteBudgets(&out, []*Report{{}}); err == nil {
		t.Error("a report without scenarios gives budgets")
	}
	reports[1].Scenarios[0].Errors = 6
	if err := WriteBudgets(&out, reports); err == nil ||
		!strings.Contains(err.Error(), "fast: 6 of 10 requests failed") {
		t.Errorf("budgets of failed requests: %v", err)
	}
	reports[2].Quantile = 0.9
	if err := WriteBudgets(&out, reports); err == nil || !strings.Contains(err.Error(), "differ") {
		t.Errorf("reports of different quantiles: %v", err)
	}
}
