package report

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"larder/internal/browser"
)

// full is a report with everything that a page can show.
func full() *Report {
	r := example()
	r.Scenarios[0].Curve[0].MS = 0.001 // the widest label of the axis
	long := Known(0.848, 0.806, 0.891)
	r.Tuning = &Tuning{
		Flags:   []string{"--index-cache.page-size=16KB", "--store.read-cost.request=2ms"},
		Verdict: "These flags are better than the start.", Failure: "1,000 requests cost too much.",
		Ceilings: []string{"memory: 1GiB, as in a container of that size"},
		Load: []Part{
			{Name: "dashboards-cold", Weight: 10, Start: Costs{USD: 0.0031, MS: 1234}},
		},
		Final: Trial{Value: "the result", Rounds: 6, USD: long, Time: long, Verdict: "cheaper"},
		Knobs: []Knob{
			{
				Name: "--store.grpc.series-max-concurrency", Start: "20", Best: "20",
				Outcome: "no effect on this load",
				Trials: []Trial{
					{
						Value: "{enabled: true, quantile: 0.95}", Than: "off", Rounds: 8,
						USD: long, Time: long, Reads: long, Bytes: long, Better: true,
						Verdict: "overruns of budgets differ, not significantly",
					},
					{Value: "40", Than: "20", Rounds: 1, USD: Known(2, -1e9, 1e9)},
				},
			},
			{Name: "gaps of a plan", Constant: true, Start: "10MiB", Best: "10MiB"},
		},
	}
	return r
}

// appearance is what looks returns. Brightness is from 0 to 255.
type appearance struct {
	Plots    int     `json:"plots"`
	Ground   float64 `json:"ground"`
	Text     float64 `json:"text"`
	Smallest float64 `json:"smallest"` // height of a text of a plot, in pixels
	Others   int     `json:"others"`   // scripts, and files that the page has loaded
}

// looks returns facts about how the page looks.
const looks = `(() => {
	const svgs = [...document.querySelectorAll("svg")].map((e) => e.getBoundingClientRect());
	const rgb = (s) => s.match(/[0-9.]+/g).map(Number);
	const light = (c) => { const [r, g, b] = rgb(c); return 0.3 * r + 0.6 * g + 0.1 * b; };
	const body = getComputedStyle(document.body);
	return {
		plots: svgs.filter((r) => r.width > 200 && r.height > 40).length,
		ground: light(body.backgroundColor), text: light(body.color),
		smallest: Math.min(...[...document.querySelectorAll("svg text")].map((e) =>
			e.getBoundingClientRect().height)),
		others: document.scripts.length + performance.getEntriesByType("resource").length,
	};
})()`

// TestPageInABrowser opens the page in Chromium: on a phone and on a wide screen, light and dark.
func TestPageInABrowser(t *testing.T) {
	b := browser.Start(t)
	var out bytes.Buffer
	if err := full().WriteHTML(&out); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Open("file://" + path)
	for _, width := range []int64{360, 1600} {
		for _, scheme := range []string{"light", "dark"} {
			t.Run(fmt.Sprint(width, " ", scheme), func(t *testing.T) {
				b.Show(width, scheme)
				for _, flaw := range b.Flaws() {
					t.Error(flaw)
				}
				look := browser.Eval[appearance](b, looks)
				if look.Plots != 4 || look.Others > 0 || look.Smallest < 11 {
					t.Errorf("%+v, want 4 plots, no other files and readable texts", look)
				}
				if dark := look.Ground < look.Text; dark != (scheme == "dark") {
					t.Errorf("brightness of the ground %.0f, of the text %.0f", look.Ground,
						look.Text)
				}
			})
		}
	}
}
