package storepb

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// Tags of the fields of labels.
const (
	tagSeriesLabels = 1<<3 | 2 // Series.labels
	tagLabelName    = 1<<3 | 2 // Label.name
	tagLabelValue   = 2<<3 | 2 // Label.value
)

// AppendLabel appends one Series.labels field. Labels are *finished* once AppendLabel was called
// for each of them, sorted by name. Finished labels travel from a block's index into a Series
// message unchanged.
//
// An empty name or value is omitted, same as everywhere in proto3.
func AppendLabel[T []byte | string](dst []byte, name, value T) []byte {
	dst = append(dst, tagSeriesLabels)
	dst = appendVarint(dst, uint64(labelSize(len(name), len(value))))
	if len(name) > 0 {
		dst = append(dst, tagLabelName)
		dst = appendVarint(dst, uint64(len(name)))
		dst = append(dst, name...)
	}
	if len(value) > 0 {
		dst = append(dst, tagLabelValue)
		dst = appendVarint(dst, uint64(len(value)))
		dst = append(dst, value...)
	}
	return dst
}

// LabelSize returns the number of bytes that AppendLabel appends.
func LabelSize[T []byte | string](name, value T) int {
	return fieldSize(labelSize(len(name), len(value)))
}

// labelSize returns the length of the Label message, without its tag and length.
func labelSize(name, value int) int {
	size := 0
	if name > 0 {
		size += fieldSize(name)
	}
	if value > 0 {
		size += fieldSize(value)
	}
	return size
}

// NextLabel splits the first label off finished labels. The results alias labels. ok is false if no
// label is left, and for bytes that are not finished labels.
func NextLabel(labels []byte) (name, value, rest []byte, ok bool) {
	if len(labels) < 2 || labels[0] != tagSeriesLabels {
		return nil, nil, nil, false
	}
	body, rest, ok := cutBytes(labels[1:])
	if !ok {
		return nil, nil, nil, false
	}
	if len(body) > 0 && body[0] == tagLabelName {
		if name, body, ok = cutBytes(body[1:]); !ok {
			return nil, nil, nil, false
		}
	}
	if len(body) > 0 && body[0] == tagLabelValue {
		if value, body, ok = cutBytes(body[1:]); !ok {
			return nil, nil, nil, false
		}
	}
	return name, value, rest, len(body) == 0
}

// cutBytes splits b after the length-prefixed bytes at its start.
func cutBytes(b []byte) (data, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 {
		// Fast path: nearly every name, value and label is shorter than 128 bytes.
		n := int(b[0])
		if b = b[1:]; n > len(b) {
			return nil, nil, false
		}
		return b[:n:n], b[n:], true
	}
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	b = b[w:]
	return b[:n:n], b[n:], true
}

// CompareLabels compares two finished label sets in the order of Prometheus's labels.Compare. The
// first name or value that differs decides; a set that is a prefix of the other comes first.
//
// It cannot compare bytes to find the order, because a length prefix would decide before the text
// behind it. It does compare bytes to skip equal labels. This makes it fast on sorted series,
// because neighbours share most labels.
func CompareLabels(a, b []byte) int {
	d := commonPrefix(a, b)
	if d == len(a) && d == len(b) {
		return 0
	}
	// Labels that end before the first difference are equal. Skip them by their lengths.
	pos := 0
	for {
		end := labelEnd(a, pos)
		if end > d || end <= pos {
			break
		}
		pos = end
	}
	a, b = a[pos:], b[pos:]
	for {
		an, av, ar, aok := NextLabel(a)
		bn, bv, br, bok := NextLabel(b)
		if !aok || !bok {
			// INVARIANT: NextLabel fails on finished labels only at their end.
			switch {
			case aok:
				return 1
			case bok:
				return -1
			}
			return 0
		}
		if c := bytes.Compare(an, bn); c != 0 {
			return c
		}
		if c := bytes.Compare(av, bv); c != 0 {
			return c
		}
		a, b = ar, br
	}
}

// labelEnd returns where the label at pos ends, or pos if there is none.
func labelEnd(labels []byte, pos int) int {
	if pos+2 > len(labels) {
		return pos
	}
	if n := labels[pos+1]; n < 0x80 {
		return pos + 2 + int(n)
	}
	n, w := binary.Uvarint(labels[pos+1:])
	if w <= 0 || n > uint64(len(labels)) {
		return pos
	}
	return pos + 1 + w + int(n)
}

// commonPrefix returns the number of leading bytes that a and b share.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	a, b = a[:n], b[:n]
	i := 0
	for i+64 <= n && bytes.Equal(a[i:i+64], b[i:i+64]) {
		i += 64 // Fast path: the runtime compares with vector instructions.
	}
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for ; i < n; i++ {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
