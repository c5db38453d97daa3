package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"larder/interop/internal/compare/client"
	"larder/interop/internal/compare/server"
	"larder/interop/internal/compare/trips"
	"larder/interop/internal/compare/workload"
	"larder/interop/internal/process"
)

const (
	// diskSize is a disk cache for the whole data set.
	diskSize = "--disk-cache-size=4GB"
	// stillFor is how long the disk cache has written nothing when it is at rest.
	stillFor = time.Second
	// stillLimit bounds the wait for that.
	stillLimit = 3 * time.Minute
	// workingSets and tierSets are the working set and the disk cache, in sizes of the memory
	// caches.
	workingSets, tierSets = 4, 10
)

// Restart is what the first dashboard queries after a restart with its volume took, beside those of
// a warm process.
type Restart struct {
	// Queries is their number. Warm and After are milliseconds, a list a round.
	Queries     int
	Warm, After [][]float64
	// Bucket is what the queries after the restart asked of the bucket, each round.
	Bucket []trips.Count
}

// WorkingSet is how much of a working set larger than memory the caches have after one pass.
type WorkingSet struct {
	// Pass says what a pass is.
	Pass string `json:"pass"`
	// Bytes is the working set, Memory and Disk are the sizes of the caches.
	Bytes, Memory, Disk int64
	// Touched are the pages that the pass after it needed, by kind of file; Hits are those found,
	// by kind and tier.
	Touched map[string]float64            `json:"touched"`
	Hits    map[string]map[string]float64 `json:"hits"`
}

// Ratio is the part of the pages that the caches had, from 0 to 1. kind is "index" or "chunks";
// empty for both.
func (w *WorkingSet) Ratio(kind string, tiers ...string) float64 {
	hits, touched := 0.0, 0.0
	for _, k := range kinds() {
		if kind != "" && kind != k {
			continue
		}
		touched += w.Touched[k]
		for _, t := range tiers {
			hits += w.Hits[k][t]
		}
	}
	return hits / max(touched, 1)
}

func kinds() []string { return []string{"index", "chunks"} }

// disk returns the folder of a kind in a system's disk cache.
func (s *session) disk(sys *system, kind string) string {
	return filepath.Join(s.work, sys.name, "data", "larder", "disk", kind)
}

// metric returns the value of one of larder's metrics.
func (sys *system) metric(ctx context.Context, name string, labels ...string) (float64, error) {
	return process.Metric(ctx, sys.server.Meter.Metrics, name, labels...)
}

// still waits until the disk cache has written all that waits.
func (sys *system) still(ctx context.Context) error {
	last, since := -1.0, time.Now()
	for begin := since; time.Since(begin) < stillLimit; {
		now, err := sys.metric(ctx, "larder_disk_cache_written_bytes_total")
		if err != nil {
			return err
		}
		if now != last {
			last, since = now, time.Now()
		} else if time.Since(since) >= stillFor {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(stillFor / 10):
		}
	}
	return errors.New("the disk cache does not come to rest")
}

// volume measures restarts with a disk cache, and a working set larger than memory.
func (r *runner) volume(ctx context.Context, s *session) error {
	sys := s.system(server.Larder)
	calls, err := dashboards()
	if err != nil {
		return err
	}
	if r.results.Restart, err = s.restarts(ctx, sys, calls); err != nil {
		return fmt.Errorf("restarts: %w", err)
	}
	if err := r.save(); err != nil {
		return err
	}
	if r.Short {
		return nil // its working set is smaller than the least size of a disk cache
	}
	var bytes int64
	for _, kind := range kinds() {
		n, err := sys.metric(ctx, "larder_cache_items", `cache="`+kind+`"`, `tier="memory"`)
		if err != nil {
			return err
		}
		bytes += int64(n) * pageBytes(kind)
	}
	for _, times := range []int{1, 2} {
		w, err := s.workingSet(ctx, sys, calls, bytes, times)
		if err != nil {
			return fmt.Errorf("working set: %w", err)
		}
		r.results.WorkingSet = append(r.results.WorkingSet, w)
	}
	return r.save()
}

// pageBytes is the default size of the pages of a kind.
func pageBytes(kind string) int64 {
	if kind == "index" {
		return 16 << 10
	}
	return 8 << 10
}

// dashboards are the encoded requests of the panels of each dashboard.
func dashboards() (out [][]client.Call, err error) {
	for _, d := range workload.Dashboards() {
		var calls []client.Call
		for i := range d {
			q := workload.Query{Ask: d[i]}
			call, err := q.Call()
			if err != nil {
				return nil, err
			}
			calls = append(calls, call)
		}
		out = append(out, calls)
	}
	return out, nil
}

