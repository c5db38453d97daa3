package layout

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/thanos/pkg/block/metadata"
	"github.com/thanos-io/thanos/pkg/compact/downsample"
)

// Options are properties that a layout must have.
type Options struct {
	// Giants adds series that are larger than a frame of an answer.
	Giants bool
	// Damage breaks one served block. Sound breaks no block.
	Damage Damage
	// Irregular gives about half of the blocks an index that is out of order or contains what an
	// index must not contain.
	Irregular bool
}

// Write makes the bucket of a seed in dir, which must be empty.
func Write(ctx context.Context, dir string, seed uint64, opts Options) (*Layout, error) {
	r := rand.New(rand.NewPCG(seed, 0x6c6172646572))
	l := &Layout{Seed: seed, Dir: dir}
	// By chance a layout may consist of gaps and marks only. Then it is planned again, still
	// determined by the seed.
	var p *planner
	for {
		p = newPlanner(r, opts.Giants)
		p.plan()
		l.Blocks = l.Blocks[:0]
		for _, b := range p.plans {
			l.Blocks = append(l.Blocks, &b.Block)
		}
		if len(l.Served()) >= 3 {
			break
		}
	}
	l.ReplicaLabel = p.replica
	if r.IntN(5) == 0 {
		at := time.UnixMilli(p.from + r.Int64N(3)*OneHour).UTC()
		l.MinTime = at.Truncate(time.Second)
	}
	if r.IntN(5) == 0 {
		l.MaxTime = time.UnixMilli(p.from + (3+r.Int64N(5))*OneHour).UTC()
	}
	// A separate random source, so that the rest of a layout depends on the seed alone.
	bends := rand.New(rand.NewPCG(seed, 0x62656e64))
	if opts.Irregular {
		for _, b := range p.plans {
			b.Irregular = irregular(bends)
		}
	}
	scratch, err := os.MkdirTemp("", "layout-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	for _, b := range p.plans {
		if err := b.write(ctx, r, bends, dir, scratch); err != nil {
			return nil, fmt.Errorf("seed %d: block %s: %w", seed, b.ID, err)
		}
	}
	if err := litter(r, dir); err != nil {
		return nil, err
	}
	if opts.Damage != Sound {
		served := l.Served()
		b := served[r.IntN(len(served))]
		if err := damage(filepath.Join(dir, b.ID.String()), opts.Damage); err != nil {
			return nil, fmt.Errorf("damage block %s: %w", b.ID, err)
		}
		b.Damage = opts.Damage
	}
	return l, nil
}

