package postings

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// MatcherSet is a set of matchers in canonical order, with its identity. Both are worked out once,
// because every block of a request needs them.
type MatcherSet struct {
	canonical []*labels.Matcher
	identity  []byte
}

// NewMatcherSet returns the set of matchers ms.
func NewMatcherSet(ms []*labels.Matcher) *MatcherSet {
	canonical := Canonical(ms)
	return &MatcherSet{canonical, appendMatchers(nil, canonical)}
}

// Identity returns what identifies the set: see AppendCanonical. It must not be changed.
func (s *MatcherSet) Identity() []byte { return s.identity }

// Hash returns a hash of the set. Two sets may share one.
func (s *MatcherSet) Hash() uint64 { return xxhash.Sum64(s.identity) }

// Canonical returns matchers in canonical order: by name, type and value, each once. Requests for
// the same series have the same canonical matchers. It does not change ms.
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
// length as a uvarint. Different sets never have the same bytes.
func AppendCanonical(dst []byte, ms []*labels.Matcher) []byte {
	return appendMatchers(dst, Canonical(ms))
}

// appendMatchers is AppendCanonical of matchers that are in canonical order.
func appendMatchers(dst []byte, canonical []*labels.Matcher) []byte {
	for _, m := range canonical {
		dst = appendString(appendString(append(dst, byte(m.Type)), m.Name), m.Value)
	}
	return dst
}

// AppendNames appends what identifies a set of label names, whatever their order and repetitions:
// their number as a uvarint, then each of them, sorted, after its length.
func AppendNames(dst []byte, names []string) []byte {
	if len(names) > 1 {
		names = slices.Compact(slices.Sorted(slices.Values(names)))
	}
	dst = binary.AppendUvarint(dst, uint64(len(names)))
	for _, name := range names {
		dst = appendString(dst, name)
	}
	return dst
}

// AppendLabels appends what identifies a set of labels: their number as a uvarint, then each name
// and value after its length.
func AppendLabels(dst []byte, ls labels.Labels) []byte {
	dst = binary.AppendUvarint(dst, uint64(ls.Len()))
	ls.Range(func(l labels.Label) { dst = appendString(appendString(dst, l.Name), l.Value) })
	return dst
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
