// Package report writes the results of a comparison as Markdown tables.
package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/server"
	"larder/interop/internal/compare/stats"
	"larder/interop/internal/compare/workload"
)

// systems is the order of the systems in a table.
func systems() []string { return []string{server.Thanos, server.Larder, server.Floor} }

// Write writes every table.
func Write(w io.Writer, res *run.Results) {
	made(w, res)
	tables(w, res)
	disk(w, res)
}

// made writes when, where and of what the results are.
func made(w io.Writer, res *run.Results) {
	text := fmt.Sprintf(
		"Made %s in %s on %s; larder %s, Thanos v0.42.4; up to %d rounds%s. The S3 bucket answers after %s with %.0f MB/s a request.",
		res.Started.Format("2006-01-02 15:04 MST"),
		res.Took.Round(time.Second),
		res.Machine,
		res.Larder,
		res.Rounds,
		map[bool]string{true: ", short data sets"}[res.Short],
		res.FirstByte,
		float64(res.BytesPerSecond)/1e6,
	)
	if res.Others >= 0.01 {
		text += fmt.Sprintf(
			" Other processes used %.0f %% of the machine's CPU time.", 100*res.Others,
		)
	}
	if res.Others > busy {
		text += " Read the quotients, not the times."
	}
	fmt.Fprintln(w, wrap(text))
}

// tables writes the tables of all modes but that with a disk cache.
func tables(w io.Writer, res *run.Results) {
	titles := map[string]string{
		run.FS:     "Bucket in a folder, warm",
		run.S3Cold: "Bucket behind S3, caches empty",
		run.S3Warm: "Bucket behind S3, warm",
	}
	for _, mode := range []string{run.FS, run.S3Cold, run.S3Warm} {
		rows, several := rowsOf(res, mode)
		if len(rows) > 0 {
			fmt.Fprintf(w, "\n### %s\n\n", titles[mode])
			times(w, rows)
			if mode != run.FS {
				fmt.Fprintf(w, "\n### %s: the bucket\n\n", titles[mode])
				asked(w, res, rows)
			}
		}
		if len(several) > 0 {
			fmt.Fprintf(w, "\n### %s: several clients at once\n\n", titles[mode])
			clients(w, several)
		}
	}
	starts(w, res)
	growth(w, res)
}

// busy is the part of the CPU time from which other processes disturb the times much.
const busy = 0.1

// rowsOf returns the rows of a mode with one client, and those with several.
func rowsOf(res *run.Results, mode string) (one, several []*run.Row) {
	for _, r := range res.Rows {
		switch {
		case r.Mode != mode || grows(r.Query):
		case r.Concurrency == 1:
			one = append(one, r)
		default:
			several = append(several, r)
		}
	}
	return one, several
}

// grows tells whether a query is a point of a curve.
func grows(name string) bool {
	for _, q := range workload.All() {
		if q.Name == name {
			return q.Grows != ""
		}
	}
	return false
}

// clients writes what rows with several clients took.
func clients(w io.Writer, rows []*run.Row) {
	header(w, []string{
		"query", "clients", "system", "rounds", "CPU ms", "first frame ms", "p50 ms", "p99 ms",
		"CPU : Thanos", "p50 : Thanos", "peak RSS MB", "requests",
	})
	for _, row := range rows {
		thanos := row.Systems[server.Thanos]
		for _, name := range systems() {
			f := row.Systems[name]
			if f == nil || len(f.CPU) == 0 {
				continue
			}
			requests := ""
			if len(f.Requests) > 0 {
				requests = number(stats.Median(f.Requests))
			}
			line(w,
				row.Query, fmt.Sprint(row.Concurrency), name, fmt.Sprint(len(f.CPU)),
				spread(f.CPU), spread(f.First), spread(f.Latency),
				number(stats.Quantile(f.Latency, 0.99)),
				ratio(f, thanos, name, func(f *run.Figure) []float64 { return f.CPU }),
				ratio(f, thanos, name, func(f *run.Figure) []float64 { return f.Latency }),
				number(stats.Median(f.Peak)/1e6), requests,
			)
		}
	}
}

