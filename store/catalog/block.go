package catalog

import (
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Block describes one block of the bucket by its meta.json. It is immutable once a view has it.
type Block struct {
	ID ulid.ULID
	// Number is the block's number in this process, at most MaxNumber and never used for another
	// block (see numbers for the exception).
	Number uint32
	// Meta is a hash of the block's meta.json.
	Meta uint64
	// Content identifies the content of the block among all contents under its ID. It is a hash of
	// the meta.json, and of the sizes and versions of the files if they were measured. Processes
	// that know the same compute the same hash.
	Content uint64
	// MinTime and MaxTime bound the block's samples, in milliseconds: [MinTime, MaxTime).
	MinTime, MaxTime int64
	// Resolution is 0 for raw samples, else the downsampling window in milliseconds: 300000 or
	// 3600000.
	Resolution int64
	// Labels are the external labels.
	Labels labels.Labels
	// IndexSize is the size of the index object in bytes, 0 if it is unknown. It comes from
	// meta.json until a measurement replaces it.
	IndexSize int64
	// ChunkFiles are the files of the block's chunks/ folder by number, nil if they are unknown.
	ChunkFiles []ChunkFile
	// SeriesMaxSize and ChunkMaxSize are the largest series entry and chunk record in bytes, 0
	// if meta.json does not state them.
	SeriesMaxSize, ChunkMaxSize int64
	// NumSeries and NumChunks are counts from meta.json's stats, 0 where absent.
	NumSeries, NumChunks uint64
	// Level is the compaction level. Sources are the blocks that this one was compacted from, or
	// the block itself if it was not.
	Level   int
	Sources []ulid.ULID
}

// Replaces reports whether b has all the data of o: the same external labels and resolution, and
// all its sources.
func (b *Block) Replaces(o *Block) bool {
	return b.Resolution == o.Resolution && labels.Equal(b.Labels, o.Labels) && b.HasSourcesOf(o)
}

// HasSourcesOf reports whether b has all sources of o.
func (b *Block) HasSourcesOf(o *Block) bool { return containsAll(b.Sources, o.Sources) }

// Sized reports whether the sizes of all files are known, measured or from meta.json.
func (b *Block) Sized() bool {
	return b.IndexSize > 0 && len(b.ChunkFiles) > 0 &&
		!slices.ContainsFunc(b.ChunkFiles, func(f ChunkFile) bool { return f.Size == 0 })
}

// ChunkFile is one file of a block's chunks/ folder. Size is in bytes, 0 if it is unknown.
type ChunkFile struct {
	Name string
	Size int64
}
