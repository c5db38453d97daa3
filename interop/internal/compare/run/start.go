package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"larder/interop/internal/compare/dataset"
	"larder/interop/internal/compare/server"
	"larder/interop/internal/compare/trips"
	"larder/interop/internal/gateway"
)

// restAfter is how long a gateway at rest has asked nothing of the bucket.
const restAfter = 2 * time.Second

// startBlocks is the number of blocks of a data set whose start is measured; 0 for others.
func startBlocks(s dataset.Set, short bool) int {
	switch {
	case s.Name != "many" && s.Name != "crowded":
		return 0
	case short:
		return s.Short
	}
	return s.Size
}

// starts measures starts with an empty data directory over S3, in turns. The data directories of
// the last ones are kept for the rows of the set.
func (r *runner) starts(ctx context.Context, set dataset.Set, dir string, blocks int) error {
	figures := map[string]*Start{}
	var names []string
	for _, name := range []string{server.Thanos, server.Larder} {
		if chosen(r.Systems, name) {
			names = append(names, name)
			figures[name] = &Start{Set: set.Name, Blocks: blocks, System: name}
			r.results.Starts = append(r.results.Starts, figures[name])
		}
	}
	for range startRounds(set, r.Rounds) {
		for _, name := range names {
			s := figures[name]
			data := filepath.Join(r.work(set, S3Cold), name)
			if err := os.RemoveAll(data); err != nil {
				return err
			}
			if err := r.start(ctx, s, dir, data); err != nil {
				return fmt.Errorf("start of %s: %w", name, err)
			}
			last := len(s.Ready) - 1
			r.progress(
				"start of %s with %d blocks: ready after %.1f s, settled after %.1f s",
				name,
				blocks,
				s.Ready[last],
				s.Settled[last],
			)
		}
		slices.Reverse(names)
	}
	return r.save()
}

func (r *runner) start(ctx context.Context, s *Start, dir, data string) (err error) {
	bucket, err := server.StartBucket(ctx, r.bucketBin, dir, r.Latency)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	b := gateway.Bucket{Config: bucket.Config, DataDir: data}
	begin := time.Now()
	var srv *server.Server
	if s.System == server.Larder {
		srv, err = r.Launcher.Larder(ctx, b, false)
	} else {
		srv, err = r.Launcher.Thanos(ctx, b)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	s.Ready = append(s.Ready, time.Since(begin).Seconds())

	var all []trips.Request
	last := begin.UnixNano()
	for {
		rs, err := bucket.Requests(ctx)
		if err != nil {
			return err
		}
		for _, q := range rs {
			last = max(last, q.End)
		}
		all = append(all, rs...)
		if time.Since(time.Unix(0, last)) > restAfter {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(restAfter / 10):
		}
	}
	s.Settled = append(s.Settled, time.Unix(0, last).Sub(begin).Seconds())
	s.Bucket = append(s.Bucket, trips.Of(all))
	cpu, err := srv.Meter.Quiet()
	if err != nil {
		return err
	}
	peak, err := srv.Meter.Peak()
	if err != nil {
		return err
	}
	rss, err := srv.Meter.Resident()
	s.CPU = append(s.CPU, cpu.Seconds())
	s.Peak, s.Resident = append(s.Peak, float64(peak)), append(s.Resident, float64(rss))
	return err
}