// times writes what the rows of one mode took.
func times(w io.Writer, rows []*run.Row) {
	header(w, []string{
		"query", "system", "rounds", "CPU ms", "first frame ms", "p50 ms", "p99 ms",
		"CPU : Thanos", "p50 : Thanos", "allocated MB", "objects", "peak RSS MB",
	})
	for _, row := range rows {
		thanos := row.Systems[server.Thanos]
		for _, name := range systems() {
			f := row.Systems[name]
			if f == nil || len(f.CPU) == 0 {
				continue
			}
			line(w,
				row.Query, name, fmt.Sprint(len(f.CPU)),
				spread(f.CPU), spread(f.First), spread(f.Latency),
				number(stats.Quantile(f.Latency, 0.99)),
				ratio(f, thanos, name, func(f *run.Figure) []float64 { return f.CPU }),
				ratio(f, thanos, name, func(f *run.Figure) []float64 { return f.Latency }),
				number(stats.Median(f.Allocated)/1e6), count(stats.Median(f.Objects)),
				number(stats.Median(f.Peak)/1e6),
			)
		}
	}
}

// asked writes what the queries of one mode asked of the bucket, and their price.
func asked(w io.Writer, res *run.Results, rows []*run.Row) {
	header(w, []string{
		"query", "system", "requests", "index", "chunks", "meta", "MB", "index MB", "chunks MB",
		"trips", "queued", "USD per 1,000",
	})
	for _, row := range rows {
		for _, name := range systems() {
			f := row.Systems[name]
			if f == nil || len(f.Bucket) == 0 {
				continue
			}
			a := f.Asked()
			line(w,
				row.Query, name, fmt.Sprint(a.Requests()), fmt.Sprint(a.Index.Requests),
				fmt.Sprint(a.Chunks.Requests), fmt.Sprint(a.Meta.Requests),
				number(float64(a.Bytes())/1e6), number(float64(a.Index.Bytes)/1e6),
				number(float64(a.Chunks.Bytes)/1e6), fmt.Sprint(a.Trips), fmt.Sprint(a.Queued),
				fmt.Sprintf("%.4f", res.Prices.Thousand(duration(stats.Median(f.CPU)), a)),
			)
		}
	}
}

// starts writes the table of starts.
func starts(w io.Writer, res *run.Results) {
	if len(res.Starts) == 0 {
		return
	}
	fmt.Fprint(w, "\n### Start with an empty data directory\n\n")
	header(w, []string{
		"blocks", "system", "rounds", "ready s", "settled s", "CPU s", "requests", "index", "meta",
		"MB", "peak RSS MB", "RSS at rest MB",
	})
	for _, s := range res.Starts {
		f := run.Figure{Bucket: s.Bucket}
		a := f.Asked()
		line(
			w,
			fmt.Sprint(
				s.Blocks,
			),
			s.System,
			fmt.Sprint(len(s.Ready)),
			spread(s.Ready),
			spread(s.Settled),
			spread(s.CPU),
			fmt.Sprint(a.Requests()),
			fmt.Sprint(a.Index.Requests),
			fmt.Sprint(a.Meta.Requests),
			number(float64(a.Bytes())/1e6),
			number(stats.Median(s.Peak)/1e6),
			number(stats.Median(s.Resident)/1e6),
		)
	}
}

// growth writes the points of the curves.
func growth(w io.Writer, res *run.Results) {
	titles := map[string]string{
		workload.PerSeries: "How cost grows with the series of an answer",
		workload.PerBlock:  "How cost grows with the blocks of a query",
	}
	for _, curve := range []string{workload.PerSeries, workload.PerBlock} {
		points := Curve(res, curve)
		if len(points) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n### %s\n\n", titles[curve])
		header(w, []string{
			curve, "system", "rounds", "CPU ms", "CPU µs each", "p50 ms", "peak RSS MB",
		})
		for _, p := range points {
			for _, name := range systems() {
				f := p.Row.Systems[name]
				if f == nil {
					continue
				}
				line(
					w,
					count(
						p.At,
					),
					name,
					fmt.Sprint(len(f.CPU)),
					spread(f.CPU),
					number(1000*stats.Median(f.CPU)/p.At),
					spread(f.Latency),
					number(stats.Median(f.Peak)/1e6),
				)
			}
		}
	}
}

// Point is a measured point of a curve.
type Point struct {
	At  float64
	Row *run.Row
}

// Curve returns the points of a curve in ascending order.
func Curve(res *run.Results, curve string) []Point {
	var out []Point
	for _, q := range workload.All() {
		if q.Grows != curve {
			continue
		}
		for _, r := range res.Rows {
			if r.Query == q.Name && r.Mode == run.FS {
				out = append(out, Point{q.At, r})
			}
		}
	}
	return out
}

func header(w io.Writer, cols []string) {
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(cols, " | "), strings.Repeat("---|", len(cols)))
}

func line(w io.Writer, cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
