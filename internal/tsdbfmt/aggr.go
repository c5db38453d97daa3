package tsdbfmt

import (
	"encoding/binary"
	"fmt"
)

// The data of an aggregate chunk (EncAggr) consists of five parts, in the order count, sum, min,
// max, counter. Each part is
//
//	len <uvarint> | encoding <1b> | data <len bytes>
//
// len is the length of the data alone. An absent part is its length 0 and nothing else.

// Positions of the aggregates in an aggregate chunk.
const (
	AggrCount = iota
	AggrSum
	AggrMin
	AggrMax
	AggrCounter
	NumAggrs
)

// SubChunk is one part of an aggregate chunk. Enc and Data are valid only if Present is true.
type SubChunk struct {
	Enc     byte
	Data    []byte
	Present bool
}

// AggrChunk splits the data of an aggregate chunk into its parts, which alias it. It checks all
// parts, even those that were not requested, so that the result for a damaged chunk does not depend
// on the aggregates of the request.
//
// It ignores bytes after the last part, same as Thanos.
func AggrChunk(data []byte) (sub [NumAggrs]SubChunk, err error) {
	b := data
	for i := range sub {
		n, w := binary.Uvarint(b)
		if w <= 0 {
			return [NumAggrs]SubChunk{}, fmt.Errorf("%w: length of part %d of an aggregate chunk",
				ErrCorrupt, i)
		}
		b = b[w:]
		if n == 0 {
			continue
		}
		if uint64(len(b)) < 1 || n > uint64(len(b))-1 {
			return [NumAggrs]SubChunk{},
				fmt.Errorf("%w: part %d of an aggregate chunk says %d bytes, %d are left",
					ErrCorrupt, i, n, len(b))
		}
		sub[i] = SubChunk{Enc: b[0], Data: b[1 : 1+n : 1+n], Present: true}
		b = b[1+n:]
	}
	return sub, nil
}

// AppendAggrChunk appends the data of an aggregate chunk to dst. A part that is present must have
// data, because length 0 means absent.
func AppendAggrChunk(dst []byte, sub [NumAggrs]SubChunk) []byte {
	for _, s := range sub {
		if !s.Present || len(s.Data) == 0 {
			dst = append(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(s.Data)))
		dst = append(dst, s.Enc)
		dst = append(dst, s.Data...)
	}
	return dst
}
