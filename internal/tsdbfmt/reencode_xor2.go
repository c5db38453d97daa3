package tsdbfmt

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/prometheus/prometheus/model/value"
)

// reencodeXOR2 decodes XOR2 data and encodes the samples as XOR. Prometheus's own iterator is not
// used, because it does not notice the end of cut data: its bit reader loads a last word that is
// too short and continues with zeros. That would turn damage into samples.
func reencodeXOR2(dst, data []byte) ([]byte, error) {
	count := int(binary.BigEndian.Uint16(data))
	in := xor2Reader{
		bitReader:  bitReader{b: data, pos: countFlagSize * 8},
		firstKnown: data[2]&stFirstKnown != 0,
		changeOn:   int(data[2] & stChangeMask),
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(count))
	out := xorWriter{bitWriter: bitWriter{b: dst}}
	for i := range count {
		t, v := in.next(i)
		if in.bad {
			return dst, fmt.Errorf("%w: sample %d of %d", ErrCorrupt, i, count)
		}
		out.append(i, t, v)
	}
	return out.b, nil
}

// xor2Reader decodes the samples of XOR2 data.
type xor2Reader struct {
	bitReader
	firstKnown bool
	changeOn   int

	t, tDelta int64
	// base is the value that differences refer to: the bits of the last value that was no staleness
	// marker.
	base   uint64
	window xorWindow
}

// next decodes sample i. Values are bit patterns.
func (r *xor2Reader) next(i int) (t int64, v uint64) {
	switch i {
	case 0:
		u := r.uvarint()
		r.t = int64(u>>1) ^ -int64(u&1)
		v = r.bits(64)
		if v != value.StaleNaN {
			r.base = v
		}
	case 1:
		r.tDelta = int64(r.uvarint())
		v = r.value()
	default:
		ones := 0
		for ones < 5 && r.bits(1) == 1 {
			ones++
		}
		switch ones {
		case 0:
			v = r.base
		case 1:
			v = r.difference(r.bits(1) == 1)
		case 2:
			r.tDelta += r.signed(13)
			v = r.value()
		case 3:
			r.tDelta += r.signed(20)
			v = r.value()
		case 4:
			r.tDelta += r.signed(64)
			v = r.value()
		default:
			v = value.StaleNaN
		}
	}
	r.t += r.tDelta

	switch {
	case i == 0 && r.firstKnown:
		r.skipVarint()
	case i > 0 && r.changeOn > 0 && i >= r.changeOn:
		r.skipVarbit()
	}
	return r.t, v
}

// value decodes a value that is unchanged, a staleness marker or a difference.
func (r *xor2Reader) value() uint64 {
	if r.bits(1) == 0 {
		return r.base
	}
	if r.bits(1) == 0 {
		return r.difference(false)
	}
	if r.bits(1) == 1 {
		return value.StaleNaN
	}
	return r.difference(true)
}

// difference decodes the difference to the last value. Its significant bits lie in a new window or
// in the last one.
func (r *xor2Reader) difference(newWindow bool) uint64 {
	if newWindow {
		r.window = r.xorWindow()
	}
	r.base ^= r.windowBits(r.window)
	return r.base
}

// signed reads an n-bit number in two's complement.
func (r *xor2Reader) signed(n int) int64 { return int64(r.bits(n)<<(64-n)) >> (64 - n) }

// xorWriter encodes samples as XOR data.
type xorWriter struct {
	bitWriter
	t, tDelta int64
	v         uint64
	window    xorWindow
}

// append encodes sample i.
func (w *xorWriter) append(i int, t int64, v uint64) {
	tDelta := t - w.t
	switch i {
	case 0:
		w.uvarint(uint64(t<<1) ^ uint64(t>>63))
		w.bits(v, 64)
		w.t, w.v = t, v
		return
	case 1:
		w.uvarint(uint64(tDelta))
	default:
		switch dod := tDelta - w.tDelta; {
		case dod == 0:
			w.bits(0, 1)
		case fitsVarbit(dod, 14):
			w.bits(0b10<<14|uint64(dod)&(1<<14-1), 2+14)
		case fitsVarbit(dod, 17):
			w.bits(0b110<<17|uint64(dod)&(1<<17-1), 3+17)
		case fitsVarbit(dod, 20):
			w.bits(0b1110<<20|uint64(dod)&(1<<20-1), 4+20)
		default:
			w.bits(0b1111, 4)
			w.bits(uint64(dod), 64)
		}
	}
	w.difference(i == 1, v^w.v)
	w.t, w.tDelta, w.v = t, tDelta, v
}

// fitsVarbit reports whether n bits can represent v: -(2^(n-1)-1) to 2^(n-1).
func fitsVarbit(v int64, n int) bool {
	return -(1<<(n-1)-1) <= v && v <= 1<<(n-1)
}

// difference encodes a value by its difference to the previous one. The first one has no window to
// reuse.
func (w *xorWriter) difference(first bool, delta uint64) {
	if first {
		w.window = xorWindow{leading: math.MaxUint8}
	}
	if delta == 0 {
		w.bits(0, 1)
		return
	}
	leading := min(uint8(bits.LeadingZeros64(delta)), 31) // five bits
	trailing := uint8(bits.TrailingZeros64(delta))
	if leading >= w.window.leading && trailing >= w.window.trailing {
		w.bits(0b10, 2)
		w.bits(delta>>w.window.trailing, 64-int(w.window.leading)-int(w.window.trailing))
		return
	}
	w.window = xorWindow{leading: leading, trailing: trailing}
	n := 64 - int(leading) - int(trailing)
	w.bits(0b11<<11|uint64(leading)<<6|uint64(n)&0x3f, 2+5+6) // 64 is written as 0
	w.bits(delta>>trailing, n)
}