func (b *blockPlan) write(ctx context.Context, r, bends *rand.Rand, bucket, scratch string) error {
	final := filepath.Join(bucket, b.ID.String())
	dir := final
	if b.Resolution > Raw {
		dir = filepath.Join(scratch, b.ID.String())
	}
	if err := b.writeRaw(ctx, dir); err != nil {
		return err
	}
	for _, res := range []int64{FiveMinutes, OneHour} {
		if res > b.Resolution {
			break
		}
		down, err := b.downsample(ctx, dir, scratch, res)
		if err != nil {
			return fmt.Errorf("downsample to %d ms: %w", res, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		dir = down
	}
	if dir != final {
		if err := os.Rename(dir, final); err != nil {
			return err
		}
	}
	stats, err := b.read(final)
	if err != nil {
		return err
	}
	if len(b.Irregular) > 0 && len(b.Series) > 0 {
		if err := b.bend(bends, final); err != nil {
			return fmt.Errorf("make the index irregular: %w", err)
		}
	}
	meta := b.meta(b.Resolution)
	if r.IntN(2) == 0 {
		meta.Thanos.IndexStats = stats
	}
	if err := b.describeFiles(r, final, meta); err != nil {
		return err
	}
	if err := meta.WriteToDir(log.NewNopLogger(), final); err != nil {
		return err
	}
	if b.MarkAge > 0 {
		return writeJSON(filepath.Join(final, metadata.DeletionMarkFilename), metadata.DeletionMark{
			ID: b.ID, Version: metadata.DeletionMarkVersion1, DeletionTime: time.Now().
				Add(-b.MarkAge).Unix(),
		})
	}
	return nil
}

func (b *blockPlan) meta(resolution int64) *metadata.Meta {
	return &metadata.Meta{
		BlockMeta: tsdb.BlockMeta{
			ULID: b.ID, MinTime: b.MinTime, MaxTime: b.MaxTime, Version: metadata.TSDBVersion1,
			Compaction: tsdb.BlockMetaCompaction{Level: len(b.Sources), Sources: b.Sources},
		},
		Thanos: metadata.Thanos{
			Version: metadata.ThanosVersion1, Labels: b.Labels.Map(), Source: b.Source,
			Downsample: metadata.ThanosDownsample{Resolution: resolution},
		},
	}
}

// writeRaw writes the block's raw samples with Prometheus's chunk and index writers.
func (b *blockPlan) writeRaw(ctx context.Context, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"), chunks.WithSegmentSize(b.segment))
	if err != nil {
		return err
	}
	type entry struct {
		labels labels.Labels
		chunks []chunks.Meta
	}
	var entries []entry
	symbols := map[string]bool{}
	for i, m := range b.stream.members {
		if b.without > 0 && i%b.without == 1 {
			continue
		}
		edges := i%4 == 0 && m.kind != giant && m.aliveAt(b.MinTime) && m.aliveAt(b.MaxTime-1)
		cs, err := m.chunksOf(b.MinTime, b.MaxTime, b.span, b.stream.skew, edges)
		if err != nil {
			return err
		}
		if len(cs) == 0 {
			continue
		}
		if err := cw.WriteChunks(cs...); err != nil {
			return err
		}
		entries = append(entries, entry{m.labels, cs})
		m.labels.Range(func(l labels.Label) { symbols[l.Name], symbols[l.Value] = true, true })
	}
	if err := cw.Close(); err != nil {
		return err
	}
	iw, err := index.NewWriter(ctx, filepath.Join(dir, "index"))
	if err != nil {
		return err
	}
	sorted := make([]string, 0, len(symbols))
	for s := range symbols {
		sorted = append(sorted, s)
	}
	sort.Strings(sorted)
	for _, s := range sorted {
		if err := iw.AddSymbol(s); err != nil {
			return err
		}
	}
	for i, e := range entries {
		if err := iw.AddSeries(storage.SeriesRef(i), e.labels, e.chunks...); err != nil {
			return err
		}
	}
	if err := iw.Close(); err != nil {
		return err
	}
	return b.meta(Raw).WriteToDir(log.NewNopLogger(), dir)
}

// downsample runs Thanos's own downsampling on the block in dir and returns the folder of the
// result.
func (b *blockPlan) downsample(
	ctx context.Context, dir, scratch string, resolution int64,
) (string, error) {
	blk, err := tsdb.OpenBlock(nil, dir, downsample.NewPool(), nil)
	if err != nil {
		return "", err
	}
	defer blk.Close()
	from := Raw
	if resolution == OneHour {
		from = FiveMinutes
	}
	id, err := downsample.Downsample(
		ctx, log.NewNopLogger(), b.meta(from), blk, scratch, resolution,
	)
	if err != nil {
		return "", err
	}
	return filepath.Join(scratch, id.String()), nil
}

// read reads the series and their chunk ranges from the written index.
func (b *blockPlan) read(dir string) (metadata.IndexStats, error) {
	var stats metadata.IndexStats
	ir, err := index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw)
	if err != nil {
		return stats, err
	}
	defer ir.Close()
	cr, err := chunks.NewDirReader(filepath.Join(dir, "chunks"), downsample.NewPool())
	if err != nil {
		return stats, err
	}
	defer cr.Close()
	k, v := index.AllPostingsKey()
	ps, err := ir.Postings(context.Background(), k, v)
	if err != nil {
		return stats, err
	}
	var sb labels.ScratchBuilder
	var metas []chunks.Meta
	for ps.Next() {
		if err := ir.Series(ps.At(), &sb, &metas); err != nil {
			return stats, err
		}
		s := Series{Labels: sb.Labels()}
		for _, m := range metas {
			s.Chunks = append(s.Chunks, Range{m.MinTime, m.MaxTime})
			c, _, err := cr.ChunkOrIterable(m)
			if err != nil {
				return stats, err
			}
			size := int64(binary.MaxVarintLen32 + 1 + len(c.Bytes()) + 4)
			stats.ChunkMaxSize = max(stats.ChunkMaxSize, size)
		}
		b.Series = append(b.Series, s)
	}
	return stats, ps.Err()
}

// describeFiles lists the block's files in its meta as different versions of Thanos do: with sizes,
// by name only, or not at all.
func (b *blockPlan) describeFiles(r *rand.Rand, dir string, meta *metadata.Meta) error {
	style := r.IntN(3)
	des, err := os.ReadDir(filepath.Join(dir, "chunks"))
	if err != nil {
		return err
	}
	if style == 2 {
		return nil
	}
	for _, de := range des {
		meta.Thanos.SegmentFiles = append(meta.Thanos.SegmentFiles, de.Name())
		if style == 0 {
			fi, err := de.Info()
			if err != nil {
				return err
			}
			meta.Thanos.Files = append(
				meta.Thanos.Files,
				metadata.File{RelPath: "chunks/" + de.Name(), SizeBytes: fi.Size()},
			)
		}
	}
	if style == 0 {
		fi, err := os.Stat(filepath.Join(dir, "index"))
		if err != nil {
			return err
		}
		meta.Thanos.Files = append(
			meta.Thanos.Files, metadata.File{RelPath: "index", SizeBytes: fi.Size()},
			metadata.File{RelPath: "meta.json"},
		)
	}
	return nil
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
