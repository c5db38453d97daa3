package tsdbfmt

import "encoding/binary"

// bitReader reads a byte slice bit by bit, most significant bit first. Its error is sticky: after
// the first read past the end, bad is set, every read returns 0 and pos stays at the end. A decoder
// therefore checks once per sample.
type bitReader struct {
	b   []byte
	pos int // in bits
	bad bool
}

func (r *bitReader) left() int { return len(r.b)*8 - r.pos }

// bits reads n <= 64 bits.
func (r *bitReader) bits(n int) uint64 {
	if n == 0 {
		return 0
	}
	if r.left() < n {
		r.bad, r.pos = true, len(r.b)*8
		return 0
	}
	i, off := r.pos>>3, r.pos&7
	r.pos += n
	b := r.b[i:]
	if len(b) < 9 {
		var tail [9]byte
		copy(tail[:], b)
		b = tail[:]
	}
	return (binary.BigEndian.Uint64(b)<<off | uint64(b[8])>>(8-off)) >> (64 - n)
}

// skip skips n bits.
func (r *bitReader) skip(n int) {
	if n < 0 || r.left() < n {
		r.bad, r.pos = true, len(r.b)*8
		return
	}
	r.pos += n
}

// varbitSize[k] is the number of value bits after a varbit prefix of k ones.
var varbitSize = [9]int{0, 3, 6, 9, 12, 18, 25, 56, 64}

// varbit reads the prefix of a varbit number and returns the number of its value bits. The prefix
// is up to eight ones followed by a zero, which is omitted after the eighth.
func (r *bitReader) varbit() int {
	ones := 0
	for ones < 8 && r.bits(1) == 1 {
		ones++
	}
	return varbitSize[ones]
}

// varbitUint reads an unsigned varbit number.
func (r *bitReader) varbitUint() uint64 { return r.bits(r.varbit()) }

// varbitInt reads a signed varbit number. Its values range from -(2^(n-1)-1) to 2^(n-1): one more
// at the top than two's complement.
func (r *bitReader) varbitInt() int64 {
	n := r.varbit()
	v := r.bits(n)
	if n > 0 && n < 64 && v > 1<<(n-1) {
		v -= 1 << n
	}
	return int64(v)
}

// skipVarbit skips a varbit number, signed or unsigned.
func (r *bitReader) skipVarbit() { r.skip(r.varbit()) }

// uvarint reads a varint of whole bytes, not necessarily aligned.
func (r *bitReader) uvarint() (v uint64) {
	for shift := 0; shift < 7*binary.MaxVarintLen64; shift += 7 {
		b := r.bits(8)
		v |= b & 0x7f << shift
		if b < 0x80 {
			return v
		}
	}
	r.bad = true
	return 0
}

// skipVarint skips a varint of whole bytes.
func (r *bitReader) skipVarint() { r.uvarint() }

// xorWindow is the position of the significant bits in the last difference of a XOR-encoded float.
type xorWindow struct {
	leading, trailing uint8
}

// xorDelta reads the difference of a XOR-encoded float to the previous value.
func (r *bitReader) xorDelta(w *xorWindow) uint64 {
	if r.bits(1) == 0 {
		return 0
	}
	if r.bits(1) == 1 {
		*w = r.xorWindow()
	}
	return r.windowBits(*w)
}

// xorWindow reads a window.
func (r *bitReader) xorWindow() xorWindow {
	leading, n := int(r.bits(5)), int(r.bits(6))
	if n == 0 { // 64 does not fit into 6 bits, and no bits at all are no difference.
		n = 64
	}
	if leading+n > 64 {
		r.bad = true
		return xorWindow{}
	}
	return xorWindow{leading: uint8(leading), trailing: uint8(64 - leading - n)}
}

// windowBits reads the bits in a window.
func (r *bitReader) windowBits(w xorWindow) uint64 {
	return r.bits(64-int(w.leading)-int(w.trailing)) << w.trailing
}

// bitWriter appends bits to a byte slice, most significant bit first. Bits of the last byte that
// were not written are 0.
type bitWriter struct {
	b    []byte
	free int // unwritten bits of the last byte
}

// bits appends the lowest n <= 64 bits of v. The other bits of v must be 0.
func (w *bitWriter) bits(v uint64, n int) {
	if w.free > 0 {
		if n <= w.free {
			w.free -= n
			w.b[len(w.b)-1] |= byte(v << w.free)
			return
		}
		n -= w.free
		w.b[len(w.b)-1] |= byte(v >> n)
		w.free = 0
	}
	v <<= 64 - n
	for ; n >= 8; n -= 8 {
		w.b = append(w.b, byte(v>>56))
		v <<= 8
	}
	if n > 0 {
		w.b = append(w.b, byte(v>>56))
		w.free = 8 - n
	}
}

// copyRange appends the bits [from, to) of src, which must lie within it.
func (w *bitWriter) copyRange(src []byte, from, to int) {
	if w.free == 0 && from&7 == 0 {
		whole := (to - from) >> 3
		w.b = append(w.b, src[from>>3:from>>3+whole]...)
		from += whole * 8
	}
	r := bitReader{b: src, pos: from}
	for r.pos < to {
		n := min(64, to-r.pos)
		w.bits(r.bits(n), n)
	}
}

// uvarint appends a varint of whole bytes, not necessarily aligned.
func (w *bitWriter) uvarint(v uint64) {
	for ; v >= 0x80; v >>= 7 {
		w.bits(v&0x7f|0x80, 8)
	}
	w.bits(v, 8)
}
