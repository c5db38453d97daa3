package tsdbfmt

import (
	"encoding/binary"
	"fmt"
)

// The data of an aggregate chunk (EncAggr) is five parts, in the order count, sum, min, max,
// counter, each
//
//	len <uvarint> | encoding <1b> | data <len bytes>
//
// where len counts the data alone. A part that is absent is its length 0 and nothing else.

// The places of the aggregates in an aggregate chunk.
const (
	AggrCount = iota
	AggrSum
	AggrMin
	AggrMax
	AggrCounter
	NumAggrs
)

// SubChunk is one part of an aggregate chunk. Enc and Data mean nothing where Present is false.
type SubChunk struct {
	Enc     byte
	Data    []byte
	Present bool
}

// AggrChunk splits the data of an aggregate chunk into its parts, which alias it. All parts are
// checked, asked for or not: the bytes of a damaged chunk must not depend on the aggregates of the
// request.
//
// Bytes after the last part are tolerated, as they are by Thanos.
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
// data: length 0 says absent.
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
