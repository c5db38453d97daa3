package budget

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	base := &Document{
		Requests:   Requests{Series: Times{Total: time.Second, Gate: time.Minute}},
		BucketRead: time.Hour, Prices: Prices{Get: 1, List: 2},
		Budgets: map[string]Times{"scenario": {Total: 1}},
	}
	d, err := Parse([]byte("requests: {series: {total: 2s}, label_names: {postings: 3s}}\n"+
		"prices: {list: 3}"), base)
	if err != nil {
		t.Fatal(err)
	}
	c := NewCurrent(d)
	want := Times{Total: 2 * time.Second, Gate: time.Minute}
	if got := c.Of("Series"); got != want {
		t.Errorf("Series: got %+v, want %+v: what the document does not say stays", got, want)
	}
	want = Times{Postings: 3 * time.Second}
	if got := c.Of("LabelNames"); got != want {
		t.Errorf("LabelNames: got %+v, want %+v", got, want)
	}
	if got := c.BucketRead(); got != time.Hour {
		t.Errorf("bucket read: got %s, want that of base", got)
	}
	if want := (Prices{Get: 1, List: 3}); d.Prices != want {
		t.Errorf("got prices %+v, want %+v", d.Prices, want)
	}
	if len(d.Budgets) > 0 {
		t.Errorf("got budgets of scenarios of base: %v", d.Budgets)
	}
	c.Set(nil)
	if got := c.Of("Series"); got != (Times{}) || c.BucketRead() != 0 {
		t.Errorf("without a document: got %+v", got)
	}
}

// TestRows checks that each row has its own field.
func TestRows(t *testing.T) {
	for i, row := range Rows() {
		d, err := Parse([]byte("budgets: {s: {"+row+": 7s}}"), nil)
		if err != nil {
			t.Fatal(err)
		}
		times := d.Budgets["s"]
		for j, other := range Rows() {
			if got := times.Of(other); (got == 7*time.Second) != (i == j) {
				t.Errorf("%s is 7s: got %s for %s", row, got, other)
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"budgets: {s: {totl: 1s}}", "line 1: budgets.s: unknown key totl, did you mean total?"},
		{"quantile: 2", "quantile: 2 is not above 0 and at most 1"},
		{"budgets: {s: {gate: -1s}}", "budgets: s: gate: -1s is below zero"},
		{"requests: {serie: {}}", "line 1: requests: unknown key serie, did you mean series?"},
		{"requests: {series: {total: soon}}", "line 1: requests.series.total: "},
		{"requests: {label_values: {total: -1s}}",
			"requests: label_values: total: -1s is below zero"},
		{"requests: {label_names: {chunks: 1s}}",
			"requests: label_names: chunks is only for series"},
		{"bucket_read: -1s", "bucket_read: -1s is below zero"},
		{"prices: {get: -1}", "prices: no price may be below zero"},
	} {
		if _, err := Parse([]byte(c.text), nil); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n  got  %v\n  want %s", c.text, err, c.want)
		}
	}
}
