package layout

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/thanos/pkg/block/metadata"
)

// Plain is a raw block of floats, as Prometheus cuts it and a sidecar uploads it.
type Plain struct {
	External         labels.Labels
	MinTime, MaxTime int64
	// Step is the time between samples in milliseconds; timestamps are multiples of it.
	Step   int64
	Series []labels.Labels
	// Value is the value of a series at a time.
	Value func(series int, t int64) float64
}

// Write writes the block into a bucket's folder, where it appears atomically, and returns its name.
func (p *Plain) Write(ctx context.Context, bucket string) (id ulid.ULID, err error) {
	scratch, err := os.MkdirTemp(filepath.Dir(bucket), "plain-")
	if err != nil {
		return id, err
	}
	defer os.RemoveAll(scratch)
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), scratch, p.MaxTime-p.MinTime)
	if err != nil {
		return id, err
	}
	defer w.Close()
	app := w.Appender(ctx)
	for i, ls := range p.Series {
		for t := (p.MinTime + p.Step - 1) / p.Step * p.Step; t < p.MaxTime; t += p.Step {
			if _, err := app.Append(0, ls, t, p.Value(i, t)); err != nil {
				return id, fmt.Errorf("%s at %d: %w", ls, t, err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		return id, err
	}
	if id, err = w.Flush(ctx); err != nil {
		return id, err
	}
	dir := filepath.Join(scratch, id.String())
	meta, err := metadata.ReadFromDir(dir)
	if err != nil {
		return id, err
	}
	meta.MinTime, meta.MaxTime = p.MinTime, p.MaxTime
	meta.Thanos = metadata.Thanos{
		Version: metadata.ThanosVersion1,
		Labels:  p.External.Map(),
		Source:  metadata.SidecarSource,
	}
	if err := meta.WriteToDir(log.NewNopLogger(), dir); err != nil {
		return id, err
	}
	return id, os.Rename(dir, filepath.Join(bucket, id.String()))
}
