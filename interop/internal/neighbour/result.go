package neighbour

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"sort"
	"strconv"
	"strings"
)

// Result is the answer to a PromQL query.
type Result struct {
	Answer
	// Type is vector, matrix, scalar or string.
	Type string
	// Series are sorted by labels, because the order of a vector is undefined. A scalar or string
	// is one series without labels.
	Series []Series
	// Stats and Analysis are as the server wrote them; empty unless requested.
	Stats, Analysis json.RawMessage
}

// Series is one series of a result.
type Series struct {
	// Labels is the label set in Prometheus's notation, names sorted.
	Labels string
	Points []Point
}

// Point is one sample. Value is a float, a string, or a histogram in compact JSON. Floats have
// enough digits to tell them apart; therefore equal strings are equal floats, NaN included.
type Point struct {
	// Time is in milliseconds.
	Time      int64
	Value     string
	Histogram bool
}

func (c *Client) query(ctx context.Context, path string, v url.Values) (*Result, error) {
	body, err := c.get(ctx, path, v)
	if err != nil {
		return nil, err
	}
	var data struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
		Stats      json.RawMessage `json:"stats"`
		Analysis   json.RawMessage `json:"analysis"`
	}
	if err := decode(body.Data, &data); err != nil {
		return nil, err
	}
	r, err := ParseResult(data.ResultType, data.Result)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r.Answer, r.Stats, r.Analysis = body.Answer, data.Stats, data.Analysis
	return r, nil
}

// ParseResult reads a value of PromQL in the JSON of the HTTP API.
func ParseResult(typ string, raw json.RawMessage) (*Result, error) {
	r := &Result{Type: typ}
	switch typ {
	case "vector", "matrix":
		return r, r.series(raw)
	case "scalar", "string":
		p, err := point(raw, false)
		r.Series = []Series{{Points: []Point{p}}}
		return r, err
	}
	return r, nil
}

func (r *Result) series(raw json.RawMessage) error {
	var all []struct {
		Metric     map[string]string `json:"metric"`
		Value      json.RawMessage   `json:"value"`
		Histogram  json.RawMessage   `json:"histogram"`
		Values     []json.RawMessage `json:"values"`
		Histograms []json.RawMessage `json:"histograms"`
	}
	if err := decode(raw, &all); err != nil {
		return err
	}
	for _, s := range all {
		floats, histograms := s.Values, s.Histograms
		if len(s.Value) > 0 {
			floats = append(floats, s.Value)
		}
		if len(s.Histogram) > 0 {
			histograms = append(histograms, s.Histogram)
		}
		out := Series{Labels: labelString(s.Metric)}
		for i, raw := range append(floats, histograms...) {
			p, err := point(raw, i >= len(floats))
			if err != nil {
				return err
			}
			out.Points = append(out.Points, p)
		}
		sort.SliceStable(
			out.Points, func(i, j int) bool { return out.Points[i].Time < out.Points[j].Time },
		)
		r.Series = append(r.Series, out)
	}
	sort.SliceStable(
		r.Series, func(i, j int) bool { return r.Series[i].Labels < r.Series[j].Labels },
	)
	return nil
}

// point reads [seconds, value].
func point(raw json.RawMessage, histogram bool) (Point, error) {
	var pair []json.RawMessage
	if err := json.Unmarshal(raw, &pair); err != nil {
		return Point{}, err
	}
	if len(pair) != 2 {
		return Point{}, fmt.Errorf("a sample of %d parts", len(pair))
	}
	at, err := strconv.ParseFloat(string(pair[0]), 64)
	if err != nil {
		return Point{}, err
	}
	p := Point{Time: int64(math.Round(at * 1000)), Histogram: histogram}
	if histogram {
		var b bytes.Buffer
		if err := json.Compact(&b, pair[1]); err != nil {
			return p, err
		}
		p.Value = b.String()
		return p, nil
	}
	if err := json.Unmarshal(pair[1], &p.Value); err != nil {
		return p, err
	}
	// Servers differ in when they write an exponent.
	if v, err := strconv.ParseFloat(p.Value, 64); err == nil {
		p.Value = strconv.FormatFloat(v, 'g', -1, 64)
	}
	return p, nil
}

func labelString(m map[string]string) string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	var b strings.Builder
	b.WriteByte('{')
	for i, n := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s=%q", n, m[n])
	}
	b.WriteByte('}')
	return b.String()
}

// Diff describes the first difference of two results briefly; it is empty if they are equal. It
// compares what a user of the data sees: type, label sets, times, values. Values must be equal bit
// for bit, unless tolerance is above 0: then it is the largest relative difference of two floats.
// Codes, errors and warnings are left to the caller, which knows what may differ.
func Diff(want, got *Result, tolerance float64) string {
	if want.Type != got.Type {
		return fmt.Sprintf("type: want %q, got %q", want.Type, got.Type)
	}
	for i := range max(len(want.Series), len(got.Series)) {
		switch {
		case i >= len(want.Series):
			return fmt.Sprintf(
				"series %s too many (want %d series, got %d)", got.Series[i].Labels,
				len(want.Series), len(got.Series),
			)
		case i >= len(got.Series):
			return fmt.Sprintf(
				"series %s is missing (want %d series, got %d)", want.Series[i].Labels,
				len(want.Series), len(got.Series),
			)
		case want.Series[i].Labels != got.Series[i].Labels:
			return fmt.Sprintf("series %d: want %s, got %s (want %d series, got %d)",
				i, want.Series[i].Labels, got.Series[i].Labels, len(want.Series), len(got.Series))
		}
		if d := diffPoints(want.Series[i].Points, got.Series[i].Points, tolerance); d != "" {
			return want.Series[i].Labels + ": " + d
		}
	}
	return ""
}

func diffPoints(want, got []Point, tolerance float64) string {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(want):
			return fmt.Sprintf(
				"sample at %d too many (want %d samples, got %d)", got[i].Time, len(want), len(got),
			)
		case i >= len(got):
			return fmt.Sprintf(
				"sample at %d is missing (want %d samples, got %d)", want[i].Time, len(want),
				len(got),
			)
		case want[i].Time != got[i].Time:
			return fmt.Sprintf(
				"sample %d: want time %d, got %d (want %d samples, got %d)", i, want[i].Time,
				got[i].Time, len(want), len(got),
			)
		case want[i].Histogram != got[i].Histogram || !near(want[i].Value, got[i].Value, tolerance):
			return fmt.Sprintf(
				"sample at %d: want %.300s, got %.300s", want[i].Time, want[i].Value, got[i].Value,
			)
		}
	}
	return ""
}

// near reports whether two values are equal, or are floats within the relative tolerance.
func near(a, b string, tolerance float64) bool {
	if a == b {
		return true
	}
	if tolerance == 0 {
		return false
	}
	x, err := strconv.ParseFloat(a, 64)
	if err != nil {
		return false
	}
	y, err := strconv.ParseFloat(b, 64)
	if err != nil {
		return false
	}
	return math.Abs(x-y) <= tolerance*max(math.Abs(x), math.Abs(y))
}
