package catalog

import (
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Block describes one block of the bucket, as its meta.json does. It is immutable once a view that
// holds it is published.
type Block struct {
	ID ulid.ULID
	// Number is the block's number in this process: below 1<<24, never used for another block.
	Number uint32
	// Meta is a hash of the block's meta.json.
	Meta uint64
	// Content tells what the block holds from what it, or another block, held under its ID before.
	// It is the same in every process that knows the same: a hash of the meta.json, and of the
	// sizes and versions of its files where the bucket was asked for them.
	Content uint64
	// MinTime and MaxTime bound the block's samples, in milliseconds: [MinTime, MaxTime).
	MinTime, MaxTime int64
	// Resolution is 0 for raw samples, else the downsampling window in milliseconds: 300000 or
	// 3600000.
	Resolution int64
	// Labels are the external labels.
	Labels labels.Labels
	// IndexSize is the size of the index object in bytes, 0 while it is not known. It is what
	// meta.json states, until a read shows that it cannot be right.
	IndexSize int64
	// ChunkFiles are the files of the block's chunks/ folder by number, nil while they are not
	// known.
	ChunkFiles []ChunkFile
	// SeriesMaxSize and ChunkMaxSize are the largest series entry and chunk record in bytes, 0
	// where meta.json does not say.
	SeriesMaxSize, ChunkMaxSize int64
	// NumSeries and NumChunks are counts from meta.json's stats, 0 where absent.
	NumSeries, NumChunks uint64
	// Level is the compaction level and Sources the blocks this one was compacted from, itself for
	// an uncompacted one.
	Level   int
	Sources []ulid.ULID
}

// Replaces reports whether b has all the data of o: the same external labels and resolution, and
// all its sources.
func (b *Block) Replaces(o *Block) bool {
	return b.Resolution == o.Resolution && labels.Equal(b.Labels, o.Labels) && b.HasSourcesOf(o)
}

// HasSourcesOf reports whether b was made from all that o was made from.
func (b *Block) HasSourcesOf(o *Block) bool { return containsAll(b.Sources, o.Sources) }

// Sized reports whether the sizes of all files are known, or at least stated.
func (b *Block) Sized() bool {
	return b.IndexSize > 0 && len(b.ChunkFiles) > 0 &&
		!slices.ContainsFunc(b.ChunkFiles, func(f ChunkFile) bool { return f.Size == 0 })
}

// ChunkFile is one file of a block's chunks/ folder. Size is in bytes, 0 while it is not known.
type ChunkFile struct {
	Name string
	Size int64
}
