package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/thanos/pkg/block/metadata"
	"github.com/thanos-io/thanos/pkg/compact/downsample"
)

const (
	FiveMinutes = int64(5 * 60 * 1000)
	OneHour     = int64(60 * 60 * 1000)
)

// Bucket is a folder that is filled with blocks.
type Bucket struct {
	Dir    string
	blocks int
}

// nextID returns block ids that are the same in every run, because the id decides to which shard a
// block belongs.
func (b *Bucket) nextID() (id ulid.ULID, err error) {
	b.blocks++
	if err := id.SetTime(1_690_000_000_000 + uint64(b.blocks)*1000); err != nil {
		return id, err
	}
	return id, id.SetEntropy(fmt.Appendf(nil, "fleet%05d", b.blocks))
}

// Add uploads every block of a TSDB's folder, as the shipper of a server with these external labels
// does, and returns the uploaded blocks by time. The folder keeps its blocks.
func (b *Bucket) Add(from string, external map[string]string) ([]*metadata.Meta, error) {
	dirs, err := filepath.Glob(filepath.Join(from, "*", "meta.json"))
	if err != nil {
		return nil, err
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("no blocks in %s", from)
	}
	var out []*metadata.Meta
	for _, path := range dirs {
		var tm tsdb.BlockMeta
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(raw, &tm); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, &metadata.Meta{BlockMeta: tm, Thanos: metadata.Thanos{
			Version: metadata.ThanosVersion1, Labels: external, Source: metadata.SidecarSource,
		}})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].MinTime < out[j].MinTime })
	for _, m := range out {
		src := filepath.Join(from, m.ULID.String())
		if err := b.put(src, m); err != nil {
			return nil, fmt.Errorf("%s: %w", src, err)
		}
	}
	return out, nil
}

// put copies a block's index and chunks into the bucket under a new id.
func (b *Bucket) put(src string, m *metadata.Meta) error {
	id, err := b.nextID()
	if err != nil {
		return err
	}
	m.ULID, m.Compaction.Sources = id, []ulid.ULID{id}
	dst := filepath.Join(b.Dir, id.String())
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(dst, "chunks"),
		os.DirFS(filepath.Join(src, "chunks"))); err != nil {
		return err
	}
	index, err := os.ReadFile(filepath.Join(src, "index"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dst, "index"), index, 0o644); err != nil {
		return err
	}
	return m.WriteToDir(log.NewNopLogger(), dst)
}

// Downsample adds what a compactor makes of a block: the block at 5 minutes, and at an hour where
// asked.
func (b *Bucket) Downsample(
	ctx context.Context, m *metadata.Meta, scratch string, resolutions ...int64,
) ([]*metadata.Meta, error) {
	var out []*metadata.Meta
	for _, resolution := range resolutions {
		dir := filepath.Join(b.Dir, m.ULID.String())
		blk, err := tsdb.OpenBlock(nil, dir, downsample.NewPool(), nil)
		if err != nil {
			return nil, err
		}
		id, err := downsample.Downsample(ctx, log.NewNopLogger(), m, blk, scratch, resolution)
		if cerr := blk.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return nil, fmt.Errorf("downsample %s to %d ms: %w", m.ULID, resolution, err)
		}
		down := *m
		down.Thanos.Downsample.Resolution = resolution
		if err := b.put(filepath.Join(scratch, id.String()), &down); err != nil {
			return nil, err
		}
		out = append(out, &down)
		m = &down
	}
	return out, nil
}

// Delete removes a block from the bucket, as retention does with raw blocks after downsampling.
func (b *Bucket) Delete(m *metadata.Meta) error {
	return os.RemoveAll(filepath.Join(b.Dir, m.ULID.String()))
}
