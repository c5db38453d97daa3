package layout

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/block/metadata"
)

// Open describes the blocks of a bucket that this package did not write.
func Open(dir string) (*Layout, error) {
	folders, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	l := &Layout{Dir: dir, ReplicaLabel: "replica"}
	for _, f := range folders {
		b := &Block{}
		if b.ID, err = ulid.ParseStrict(f.Name()); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		if err := b.describe(filepath.Join(dir, f.Name())); err != nil {
			return nil, fmt.Errorf("block %s: %w", f.Name(), err)
		}
		l.Blocks = append(l.Blocks, b)
	}
	return l, nil
}

func (b *Block) describe(dir string) error {
	meta, err := metadata.ReadFromDir(dir)
	if err != nil {
		return err
	}
	b.Labels = labels.FromMap(meta.Thanos.Labels)
	b.MinTime, b.MaxTime, b.Resolution = meta.MinTime, meta.MaxTime,
		meta.Thanos.Downsample.Resolution
	b.Sources, b.Source = meta.Compaction.Sources, meta.Thanos.Source
	entries, err := indexedSeries(dir)
	if err != nil {
		return err
	}
	b.setSeries(entries)
	return nil
}

// setSeries sets the block's series to the entries of an index, sorted by labels.
func (b *Block) setSeries(entries []indexed) {
	b.Series = b.Series[:0]
	for _, e := range entries {
		s := Series{Labels: Normal(e.labels), Stored: e.labels}
		for _, m := range e.chunks {
			s.Chunks = append(s.Chunks, Range{m.MinTime, m.MaxTime})
		}
		b.Series = append(b.Series, s)
	}
	slices.SortStableFunc(
		b.Series, func(x, y Series) int { return labels.Compare(x.Labels, y.Labels) },
	)
}
