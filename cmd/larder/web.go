package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/web"
	"larder/store/catalog"
	"larder/store/irregular"
)

// shownBlocks shows the catalog to the pages.
type shownBlocks struct {
	catalog   *catalog.Catalog
	irregular *irregular.Blocks
}

func (s shownBlocks) Document(id ulid.ULID) ([]byte, error) { return s.catalog.Document(id) }

func (s shownBlocks) Snapshot() web.Snapshot {
	view, status := s.catalog.View(), s.catalog.Status()
	snap := web.Snapshot{
		Blocks: make([]web.Block, 0, len(view.Blocks)), FromDisk: view.FromDisk,
		SyncedAt: status.At, CompleteAt: status.LastComplete, Err: status.Err, States: status.States,
	}
	for _, b := range view.Blocks {
		size := b.IndexSize
		for _, f := range b.ChunkFiles {
			size += f.Size
		}
		found, _ := s.irregular.What(b.ID, b.Content)
		snap.Blocks = append(snap.Blocks, web.Block{
			ID: b.ID, MinTime: b.MinTime, MaxTime: b.MaxTime, Resolution: b.Resolution, Labels: b.Labels,
			Level: b.Level, Sources: b.Sources, Series: b.NumSeries, Chunks: b.NumChunks, Size: size,
			Irregular: found,
		})
	}
	for _, b := range status.Broken {
		snap.Broken = append(snap.Broken, web.Broken{ID: b.ID, State: b.State, Err: b.Err})
	}
	return snap
}

// marker writes marks into the bucket.
type marker struct{ bucket catalog.MarkBucket }

func (m marker) Mark(
	ctx context.Context, id ulid.ULID, kind web.Mark, details string,
) (bool, error) {
	k := catalog.MarkDeletion
	if kind == web.MarkNoCompaction {
		k = catalog.MarkNoCompaction
	}
	written, err := catalog.WriteMark(ctx, m.bucket, id, k, details, time.Now())
	if errors.Is(err, catalog.ErrNoBlock) {
		err = fmt.Errorf("block %s: %w", id, web.ErrNoBlock)
	}
	return written, err
}
