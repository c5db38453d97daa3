package dataset

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// Block describes the contents of a block. Times are in milliseconds.
type Block struct {
	// ID is the block's ULID. Zero: derived from the layout's seed and the block's position.
	ID ulid.ULID
	// MinTime and MaxTime are the range of the samples: [MinTime, MaxTime).
	MinTime, MaxTime int64
	// Labels are the external labels.
	Labels labels.Labels
	// Series are the possible series of the block. Those without samples in its range are omitted.
	Series Source

	// Interval is the time between two scrapes. 0 = 30 s.
	Interval int64
	// Scraper identifies the scraper. Two scrapers scrape a target at different moments of the
	// interval; the replicas of a pair have different scrapers.
	Scraper uint64
	// Jitter is the maximum delay of a scrape. 0 = none. It must be less than Interval.
	Jitter int64

	// Resolution is 0 for raw samples, otherwise the window of downsampled ones: 300000 or 3600000.
	Resolution int64
	// StartTimestamps writes the block like a Prometheus that stores start timestamps: XOR2, and
	// histograms with start timestamps. For raw blocks only.
	StartTimestamps bool

	// SamplesPerChunk is the maximum number of samples in a chunk. 0 = 120. Native histograms get a
	// third of it.
	SamplesPerChunk int
	// ChunkFileSize is the maximum size of a chunk file in bytes. 0 = 512 MiB, same as Prometheus.
	// A small size makes several files of a small block.
	ChunkFileSize int64

	// Level is the compaction level. 0 = 1. Above 1 the block looks like the compactor's, otherwise
	// like a sidecar's.
	Level int
	// Sources are the blocks that this one was compacted from; nil: the block itself.
	Sources []ulid.ULID
}

// Defaults of Block's fields.
const (
	defaultInterval        = 30_000
	defaultSamplesPerChunk = 120
)

// progressEvery is the number of series between two reports.
const progressEvery = 1000

// write writes the block into dir, the root of a bucket. It calls written with the number of series
// written since the last call.
func (b *Block) write(
	ctx context.Context, dir string, written func(series int),
) (meta *Meta, err error) {
	blockDir := filepath.Join(dir, b.ID.String())
	chunkDir := filepath.Join(blockDir, "chunks")
	if err := os.MkdirAll(chunkDir, 0o777); err != nil {
		return nil, err
	}
	chunkw, err := chunks.NewWriter(chunkDir, chunks.WithSegmentSize(b.ChunkFileSize))
	if err != nil {
		return nil, fmt.Errorf("block %s: chunk writer: %w", b.ID, err)
	}
	indexw, err := index.NewWriter(ctx, filepath.Join(blockDir, "index"))
	if err != nil {
		return nil, fmt.Errorf("block %s: index writer: %w", b.ID, errors.Join(err, chunkw.Close()))
	}
	w := blockWriter{Block: b, chunkw: chunkw, indexw: indexw}
	err = w.writeSeries(ctx, written)
	// Both writers are closed in any case, because they hold files.
	if err = errors.Join(err, chunkw.Close(), indexw.Close()); err != nil {
		return nil, fmt.Errorf("block %s: %w", b.ID, err)
	}
	meta, err = b.writeMeta(blockDir, w.stats, w.chunkMax)
	if err != nil {
		return nil, fmt.Errorf("block %s: meta.json: %w", b.ID, err)
	}
	return meta, nil
}

// blockWriter is the state of writing one block.
type blockWriter struct {
	*Block
	chunkw   *chunks.Writer
	indexw   *index.Writer
	stats    tsdb.BlockStats
	chunkMax int64
}

// lives returns the part of the block's range in which the series has samples.
func (b *Block) lives(s Series) (from, to int64) {
	from, to = max(b.MinTime, s.From), b.MaxTime
	if s.To != 0 {
		to = min(to, s.To)
	}
	return from, to
}

func (w *blockWriter) writeSeries(ctx context.Context, written func(int)) error {
	symbols := map[string]struct{}{}
	add := func(s string) {
		if _, ok := symbols[s]; !ok {
			symbols[s] = struct{}{}
		}
	}
	for s := range w.Series.Series() {
		if from, to := w.lives(s); from < to {
			s.Labels.Range(func(l labels.Label) {
				add(l.Name)
				add(l.Value)
			})
		}
	}
	sorted := make([]string, 0, len(symbols))
	for s := range symbols {
		sorted = append(sorted, s)
	}
	symbols = nil
	slices.Sort(sorted)
	for _, s := range sorted {
		if err := w.indexw.AddSymbol(s); err != nil {
			return err
		}
	}

	var (
		ref   storage.SeriesRef
		since int
	)
	for s := range w.Series.Series() {
		if from, to := w.lives(s); from >= to {
			continue
		}
		metas, err := w.chunks(s)
		if err != nil {
			return fmt.Errorf("series %s: %w", s.Labels, err)
		}
		if len(metas) == 0 {
			continue
		}
		if err := w.chunkw.WriteChunks(metas...); err != nil {
			return err
		}
		if err := w.indexw.AddSeries(ref, s.Labels, metas...); err != nil {
			return err
		}
		ref++
		w.account(metas)
		if since++; since == progressEvery {
			written(since)
			since = 0
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	written(since)
	return nil
}

// account adds a series to the block's statistics.
func (w *blockWriter) account(metas []chunks.Meta) {
	w.stats.NumSeries++
	w.stats.NumChunks += uint64(len(metas))
	for i, m := range metas {
		w.stats.NumSamples += uint64(m.Chunk.NumSamples())
		// The compactor measures a chunk by the next one's reference, and skips the last two of a
		// series: its maximum is no bound. So is this one.
		if i < len(metas)-2 {
			n := len(m.Chunk.Bytes())
			w.chunkMax = max(
				w.chunkMax, int64(len(binary.AppendUvarint(nil, uint64(n)))+1+n+crc32.Size))
		}
	}
}

// times calls f with the timestamps of a series' samples, and once with ended set at the place of
// its staleness marker.
func (b *Block) times(s Series, f func(t int64, ended bool) error) error {
	interval := b.Interval
	if interval == 0 {
		interval = defaultInterval
	}
	target := mix(s.Target ^ mix(b.Scraper))
	offset := int64(target % uint64(interval-b.Jitter))
	from, to := b.lives(s)
	for g := from / interval; ; g++ {
		t := g*interval + offset
		if b.Jitter > 0 {
			if h := mix(target ^ uint64(g)); h%8 == 0 { // most scrapes are on time
				t += int64(h >> 8 % uint64(b.Jitter+1))
			}
		}
		switch {
		case t < from:
			continue
		case t >= b.MaxTime:
			return nil
		case t >= to:
			return f(t, true)
		}
		if err := f(t, false); err != nil {
			return err
		}
	}
}
