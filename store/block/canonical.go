package block

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Canonical returns the matchers of a request in the one order that all requests for the same
// series share: by name, type and value, each once. It does not change ms.
func Canonical(ms []*labels.Matcher) []*labels.Matcher {
	out := slices.Clone(ms)
	slices.SortFunc(out, compareMatchers)
	return slices.CompactFunc(
		out, func(a, b *labels.Matcher) bool { return compareMatchers(a, b) == 0 },
	)
}

func compareMatchers(a, b *labels.Matcher) int {
	return cmp.Or(
		cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Value, b.Value),
	)
}

// AppendCanonical appends what identifies a set of matchers, whatever their order and repetitions:
// for each of Canonical(ms) its type in one byte, then its name and its value, each after its
// length as an uvarint. Different sets never have the same bytes.
func AppendCanonical(dst []byte, ms []*labels.Matcher) []byte {
	return appendMatchers(dst, Canonical(ms))
}

// appendMatchers is AppendCanonical of matchers that are in canonical order.
func appendMatchers(dst []byte, canonical []*labels.Matcher) []byte {
	for _, m := range canonical {
		dst = appendText(appendText(append(dst, byte(m.Type)), m.Name), m.Value)
	}
	return dst
}

// AppendNames appends what identifies a set of label names, whatever their order and repetitions:
// their number as an uvarint, then each of them, sorted, after its length.
func AppendNames(dst []byte, names []string) []byte {
	if len(names) > 1 {
		names = slices.Compact(slices.Sorted(slices.Values(names)))
	}
	dst = binary.AppendUvarint(dst, uint64(len(names)))
	for _, name := range names {
		dst = appendText(dst, name)
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// matcherSet is the matchers of a plan in canonical order, and what identifies them: worked out
// once, because every block of a request needs it for all that is kept.
type matcherSet struct {
	canonical []*labels.Matcher
	text      []byte // AppendCanonical's
}

func newMatcherSet(ms []*labels.Matcher) *matcherSet {
	canonical := Canonical(ms)
	return &matcherSet{canonical, appendMatchers(nil, canonical)}
}

// hash returns a hash of the set. Two sets may share one.
func (s *matcherSet) hash() uint64 { return xxhash.Sum64(s.text) }
