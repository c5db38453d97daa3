package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

const (
	// diskSoakParts is the number of parts of the time that are reported and checked.
	diskSoakParts = 10
	// diskSoakBytes is the size of the disk cache, the least that is possible. diskSoakRate is what
	// it may write in a second.
	diskSoakBytes = 32 << 20
	diskSoakRate  = 4 << 20
	// diskSoakBurst is what may be written beyond the rate: a batch of each kind, and footers.
	diskSoakBurst = 4 << 20
)

// diskSoakFlags are the flags of a process whose disk cache is smaller than the bucket, and whose
// memory caches are smaller than the disk cache.
func (w *world) diskSoakFlags() []string {
	return []string{
		"--objstore.config-file=" + w.file("bucket.yaml", w.bucketConfig()),
		"--data-dir=" + filepath.Join(w.dir, "data"),
		"--index-cache-size=4MB", "--chunk-cache-size=3MB", "--warm.max-time=0s",
		fmt.Sprintf("--disk-cache-size=%d", diskSoakBytes), "--disk-cache.index-size=16MB",
		"--disk-cache.writes-per-day=0",
		fmt.Sprintf("--disk-cache.write-rate=%d", diskSoakRate), "--drain-delay=500ms",
	}
}

// diskUse are counters of a process with a disk cache, and what it holds.
type diskUse struct {
	at                                    time.Time
	touched, memory, disk, written, moved float64
	evicted, corrupt, offs                float64
	files                                 int64 // bytes
	left                                  left
}

// diskUse reads the counters now.
func (w *world) diskUse(ctx context.Context) (u diskUse, err error) {
	m, err := w.tested.Metrics(ctx)
	if err != nil {
		return u, err
	}
	for _, kind := range []string{"index", "chunks"} {
		u.touched += m[fmt.Sprintf(`larder_pages_touched_total{kind=%q}`, kind)]
		u.memory += m[fmt.Sprintf(`larder_pages_hits_total{kind=%q,tier="memory"}`, kind)]
		u.disk += m[fmt.Sprintf(`larder_pages_hits_total{kind=%q,tier="disk"}`, kind)]
		u.evicted += m[fmt.Sprintf(`larder_cache_evictions_total{cache=%q,tier="disk"}`, kind)]
	}
	u.at, u.written = time.Now(), m["larder_disk_cache_written_bytes_total"]
	u.moved = m["larder_disk_cache_moved_bytes_total"]
	u.corrupt = m["larder_disk_cache_corrupt_values_total"]
	u.offs = m["larder_disk_cache_off_total"]
	err = filepath.WalkDir(
		filepath.Join(w.dataDir, "disk"), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return ignoreMissing(err)
			}
			info, err := d.Info()
			if err != nil {
				return ignoreMissing(err)
			}
			u.files += info.Size()
			return nil
		})
	if err != nil {
		return u, err
	}
	u.left, err = w.tested.count(ctx, w.dataDir)
	return u, err
}

// diskSoak asks for a long time with a disk cache that is smaller than what is asked for. The
// answers must be right, the disk cache must keep its size and its write rate, and nothing may
// accumulate.
func (w *world) diskSoak(ctx context.Context) error {
	if err := w.rest(ctx); err != nil {
		return err
	}
	var wrongs []string
	wrong := func(is bool, format string, args ...any) {
		if is {
			wrongs = append(wrongs, fmt.Sprintf(format, args...))
		}
	}
	first, err := w.diskUse(ctx)
	if err != nil {
		return err
	}
	before, quarter := first, first
	for part := range diskSoakParts {
		l := w.startLoad(ctx, w.conf.seed+uint64(part), []codes.Code{})
		pause(ctx, w.conf.diskSoak/diskSoakParts)
		l.end()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now, err := w.diskUse(ctx)
		if err != nil {
			return errors.Join(err, w.tested.Err())
		}
		w.printf("%5s: %5d requests, %s\n", now.at.Sub(first.at).Round(time.Second), l.asked,
			now.since(before))
		wrong(l.wrong+l.unexpected > 0, "%d wrong answers, failures %s: %s", l.wrong, l.failures(),
			strings.Join(l.shown, "\n"))
		wrong(now.files > diskSoakBytes, "%d bytes of files, the limit is %d", now.files,
			diskSoakBytes)
		most := diskSoakRate*now.at.Sub(before.at).Seconds() + diskSoakBurst
		wrong(now.written-before.written > most, "%.0f bytes were written in %s, the limit is %.0f",
			now.written-before.written, now.at.Sub(before.at), most)
		before = now
		if part == diskSoakParts/4 {
			quarter = now
		}
	}
	end, tooMuch, err := w.settle(ctx)
	if err != nil {
		return err
	}
	wrong(tooMuch != "", "left behind: %s", tooMuch)
	wrong(end.heap > quarter.left.heap*heapGrowth+heapRoom,
		"heap of %.1f MB, %.1f MB after a quarter of the time", end.heap/1e6,
		quarter.left.heap/1e6)
	wrong(before.evicted == 0, "the disk cache evicted nothing: the working set fits")
	wrong(before.disk == first.disk, "nothing was found in the disk cache")
	wrong(before.corrupt > 0, "%.0f values did not verify", before.corrupt)
	if err := w.askAll(ctx); err != nil {
		wrongs = append(wrongs, fmt.Sprintf("in the end: %v", err))
	}
	w.printf("\ndisk soak of %s, seed %d: %s\n", w.conf.diskSoak, w.conf.seed, before.since(first))
	w.printf("%.0f pages evicted, off %.0f times\n", before.evicted-first.evicted, before.offs)
	if len(wrongs) > 0 {
		w.printf("%s\n", strings.Join(wrongs, "\n"))
		return errFailed
	}
	return nil
}

// since describes what happened since an earlier time, and what the process holds.
func (u diskUse) since(was diskUse) string {
	touched := max(u.touched-was.touched, 1)
	memory, disk := (u.memory-was.memory)/touched, (u.disk-was.disk)/touched
	return fmt.Sprintf("pages %.1f %% from memory, %.1f %% from disk, %.1f %% from the bucket; "+
		"%.2f MB/s written, %.0f %% of it again; files %.1f MB, heap %.1f MB, resident %.1f MB, "+
		"%d goroutines, %d files, %d sockets",
		100*memory, 100*disk, 100*(1-memory-disk),
		(u.written-was.written)/1e6/max(u.at.Sub(was.at).Seconds(), 1e-3),
		100*(u.moved-was.moved)/max(u.written-was.written, 1), float64(u.files)/1e6,
		u.left.heap/1e6, u.left.rss/1e6, u.left.goroutines, u.left.files, u.left.sockets)
}
