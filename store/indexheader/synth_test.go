package indexheader

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"
)

// synthIndex returns an index of format V2 with one label of n values and without series. It has
// only the tables that headers are built from, and space for the lists, because Prometheus's writer
// would need minutes for a million values.
func synthIndex(t testing.TB, n int) []byte {
	t.Helper()
	be := binary.BigEndian
	sum := func(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
	str := func(b []byte, s string) []byte {
		return append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	values := make([]string, n)
	for i := range values {
		// Sorted and similar to pod names: long common prefixes, random ends.
		values[i] = fmt.Sprintf(
			"deployment-%04d-%02x-%08x", i/1000, i/100%10,
			uint32(i%100)<<24+uint32(i)*2654435761>>8,
		)
	}
	b := []byte{0xba, 0xaa, 0xd7, 0x00, 2}
	var toc [6]uint64

	toc[0] = uint64(len(b))
	start := len(b)
	b = be.AppendUint32(be.AppendUint32(b, 0), uint32(n+3))
	b = str(b, "__name__")
	for _, v := range values {
		b = str(b, v)
	}
	b = str(str(b, "pod"), "up")
	be.PutUint32(b[start:], uint32(len(b)-start-4))
	b = be.AppendUint32(b, sum(b[start+4:]))

	toc[1], toc[2] = uint64(len(b)), uint64(len(b))
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	toc[4] = uint64(len(b))
	list := len(b)
	lists := make([]byte, 16*(n+2)) // each with space for one series
	b = append(b, lists...)

	toc[3], toc[5] = uint64(len(b)), uint64(len(b))
	start = len(b)
	b = be.AppendUint32(be.AppendUint32(b, 0), uint32(n+2))
	entry := func(name, value string) {
		b = str(str(append(b, 2), name), value)
		b = binary.AppendUvarint(b, uint64(list))
		list += 16
	}
	entry("", "")
	entry("__name__", "up")
	for _, v := range values {
		entry("pod", v)
	}
	be.PutUint32(b[start:], uint32(len(b)-start-4))
	b = be.AppendUint32(b, sum(b[start+4:]))

	start = len(b)
	for _, o := range toc {
		b = be.AppendUint64(b, o)
	}
	return be.AppendUint32(b, sum(b[start:]))
}
