package tsdbfmt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// A chunk record of a file in a block's chunks/ folder is
//
//	len <uvarint> | encoding <1b> | data <len bytes> | crc32c(encoding, data) <4b>
//
// len is the length of the data alone. Records follow an 8-byte file header without gaps. A file
// may be longer than its records, because it is preallocated and truncated only when it is closed
// cleanly.

// ChunkFileHeader is the number of bytes before the first record of a chunk file.
const ChunkFileHeader = 8

// EncAggr is the encoding byte of a Thanos aggregate chunk. It is the highest byte, so that it does
// not clash with an encoding of Prometheus.
const EncAggr byte = 0xff

// maxChunkData is the maximum length of a chunk's data. Prometheus cuts float chunks at 1 KiB and
// histogram chunks near it. A single histogram may be larger, and Thanos's downsampling joins five
// chunks. A longer length is corruption, and never a reason to read.
const maxChunkData = 64 << 20

// ChunkRecordSize returns the size of a whole chunk record from its first bytes. It returns
// ErrShort if the length prefix is cut, and ErrCorrupt if the prefix is not a valid length.
func ChunkRecordSize(b []byte) (size int, err error) {
	// Fast path: nearly every chunk's length takes two bytes.
	if len(b) >= 2 && b[0] >= 0x80 && b[1] < 0x80 {
		return 2 + 1 + (int(b[0]&0x7f) | int(b[1])<<7) + crc32.Size, nil
	}
	n, w := binary.Uvarint(b)
	switch {
	case w == 0 && len(b) < binary.MaxVarintLen64:
		return 0, fmt.Errorf("chunk record length: %w", ErrShort)
	case w <= 0:
		return 0, fmt.Errorf("%w: chunk record length is no varint", ErrCorrupt)
	case n > maxChunkData:
		return 0, fmt.Errorf("%w: chunk record of %d bytes", ErrCorrupt, n)
	}
	return w + 1 + int(n) + crc32.Size, nil
}

// ChunkRecord verifies the checksum of b, which is exactly one record, and returns its encoding and
// data. The data aliases b.
func ChunkRecord(b []byte) (enc byte, data []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > maxChunkData || w+1+int(n)+crc32.Size != len(b) {
		return 0, nil, fmt.Errorf("%w: chunk record does not have the length of its %d bytes",
			ErrCorrupt, len(b))
	}
	end := len(b) - crc32.Size
	want := binary.BigEndian.Uint32(b[end:])
	if got := crc32.Checksum(b[w:end], castagnoli); got != want {
		return 0, nil, fmt.Errorf("%w: chunk record of %d bytes has %08x, stored is %08x",
			ErrChecksum, len(b), got, want)
	}
	return b[w], b[w+1 : end : end], nil
}

// AppendChunkRecord appends the record of a chunk to dst.
func AppendChunkRecord(dst []byte, enc byte, data []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(data)))
	body := len(dst)
	dst = append(dst, enc)
	dst = append(dst, data...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[body:], castagnoli))
}

// WireEncoding returns the encoding in which a chunk of encoding enc is sent: XOR, Histogram or
// FloatHistogram (1, 2, 3 as stored; the StoreAPI's enum is one less). If reencode is true, the
// data must go through Reencode first. An aggregate chunk has no wire encoding of its own; its
// parts have. The switch is total, so that an unknown encoding is an error and never mistaken for
// another.
func WireEncoding(enc byte) (wireEnc byte, reencode bool, err error) {
	switch chunkenc.Encoding(enc) {
	case chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		return enc, false, nil
	case chunkenc.EncXOR2:
		return byte(chunkenc.EncXOR), true, nil
	case chunkenc.EncHistogramST:
		return byte(chunkenc.EncHistogram), true, nil
	case chunkenc.EncFloatHistogramST:
		return byte(chunkenc.EncFloatHistogram), true, nil
	case chunkenc.EncNone:
	}
	return 0, false, &UnknownEncodingError{Enc: enc}
}
