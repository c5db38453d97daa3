package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"larder/benchmarks/process"

	"google.golang.org/grpc/codes"
)

// report is the result of a run.
type report struct {
	config        config
	cgroup        bool
	kinds         []*kind
	quiet, loaded latencies
	took          time.Duration
	memory        memoryUse
}

// memoryUse is what the process used under load.
type memoryUse struct {
	peakRSS, peakCgroup int64
	peakReserved        int64 // of the request allowance
	peakHeap            int64 // objects, dead ones included
	cpu, gc             float64
	cycles              float64
}

// watch samples the process until the returned function is called.
func watch(ctx context.Context, p *process.Larder, c config) (func() (memoryUse, error), error) {
	const (
		cpu, gc, gcIdle = "process_cpu_seconds_total", "go_cpu_classes_gc_total_cpu_seconds_total",
			"go_cpu_classes_gc_mark_idle_cpu_seconds_total"
		cycles         = "go_gc_cycles_total_gc_cycles_total"
		reserved, heap = `larder_request_allowance_bytes{state="in_use"}`,
			"go_memory_classes_heap_objects_bytes"
	)
	before, err := p.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	var use memoryUse
	var last map[string]float64
	var failed error
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; failed == nil; n++ {
			select {
			case <-done:
				return
			case <-time.After(time.Second):
			}
			if last, failed = p.Metrics(ctx); failed != nil {
				return
			}
			use.peakReserved = max(use.peakReserved, int64(last[reserved]))
			use.peakHeap = max(use.peakHeap, int64(last[heap]))
			u, _ := p.Usage()
			if n%5 == 0 {
				c.note(
					"  RSS %d MiB, peak %d, heap %d, reserved %d, gate waiting %.0f, "+
						"allowance waiting %.0f + %.0f, goroutines %.0f",
					u.Resident>>20,
					u.Peak>>20,
					int64(
						last[heap],
					)>>20,
					int64(last[reserved])>>20,
					last["larder_series_gate_waiting"],
					last[`larder_request_allowance_waiting{lane="small"}`],
					last[`larder_request_allowance_waiting{lane="large"}`],
					last["go_goroutines"],
				)
			}
		}
	})
	return func() (memoryUse, error) {
		close(done)
		wg.Wait()
		// Usage returns an error if the process was killed.
		u, err := p.Usage()
		if err != nil {
			return use, err
		}
		if last, err = p.Metrics(ctx); err != nil || failed != nil {
			return use, errors.Join(err, failed)
		}
		use.peakRSS, use.peakCgroup = u.Peak, p.CgroupPeak()
		use.cpu = last[cpu] - before[cpu]
		use.gc = last[gc] - before[gc] - (last[gcIdle] - before[gcIdle])
		use.cycles = last[cycles] - before[cycles]
		return use, nil
	}, nil
}

const mib = 1 << 20

// retryable are the codes with which a request may fail that would succeed at a better time.
var retryable = []codes.Code{codes.ResourceExhausted, codes.Unavailable, codes.Aborted}

func (r *report) print(w io.Writer) {
	c := &r.config
	limit := "GOMEMLIMIT alone"
	if r.cgroup {
		limit = "a cgroup and GOMEMLIMIT"
	}
	fmt.Fprintf(w, "%d series, limit %d MiB by %s, the bucket's first byte after %s\n\n", c.values,
		c.limit/mib, limit, c.first)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "request\tasked\tright\twrong\tfailed\talone\tfastest\tslowest\tMB each\t")
	for _, k := range r.kinds {
		slices.Sort(k.durations)
		var fastest, slowest time.Duration
		if n := len(k.durations); n > 0 {
			fastest, slowest = k.durations[0], k.durations[n-1]
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%.1fs\t%.1fs\t%.1fs\t%.0f\t\n", k.name, k.count,
			k.right, k.wrong, k.failures(),
			k.alone.Seconds(), fastest.Seconds(), slowest.Seconds(), float64(k.want.bytes)/1e6)
	}
	_ = t.Flush() // like all prints here
	fmt.Fprintf(
		w, "\nsmall queries alone:   %s\nsmall queries beside:  %s\np99 beside / alone:    %.1f\n",
		&r.quiet, &r.loaded, r.ratio())
	m := &r.memory
	fmt.Fprintf(w, "took %s, peak RSS %d MiB", r.took.Round(100*time.Millisecond), m.peakRSS/mib)
	if m.peakCgroup > 0 {
		fmt.Fprintf(w, ", of the cgroup with page cache and kernel %d MiB", m.peakCgroup/mib)
	}
	fmt.Fprintf(w, ", heap with garbage %d MiB, reserved by requests %d MiB\n", m.peakHeap/mib,
		m.peakReserved/mib)
	fmt.Fprintf(w, "larder's CPU %.1f s, of that the collector's %.1f %%, %.0f cycles\n", m.cpu,
		100*m.gc/max(m.cpu, 1e-9), m.cycles)
}

// failures returns the number of failures per code.
func (k *kind) failures() string {
	var out []string
	for _, code := range slices.Sorted(maps.Keys(k.codes)) {
		out = append(out, fmt.Sprintf("%d %s", k.codes[code], code))
	}
	if len(out) == 0 {
		return "0"
	}
	return strings.Join(out, ", ")
}

// ratio returns how much slower small queries are under load.
func (r *report) ratio() float64 {
	return r.loaded.quantile(0.99).Seconds() / max(r.quiet.quantile(0.99).Seconds(), 1e-9)
}

// broken returns the promises that were not kept.
func (r *report) broken() []error {
	var out []error
	f := func(bad bool, format string, args ...any) {
		if bad {
			out = append(out, fmt.Errorf(format, args...))
		}
	}
	c := &r.config
	f(r.memory.peakRSS >= c.limit, "peak RSS %d MiB, the limit is %d MiB", r.memory.peakRSS/mib,
		c.limit/mib)
	for _, k := range r.kinds {
		f(k.wrong > 0, "%s: %d wrong answers, the last one: %s", k.name, k.wrong, k.firstWrong)
		least := k.count - k.count/16 // 60 of 64
		f(k.right < least, "%s: %d of %d answered, at least %d must be", k.name, k.right, k.count,
			least)
		for code, n := range k.codes {
			ok := slices.ContainsFunc(
				retryable, func(c codes.Code) bool { return c.String() == code })
			f(!ok, "%s: %d failed with %s, which clients do not retry", k.name, n, code)
		}
	}
	for _, l := range []*latencies{&r.quiet, &r.loaded} {
		if len(l.failed) > 0 {
			f(true, "%d small queries failed, the first: %w", len(l.failed), l.failed[0])
		}
	}
	f(c.slower > 0 && r.ratio() > c.slower,
		"the p99 of small queries is %.1f times what it is without load, at most %.1f is allowed",
		r.ratio(), c.slower)
	return out
}
