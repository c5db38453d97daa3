package report

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"larder/interop/internal/compare/plot"
	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/server"
	"larder/interop/internal/compare/stats"
	"larder/interop/internal/compare/workload"
)

// drawn is a plot of the results.
type drawn struct {
	file, title string
	plot        interface{ Write(io.Writer) error }
}

// plots returns the plots for which there are results.
func plots(res *run.Results) []drawn {
	var out []drawn
	for _, mode := range []string{run.FS, run.S3Cold, run.S3Warm} {
		if b := quotients(res, mode); len(b.Labels) > 0 {
			out = append(out, drawn{mode + ".svg", b.Title, b})
		}
	}
	if b := startQuotients(res); len(b.Labels) > 0 {
		out = append(out, drawn{"start.svg", b.Title, b})
	}
	for _, curve := range []string{workload.PerSeries, workload.PerBlock} {
		if l := costs(res, curve); len(l.X) > 0 {
			out = append(out, drawn{curve + ".svg", l.Title, l})
		}
	}
	return out
}

// quotients compares larder's medians with Thanos's, for one client.
func quotients(res *run.Results, mode string) plot.Bars {
	b := plot.Bars{
		Title: fmt.Sprintf(
			"larder : Thanos, mode %s, one client; below 1 larder takes less",
			mode,
		),
		YLabel: "larder : Thanos",
		Series: []plot.Series{{Name: "CPU"}, {Name: "p50"}},
	}
	if mode == run.S3Cold { // warm, larder asks nothing
		b.Series = append(b.Series, plot.Series{Name: "requests"})
	}
	rows, _ := rowsOf(res, mode)
	for _, r := range rows {
		t, l := r.Systems[server.Thanos], r.Systems[server.Larder]
		if t == nil || l == nil || len(t.CPU) == 0 || len(l.CPU) == 0 {
			continue
		}
		b.Labels = append(b.Labels, r.Query)
		add(b.Series, 0, stats.Median(l.CPU), stats.Median(t.CPU))
		add(b.Series, 1, stats.Median(l.Latency), stats.Median(t.Latency))
		if mode == run.S3Cold {
			add(b.Series, 2, float64(l.Asked().Requests()), float64(t.Asked().Requests()))
		}
	}
	return b
}

// add appends the quotient of larder's and Thanos's value to series i; 0, which is not drawn, if
// there is none.
func add(series []plot.Series, i int, larder, thanos float64) {
	q := 0.0
	if thanos > 0 {
		q = larder / thanos
	}
	series[i].Y = append(series[i].Y, q)
}

// startQuotients compares what starts took.
func startQuotients(res *run.Results) plot.Bars {
	b := plot.Bars{
		Title:  "larder : Thanos, starts by number of blocks; below 1 larder takes less",
		YLabel: "larder : Thanos",
		Series: []plot.Series{
			{Name: "until ready"}, {Name: "CPU"}, {Name: "requests"}, {Name: "RSS at rest"},
		},
	}
	starts := map[string]*run.Start{}
	for _, s := range res.Starts {
		starts[s.Set+s.System] = s
	}
	for _, l := range res.Starts {
		t := starts[l.Set+server.Thanos]
		if l.System != server.Larder || t == nil {
			continue
		}
		b.Labels = append(b.Labels, fmt.Sprint(l.Blocks))
		add(b.Series, 0, stats.Median(l.Ready), stats.Median(t.Ready))
		add(b.Series, 1, stats.Median(l.CPU), stats.Median(t.CPU))
		lf, tf := run.Figure{Bucket: l.Bucket}, run.Figure{Bucket: t.Bucket}
		add(b.Series, 2, float64(lf.Asked().Requests()), float64(tf.Asked().Requests()))
		add(b.Series, 3, stats.Median(l.Resident), stats.Median(t.Resident))
	}
	return b
}

// costs draws a curve.
func costs(res *run.Results, curve string) plot.Lines {
	l := plot.Lines{
		Title: "CPU time of one query by " + curve, XLabel: curve, YLabel: "CPU ms",
	}
	for _, name := range systems() {
		l.Series = append(l.Series, plot.Series{Name: name})
	}
	for _, p := range Curve(res, curve) {
		l.X = append(l.X, p.At)
		for i := range l.Series {
			cpu := 0.0
			if f := p.Row.Systems[l.Series[i].Name]; f != nil {
				cpu = stats.Median(f.CPU)
			}
			l.Series[i].Y = append(l.Series[i].Y, cpu)
		}
	}
	return l
}

// Plots writes the plots into a folder.
func Plots(dir string, res *run.Results) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, p := range plots(res) {
		f, err := os.Create(filepath.Join(dir, p.file))
		if err != nil {
			return err
		}
		if err := p.plot.Write(f); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
