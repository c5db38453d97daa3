package block

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Canonical returns the matchers of a request in the one order that all requests for the same series share: by name, type and value, each
// once. It does not change ms.
func Canonical(ms []*labels.Matcher) []*labels.Matcher {
	out := slices.Clone(ms)
	slices.SortFunc(out, compareMatchers)
	return slices.CompactFunc(out, func(a, b *labels.Matcher) bool { return compareMatchers(a, b) == 0 })
}

func compareMatchers(a, b *labels.Matcher) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Value, b.Value))
}

// AppendCanonical appends what identifies a set of matchers, whatever their order and repetitions: for each of Canonical(ms) its type in
// one byte, then its name and its value, each after its length as an uvarint. Different sets never have the same bytes.
func AppendCanonical(dst []byte, ms []*labels.Matcher) []byte {
	for _, m := range Canonical(ms) {
		dst = append(dst, byte(m.Type))
		dst = binary.AppendUvarint(dst, uint64(len(m.Name)))
		dst = append(dst, m.Name...)
		dst = binary.AppendUvarint(dst, uint64(len(m.Value)))
		dst = append(dst, m.Value...)
	}
	return dst
}

// matchersKey hashes a set of matchers. Two sets may share a hash.
func matchersKey(ms []*labels.Matcher) uint64 { return xxhash.Sum64(AppendCanonical(nil, ms)) }
