package report

import (
	"fmt"
	"io"

	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/server"
	"larder/interop/internal/compare/stats"
	"larder/interop/internal/compare/workload"
)

// disk writes what queries took with a disk cache, beside their goals.
func disk(w io.Writer, res *run.Results) {
	rows, _ := rowsOf(res, run.S3Disk)
	if len(rows) > 0 {
		fmt.Fprint(w, "\n### Bucket behind S3, indexes on disk\n\n")
		header(w, []string{
			"query", "rounds", "first frame ms", "later", "goal", "p50 ms", "later", "goal", "GETs",
			"goal", "of indexes", "trips", "goal", "CPU ms", "MB read",
		})
	}
	for _, row := range rows {
		f, g := row.Systems[server.Larder], goalOf(row.Query)
		if f == nil || g == nil {
			continue
		}
		a := f.Asked()
		most := func(v float64) string {
			if v == 0 {
				return ""
			}
			return fmt.Sprintf("≤ %g", v)
		}
		trips := most(float64(g.Trips))
		if g.Requests == 0 {
			trips = "0"
		}
		line(w,
			row.Query, fmt.Sprint(len(f.Bucket)), spread(f.First), spread(f.LaterFirst),
			most(g.First), spread(f.Latency), spread(f.Later), most(g.P50),
			fmt.Sprint(a.Requests()),
			fmt.Sprintf("≤ %d", g.Requests), fmt.Sprint(a.Index.Requests),
			fmt.Sprint(a.Trips+a.Queued), trips, spread(f.CPU), number(float64(a.Bytes())/1e6),
		)
	}
	restart(w, res.Restart)
	workingSet(w, res.WorkingSet)
}

func goalOf(query string) *workload.Goal {
	for _, q := range workload.All() {
		if q.Name == query {
			return q.Goal
		}
	}
	return nil
}

// restart writes what dashboard queries took after a restart with the disk cache.
func restart(w io.Writer, r *run.Restart) {
	if r == nil {
		return
	}
	fmt.Fprintf(w, "\n### The first %d dashboard queries after a restart\n\n", r.Queries)
	header(w, []string{
		"round", "warm p50 ms", "after p50 ms", "warm p99 ms", "after p99 ms", "p99 : warm", "goal",
		"GETs of indexes", "goal", "GETs of chunks",
	})
	for i, after := range r.After {
		warm := r.Warm[i]
		was, is := stats.Quantile(warm, 0.99), stats.Quantile(after, 0.99)
		line(w,
			fmt.Sprint(i+1), number(stats.Median(warm)), number(stats.Median(after)),
			number(was), number(is), fmt.Sprintf("%.2f", is/max(was, 1e-9)), "≤ 2",
			fmt.Sprint(r.Bucket[i].Index.Requests), "0", fmt.Sprint(r.Bucket[i].Chunks.Requests),
		)
	}
}

// workingSet writes what the caches have of a working set larger than memory.
func workingSet(w io.Writer, sets []*run.WorkingSet) {
	if len(sets) == 0 {
		return
	}
	fmt.Fprint(w, "\n### A working set larger than memory\n\n")
	header(w, []string{
		"one pass", "working set MB", "memory MB", "disk MB", "found %", "goal", "in memory %",
		"on disk %", "of indexes %", "of chunks %",
	})
	percent := func(x float64) string { return fmt.Sprintf("%.1f", 100*x) }
	for _, s := range sets {
		line(w,
			s.Pass, number(float64(s.Bytes)/1e6), number(float64(s.Memory)/1e6),
			number(float64(s.Disk)/1e6), percent(s.Ratio("", "memory", "disk")), "≥ 95",
			percent(s.Ratio("", "memory")), percent(s.Ratio("", "disk")),
			percent(s.Ratio("index", "memory", "disk")),
			percent(s.Ratio("chunks", "memory", "disk")),
		)
	}
}