// load asks every panel, each dashboard so many times before the next one. It returns what each
// call took in milliseconds.
func (sys *system) load(
	ctx context.Context, dashboards [][]client.Call, times int,
) (took []float64, err error) {
	for _, panels := range dashboards {
		for range times {
			for _, call := range panels {
				res, err := sys.client.Do(ctx, call, nil)
				if err != nil {
					return nil, err
				}
				took = append(took, ms(res.Wall))
			}
		}
	}
	return took, nil
}

// restarts measures the panels in a warm process and after its restart, which warms its caches as
// by default. It leaves a process whose memory has the pages of the panels.
func (s *session) restarts(
	ctx context.Context, sys *system, calls [][]client.Call,
) (*Restart, error) {
	res := &Restart{}
	s.flags = append(s.flags, server.Warming)
	if err := s.restart(ctx, sys); err != nil {
		return nil, err
	}
	for range min(s.r.Rounds, 3) {
		if _, err := sys.load(ctx, calls, 3); err != nil { // the second use keeps chunks on disk
			return nil, err
		}
		if err := sys.still(ctx); err != nil {
			return nil, err
		}
		warm, err := sys.load(ctx, calls, 1)
		if err != nil {
			return nil, err
		}
		if err := sys.stop(); err != nil {
			return nil, err
		}
		if err := s.start(ctx, sys); err != nil {
			return nil, err
		}
		if _, err := sys.bucket.Requests(ctx); err != nil {
			return nil, err
		}
		after, err := sys.load(ctx, calls, 1)
		if err != nil {
			return nil, err
		}
		if _, err := sys.server.Meter.Quiet(); err != nil {
			return nil, err
		}
		rs, err := sys.bucket.Requests(ctx)
		if err != nil {
			return nil, err
		}
		res.Queries = len(after)
		res.Warm, res.After = append(res.Warm, warm), append(res.After, after)
		res.Bucket = append(res.Bucket, trips.Of(rs))
	}
	return res, nil
}

// workingSet starts larder with empty caches of which memory has a quarter of the working set. It
// asks every panel once, so many times in a row, and measures what the caches have then.
func (s *session) workingSet(
	ctx context.Context, sys *system, calls [][]client.Call, bytes int64, times int,
) (*WorkingSet, error) {
	w := &WorkingSet{
		Pass:  "each panel once",
		Bytes: bytes, Memory: bytes / workingSets, Disk: bytes / workingSets * tierSets,
		Touched: map[string]float64{}, Hits: map[string]map[string]float64{},
	}
	if times > 1 {
		w.Pass = "each dashboard loaded and refreshed once"
	}
	if err := sys.stop(); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(filepath.Join(s.work, sys.name)); err != nil {
		return nil, err
	}
	s.flags = []string{
		fmt.Sprintf("--cache-size=%d", w.Memory), fmt.Sprintf("--disk-cache-size=%d", w.Disk),
	}
	if err := s.start(ctx, sys); err != nil {
		return nil, err
	}
	if _, err := sys.load(ctx, calls, times); err != nil {
		return nil, err
	}
	if err := sys.still(ctx); err != nil {
		return nil, err
	}
	// add adds the counters so far, or subtracts them.
	add := func(sign float64) error {
		for _, kind := range kinds() {
			label := `kind="` + kind + `"`
			n, err := sys.metric(ctx, "larder_pages_touched_total", label)
			if err != nil {
				return err
			}
			w.Touched[kind] += sign * n
			if w.Hits[kind] == nil {
				w.Hits[kind] = map[string]float64{}
			}
			for _, tier := range []string{"memory", "disk"} {
				n, err := sys.metric(ctx, "larder_pages_hits_total", label, `tier="`+tier+`"`)
				if err != nil {
					return err
				}
				w.Hits[kind][tier] += sign * n
			}
		}
		return nil
	}
	if err := add(-1); err != nil {
		return nil, err
	}
	if _, err := sys.load(ctx, calls, 1); err != nil {
		return nil, err
	}
	return w, add(1)
}

// prefetched waits until the disk cache of a system has the indexes.
func (s *session) prefetched(ctx context.Context, sys *system) error {
	for begin := time.Now(); time.Since(begin) < stillLimit; {
		// Not a number before the blocks are known.
		blocks, err := sys.metric(ctx, "larder_index_prefetch_pending_blocks")
		if err != nil {
			return err
		}
		if blocks == 0 {
			return sys.still(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(stillFor / 10):
		}
	}
	return errors.New("the indexes are not on disk")
}
