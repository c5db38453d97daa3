package dataset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/index"

	"larder/internal/tsdbfmt"
)

// Meta is a block's meta.json: Prometheus's fields and Thanos's section.
type Meta struct {
	tsdb.BlockMeta
	Thanos Thanos `json:"thanos"`
}

// Thanos is the section that Thanos adds to meta.json.
type Thanos struct {
	Version    int               `json:"version"`
	Labels     map[string]string `json:"labels"`
	Downsample struct {
		Resolution int64 `json:"resolution"`
	} `json:"downsample"`
	Source       string     `json:"source"`
	SegmentFiles []string   `json:"segment_files,omitempty"`
	Files        []File     `json:"files,omitempty"`
	IndexStats   IndexStats `json:"index_stats"`
	UploadTime   time.Time  `json:"upload_time"`
}

// File is an object of the block. meta.json has no size, because it cannot contain its own.
type File struct {
	RelPath   string `json:"rel_path"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
}

// IndexStats are estimates that only the compactor writes.
type IndexStats struct {
	SeriesMaxSize int64 `json:"series_max_size,omitempty"`
	ChunkMaxSize  int64 `json:"chunk_max_size,omitempty"`
}

// uploadDelay is how long after its last sample a block reached the bucket.
const uploadDelay = 10 * time.Minute

func (b *Block) writeMeta(blockDir string, stats tsdb.BlockStats, chunkMax int64) (*Meta, error) {
	m := &Meta{BlockMeta: tsdb.BlockMeta{
		ULID: b.ID, MinTime: b.MinTime, MaxTime: b.MaxTime, Version: 1, Stats: stats,
		Compaction: tsdb.BlockMetaCompaction{Level: max(b.Level, 1), Sources: b.Sources},
	}}
	if b.Sources == nil {
		m.Compaction.Sources = []ulid.ULID{b.ID}
	}
	m.Thanos.Version = 1
	m.Thanos.Labels = b.Labels.Map()
	m.Thanos.Downsample.Resolution = b.Resolution
	m.Thanos.Source = "sidecar"
	m.Thanos.UploadTime = time.UnixMilli(b.MaxTime).Add(uploadDelay).UTC()
	if b.Level > 1 || b.Resolution != 0 {
		m.Thanos.Source = "compactor"
		largest, err := largestSeries(filepath.Join(blockDir, "index"))
		if err != nil {
			return nil, err
		}
		m.Thanos.IndexStats = IndexStats{SeriesMaxSize: largest, ChunkMaxSize: chunkMax}
	}

	entries, err := os.ReadDir(filepath.Join(blockDir, "chunks"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		m.Thanos.SegmentFiles = append(m.Thanos.SegmentFiles, e.Name())
		m.Thanos.Files = append(m.Thanos.Files,
			File{RelPath: "chunks/" + e.Name(), SizeBytes: info.Size()})
	}
	info, err := os.Stat(filepath.Join(blockDir, "index"))
	if err != nil {
		return nil, err
	}
	m.Thanos.Files = append(m.Thanos.Files, File{RelPath: "index", SizeBytes: info.Size()},
		File{RelPath: "meta.json"})
	return m, writeMetaFile(blockDir, m)
}

func writeMetaFile(blockDir string, m *Meta) error {
	data, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(blockDir, "meta.json"), data, 0o666)
}

// ReadMeta reads the meta.json in a block's folder.
func ReadMeta(blockDir string) (*Meta, error) {
	data, err := os.ReadFile(filepath.Join(blockDir, "meta.json"))
	if err != nil {
		return nil, err
	}
	m := new(Meta)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(blockDir, "meta.json"), err)
	}
	return m, nil
}

// largestSeries returns what the compactor writes as the size of the largest series entry: the
// largest distance between two entries.
func largestSeries(path string) (size int64, err error) {
	r, err := index.NewFileReader(path, index.DecodePostingsRaw)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	name, val := index.AllPostingsKey()
	p, err := r.Postings(context.Background(), name, val)
	if err != nil {
		return 0, err
	}
	var last int64
	for p.Next() {
		at := int64(p.At()) * tsdbfmt.SeriesAlign
		if last != 0 {
			size = max(size, at-last)
		}
		last = at
	}
	return size, p.Err()
}
