package tsdbfmt

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// The StoreAPI has three chunk encodings: XOR, histogram, float histogram. Prometheus also writes
// XOR2 and histograms with start timestamps. Reencode converts these to the first kind, and drops
// the start timestamps.
//
// A histogram chunk with start timestamps equals one without them, bit for bit, with two
// differences. The counter reset header is in the two top bits of the sample count instead of the
// third byte, and the bits of a sample may be followed by those of its start timestamp. Therefore
// the chunk is copied without these bits, and not decoded and encoded again. Every sample stays in
// its chunk with its layout and header; an appender could decide that a sample needs a new chunk,
// another bucket layout or another reset hint.

// Sizes of a chunk's head: the sample count, and one byte for the counter reset header or the start
// timestamps.
const (
	countSize     = 2
	countFlagSize = countSize + 1
)

// Reencode appends the samples of a chunk to dst in the encoding that WireEncoding returns for enc,
// with the same bit patterns and counter reset header. It is deterministic. Data that needs no
// re-encoding is appended unchanged. data must not alias dst.
func Reencode(dst []byte, enc byte, data []byte) (wireEnc byte, out []byte, err error) {
	wireEnc, reencode, err := WireEncoding(enc)
	if err != nil {
		return 0, dst, err
	}
	if !reencode {
		return wireEnc, append(dst, data...), nil
	}
	if len(data) < countFlagSize {
		return 0, dst, fmt.Errorf("%w: %s chunk of %d bytes", ErrCorrupt, chunkenc.Encoding(enc),
			len(data))
	}
	if chunkenc.Encoding(enc) == chunkenc.EncXOR2 {
		out, err = reencodeXOR2(dst, data)
	} else {
		out, err = cutStartTimes(dst, data, chunkenc.Encoding(enc) == chunkenc.EncFloatHistogramST)
	}
	if err != nil {
		return 0, dst, fmt.Errorf("%s chunk: %w", chunkenc.Encoding(enc), err)
	}
	return wireEnc, out, nil
}

// The head of a chunk with start timestamps.
const (
	// Bits of the first two bytes of a histogram chunk. The two bits above are the counter reset
	// header.
	stCountMask  = 1<<14 - 1
	stFirstKnown = 0x80 // of the third byte: the first sample has a start timestamp
	// Bits of the third byte: the first sample whose start timestamp changes, 0 for none.
	stChangeMask = 0x7f
)

// cutStartTimes copies a histogram chunk without its start timestamps.
func cutStartTimes(dst, data []byte, float bool) ([]byte, error) {
	head := binary.BigEndian.Uint16(data)
	count := int(head & stCountMask)
	firstKnown, changeOn := data[2]&stFirstKnown != 0, int(data[2]&stChangeMask)

	dst = binary.BigEndian.AppendUint16(dst, uint16(count))
	dst = append(dst, byte(head>>8)&chunkenc.CounterResetHeaderMask)

	var (
		w = bitWriter{b: dst}
		s = sampleSkipper{bitReader: bitReader{b: data, pos: countFlagSize * 8}, float: float}
		// INVARIANT: bits of [copied, s.pos) belong to samples and are not copied yet.
		copied = s.pos
	)
	for i := range count {
		if i == 0 {
			if err := s.first(); err != nil {
				return dst, err
			}
		} else {
			s.next()
		}
		end := s.pos
		switch {
		case i == 0 && firstKnown:
			s.skipVarint()
		case i > 0 && changeOn > 0 && i >= changeOn:
			s.skipVarbit()
		}
		if s.bad {
			return dst, fmt.Errorf("%w: sample %d of %d", ErrCorrupt, i, count)
		}
		if s.pos != end {
			w.copyRange(data, copied, end)
			copied = s.pos
		}
	}
	w.copyRange(data, copied, s.pos)
	return w.b, nil
}

// sampleSkipper finds the ends of the samples in a histogram chunk. It decodes only what it needs
// for that: the sum, because a staleness marker in it means that no buckets follow.
type sampleSkipper struct {
	bitReader
	float bool

	buckets   int
	sum       uint64
	sumWindow xorWindow
	// windows of the count, the zero count and the buckets of a float histogram.
	windows []xorWindow
}

// first skips the layout and the first sample.
func (s *sampleSkipper) first() error {
	if s.bits(8) == 255 { // the zero threshold is no small power of two
		s.skip(64)
	}
	schema := s.varbitInt()
	if s.bad || schema != int64(int32(schema)) || !histogram.IsKnownSchema(int32(schema)) {
		return fmt.Errorf("%w: histogram schema %d", ErrCorrupt, schema)
	}
	buckets := s.spans() + s.spans()
	if histogram.IsCustomBucketsSchema(int32(schema)) {
		for range s.count() {
			if s.varbitUint() == 0 {
				s.skip(64)
			}
			if s.bad {
				break
			}
		}
	}

	s.skipVarbit() // timestamp
	if s.float {
		s.skip(2 * 64)
	} else {
		s.skipVarbit()
		s.skipVarbit()
	}
	s.sum = s.bits(64)

	perBucket := 1
	if s.float {
		perBucket = 64
	}
	if s.bad || buckets > uint64(s.left()/perBucket) {
		return fmt.Errorf("%w: %d buckets in a histogram chunk of %d bytes", ErrCorrupt, buckets,
			len(s.b))
	}
	s.buckets = int(buckets)
	if s.float {
		s.windows = make([]xorWindow, 2+s.buckets)
		s.skip(s.buckets * 64)
		return nil
	}
	for range s.buckets {
		s.skipVarbit()
	}
	return nil
}

// next skips a sample that is not the first.
func (s *sampleSkipper) next() {
	s.skipVarbit() // timestamp
	if s.float {
		s.xorDelta(&s.windows[0])
		s.xorDelta(&s.windows[1])
	} else {
		s.skipVarbit()
		s.skipVarbit()
	}
	s.sum ^= s.xorDelta(&s.sumWindow)
	if s.bad || value.IsStaleNaN(math.Float64frombits(s.sum)) {
		return
	}
	if s.float {
		for i := range s.windows[2:] {
			s.xorDelta(&s.windows[2+i])
		}
		return
	}
	for range s.buckets {
		s.skipVarbit()
	}
}

// count reads the length of a list whose entries take at least one bit each.
func (s *sampleSkipper) count() uint64 {
	n := s.varbitUint()
	if n > uint64(s.left()) {
		s.bad = true
		return 0
	}
	return n
}

// spans skips a list of spans and returns the number of their buckets.
func (s *sampleSkipper) spans() (buckets uint64) {
	for range s.count() {
		length := s.varbitUint()
		s.skipVarbit() // offset
		if s.bad || length > math.MaxUint32 {
			s.bad = true
			return 0
		}
		buckets += length
	}
	return buckets
}
