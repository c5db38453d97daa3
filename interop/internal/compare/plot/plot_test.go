package plot_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"testing"

	"larder/interop/internal/compare/plot"
)

// elements parses an SVG and counts its elements by name.
func elements(t *testing.T, svg []byte) map[string]int {
	t.Helper()
	out := map[string]int{}
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if e, ok := tok.(xml.StartElement); ok {
			out[e.Name.Local]++
		}
	}
}

func TestBars(t *testing.T) {
	var b bytes.Buffer
	err := plot.Bars{
		Title: "a < b", Labels: []string{"Q1", "Q2"},
		Series: []plot.Series{{"CPU", []float64{0.5, 2}}, {"p50", []float64{0.01, 0}}},
	}.Write(&b)
	if err != nil {
		t.Fatal(err)
	}
	// Three bars, the background and two squares of the legend: what is 0 has no bar.
	if n := elements(t, b.Bytes())["rect"]; n != 6 {
		t.Errorf("%d rectangles, want 6:\n%s", n, b.String())
	}
	if !strings.Contains(b.String(), "a &lt; b") || strings.Contains(b.String(), "NaN") {
		t.Errorf("bars:\n%s", b.String())
	}
}

func TestLines(t *testing.T) {
	var b bytes.Buffer
	err := plot.Lines{
		Title: "CPU", X: []float64{1, 10, 500},
		Series: []plot.Series{{"larder", []float64{0.1, 0.2, 3}}, {"thanos", []float64{1, 2}}},
	}.Write(&b)
	if err != nil {
		t.Fatal(err)
	}
	e := elements(t, b.Bytes())
	if e["polyline"] != 2 || e["circle"] != 5 || strings.Contains(b.String(), "NaN") {
		t.Errorf("elements %v:\n%s", e, b.String())
	}
}

// TestNothing draws plots without data.
func TestNothing(t *testing.T) {
	var b bytes.Buffer
	if err := (plot.Bars{}).Write(&b); err != nil {
		t.Error(err)
	}
	if err := (plot.Lines{}).Write(&b); err != nil {
		t.Error(err)
	}
	if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
		t.Errorf("empty plots:\n%s", b.String())
	}
}
