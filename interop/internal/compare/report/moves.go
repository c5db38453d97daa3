package report

import (
	"fmt"
	"io"
	"math"

	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/server"
	"larder/interop/internal/compare/stats"
)

// Moves writes how the quotients of larder and Thanos differ between two runs: what can be read
// into a difference, and what cannot.
func Moves(w io.Writer, first, second *run.Results) {
	fmt.Fprintln(w, wrap(fmt.Sprintf(
		"The same command twice: %s (larder %s) and %s (larder %s).",
		first.Started.Format("2006-01-02 15:04"), first.Larder,
		second.Started.Format("2006-01-02 15:04"), second.Larder,
	)))
	fmt.Fprintln(w)
	header(w, []string{
		"query", "mode", "clients", "CPU : Thanos", "again", "p50 : Thanos", "again", "requests",
		"again",
	})
	var cpus, p50s []float64
	for _, a := range first.Rows {
		for _, b := range second.Rows {
			if a.Query != b.Query || a.Mode != b.Mode || a.Concurrency != b.Concurrency {
				continue
			}
			cpu := [2]float64{quotient(a, cpuOf), quotient(b, cpuOf)}
			p50 := [2]float64{quotient(a, latencyOf), quotient(b, latencyOf)}
			if cpu[0] == 0 || cpu[1] == 0 {
				continue
			}
			cpus = append(cpus, apart(cpu))
			p50s = append(p50s, apart(p50))
			line(w,
				a.Query, a.Mode, fmt.Sprint(a.Concurrency), number(cpu[0]), number(cpu[1]),
				number(p50[0]), number(p50[1]), requests(a), requests(b),
			)
		}
	}
	if len(cpus) == 0 {
		fmt.Fprint(w, "\nThe runs have no row in common.\n")
		return
	}
	moved := fmt.Sprintf(
		"The quotients of half of the rows moved by less than %.0f %% (CPU) and %.0f %% (p50); "+
			"those of nine rows in ten by less than %.0f %% and %.0f %%.",
		100*stats.Median(cpus), 100*stats.Median(p50s),
		100*stats.Quantile(cpus, 0.9), 100*stats.Quantile(p50s, 0.9),
	)
	fmt.Fprintf(w, "\n%s\n", wrap(moved))
}

// apart is how far the larger of two values is above the smaller.
func apart(x [2]float64) float64 {
	return math.Max(x[0], x[1])/math.Min(x[0], x[1]) - 1
}

func cpuOf(f *run.Figure) float64     { return stats.Median(f.CPU) }
func latencyOf(f *run.Figure) float64 { return stats.Median(f.Latency) }

// quotient is larder's value by Thanos's; 0 if one is missing.
func quotient(r *run.Row, get func(*run.Figure) float64) float64 {
	t, l := r.Systems[server.Thanos], r.Systems[server.Larder]
	if t == nil || l == nil || get(t) == 0 {
		return 0
	}
	return get(l) / get(t)
}

// requests are those of larder.
func requests(r *run.Row) string {
	f := r.Systems[server.Larder]
	if len(f.Bucket) == 0 {
		return ""
	}
	return fmt.Sprint(f.Asked().Requests())
}
