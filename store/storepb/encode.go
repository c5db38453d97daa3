package storepb

import (
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

// WireChunk is an AggrChunk to be encoded. Callers reuse slices of chunks and parts, because
// encoding neither allocates nor keeps anything.
type WireChunk struct {
	// MinTime and MaxTime are in milliseconds, both inclusive.
	MinTime, MaxTime int64
	// Parts holds one part for raw samples, or one for each aggregate sent, or none. INVARIANT:
	// sorted by Aggr without duplicates, because fields are written in the order of their numbers.
	Parts []WirePart
}

// WirePart is a Chunk to be encoded, and the field of AggrChunk that it goes to.
type WirePart struct {
	// Data is the chunk's payload without its encoding byte. It is read only during the call that
	// encodes it.
	Data []byte
	// Hash is the xxhash64 of Data. Stores of Thanos always send it. 0 omits it.
	Hash uint64
	// Type is a Chunk_Encoding.
	Type byte
	// Aggr is an Aggr: Aggr_RAW for raw samples and histograms.
	Aggr byte
}

// Tags of the fields of a series.
const (
	tagSeriesChunks = 2<<3 | 2 // Series.chunks
	tagMinTime      = 1<<3 | 0 // AggrChunk.min_time
	tagMaxTime      = 2<<3 | 0 // AggrChunk.max_time
	tagRaw          = 3<<3 | 2 // AggrChunk.raw; the aggregates follow in the order of Aggr
	tagChunkType    = 1<<3 | 0 // Chunk.type
	tagChunkData    = 2<<3 | 2 // Chunk.data
	tagChunkHash    = 3<<3 | 0 // Chunk.hash
)

// SeriesSize returns the length in bytes of the Series message with finished labels (see
// AppendLabel) and chunks.
func SeriesSize(labels []byte, chunks []WireChunk) int {
	size, _ := seriesSize(labels, chunks)
	return size
}

// seriesSize returns SeriesSize, and how many of these bytes are AggrChunk messages.
func seriesSize(labels []byte, chunks []WireChunk) (size, ofChunks int) {
	size = len(labels)
	for i := range chunks {
		n := wireChunkSize(&chunks[i])
		ofChunks += n
		size += fieldSize(n)
	}
	return size, ofChunks
}

// AppendSeries appends the Series message with finished labels and chunks. It appends SeriesSize
// bytes, equal to those of proto.Marshal.
func AppendSeries(dst, labels []byte, chunks []WireChunk) []byte {
	dst = append(dst, labels...)
	for i := range chunks {
		c := &chunks[i]
		dst = append(dst, tagSeriesChunks)
		dst = appendVarint(dst, uint64(wireChunkSize(c)))
		if c.MinTime != 0 {
			dst = append(dst, tagMinTime)
			dst = appendVarint(dst, uint64(c.MinTime))
		}
		if c.MaxTime != 0 {
			dst = append(dst, tagMaxTime)
			dst = appendVarint(dst, uint64(c.MaxTime))
		}
		for j := range c.Parts {
			p := &c.Parts[j]
			dst = append(dst, tagRaw+p.Aggr<<3)
			dst = appendVarint(dst, uint64(wirePartSize(p)))
			if p.Type != 0 {
				dst = append(dst, tagChunkType, p.Type)
			}
			if len(p.Data) > 0 {
				dst = append(dst, tagChunkData)
				dst = appendVarint(dst, uint64(len(p.Data)))
				dst = append(dst, p.Data...)
			}
			if p.Hash != 0 {
				dst = append(dst, tagChunkHash)
				dst = appendVarint(dst, p.Hash)
			}
		}
	}
	return dst
}

// wireChunkSize returns the length of the AggrChunk message, without its tag and length.
func wireChunkSize(c *WireChunk) int {
	size := 0
	if c.MinTime != 0 {
		size += 1 + sizeVarint(uint64(c.MinTime))
	}
	if c.MaxTime != 0 {
		size += 1 + sizeVarint(uint64(c.MaxTime))
	}
	for i := range c.Parts {
		size += fieldSize(wirePartSize(&c.Parts[i]))
	}
	return size
}

// wirePartSize returns the length of the Chunk message, without its tag and length.
func wirePartSize(p *WirePart) int {
	size := 0
	if p.Type != 0 {
		size += 2 // INVARIANT: encodings are below 128, therefore the type's varint is one byte.
	}
	if len(p.Data) > 0 {
		size += fieldSize(len(p.Data))
	}
	if p.Hash != 0 {
		size += 1 + sizeVarint(p.Hash)
	}
	return size
}

// fieldSize returns the size of a length-delimited field with n bytes and a number below 16.
func fieldSize(n int) int {
	return 1 + sizeVarint(uint64(n)) + n
}

func sizeVarint(x uint64) int {
	// One byte for every 7 bits, rounded up.
	return (9*bits.Len64(x) + 64) / 64
}

func appendVarint(dst []byte, x uint64) []byte {
	if x < 0x80 {
		return append(dst, byte(x))
	}
	return protowire.AppendVarint(dst, x)
}
