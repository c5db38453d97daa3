package web

import (
	"encoding/json"
	"time"

	"github.com/oklog/ulid/v2"
)

// metaJSON is a meta.json with the keys of Thanos's answers, in their order. Fields that are
// missing in the file are filled in or omitted, same as in Thanos.
type metaJSON struct {
	ULID    ulid.ULID `json:"ulid"`
	MinTime int64     `json:"minTime"`
	MaxTime int64     `json:"maxTime"`
	Stats   struct {
		NumSamples          uint64 `json:"numSamples,omitempty"`
		NumFloatSamples     uint64 `json:"numFloatSamples,omitempty"`
		NumHistogramSamples uint64 `json:"numHistogramSamples,omitempty"`
		NumSeries           uint64 `json:"numSeries,omitempty"`
		NumChunks           uint64 `json:"numChunks,omitempty"`
		NumTombstones       uint64 `json:"numTombstones,omitempty"`
	} `json:"stats"`
	Compaction struct {
		Level     int         `json:"level"`
		Sources   []ulid.ULID `json:"sources,omitempty"`
		Deletable bool        `json:"deletable,omitempty"`
		Parents   []struct {
			ULID    ulid.ULID `json:"ulid"`
			MinTime int64     `json:"minTime"`
			MaxTime int64     `json:"maxTime"`
		} `json:"parents,omitempty"`
		Failed bool     `json:"failed,omitempty"`
		Hints  []string `json:"hints,omitempty"`
	} `json:"compaction"`
	Version int        `json:"version"`
	Thanos  thanosJSON `json:"thanos"`
}

type thanosJSON struct {
	Version    int               `json:"version,omitempty"`
	Labels     map[string]string `json:"labels"`
	Downsample struct {
		Resolution int64 `json:"resolution"`
	} `json:"downsample"`
	Source       string   `json:"source"`
	SegmentFiles []string `json:"segment_files,omitempty"`
	Files        []struct {
		RelPath   string `json:"rel_path"`
		SizeBytes int64  `json:"size_bytes,omitempty"`
		Hash      *struct {
			Func  string `json:"hashFunc"`
			Value string `json:"value"`
		} `json:"hash,omitempty"`
	} `json:"files,omitempty"`
	// Rewrites hold matchers and relabel rules. They are passed on unparsed.
	Rewrites   []json.RawMessage `json:"rewrites,omitempty"`
	IndexStats struct {
		SeriesMaxSize int64 `json:"series_max_size,omitempty"`
		ChunkMaxSize  int64 `json:"chunk_max_size,omitempty"`
	} `json:"index_stats"`
	Extensions any       `json:"extensions,omitempty"`
	UploadTime time.Time `json:"upload_time"`
}

// metaOf reads the meta.json of a block. If that fails, it returns the fields that the catalog
// knows, and the error.
func metaOf(source Blocks, b *Block) (metaJSON, error) {
	var m metaJSON
	data, err := source.Document(b.ID)
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		m = metaJSON{ULID: b.ID, MinTime: b.MinTime, MaxTime: b.MaxTime, Version: 1}
		m.Stats.NumSeries, m.Stats.NumChunks = b.Series, b.Chunks
		m.Compaction.Level, m.Compaction.Sources = b.Level, b.Sources
		m.Thanos.Version, m.Thanos.Labels = 1, b.Labels.Map()
		m.Thanos.Downsample.Resolution = b.Resolution
	}
	if m.Thanos.Labels == nil {
		m.Thanos.Labels = map[string]string{}
	}
	return m, err
}
