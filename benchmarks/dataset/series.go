package dataset

import (
	"iter"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Series is one series of a Source.
type Series struct {
	// Labels of the series, without external labels.
	Labels labels.Labels
	// Kind selects the behaviour of its values.
	Kind Kind
	// Seed determines its values. Series with the same Seed move together.
	Seed uint64
	// Share is the part of Seed's count that belongs to this series, for the buckets of a classic
	// histogram. 0 = 1.
	Share float64
	// Target is the scraped target: series of one target have the same timestamps.
	Target uint64
	// From and To are the life of the series in milliseconds: [From, To). To = 0: no end. A life
	// that ends within a block ends with a staleness marker.
	From, To int64
}

// Source lists the possible series of a block, in the order of labels.Compare, always the same.
type Source interface {
	Series() iter.Seq[Series]
}

// list is a Source in memory.
type list []Series

func (l list) Series() iter.Seq[Series] { return slices.Values(l) }

// newList sorts series into a Source. Of equal label sets it keeps the first.
func newList(series []Series) Source {
	slices.SortStableFunc(
		series, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
	return list(
		slices.CompactFunc(
			series, func(a, b Series) bool { return labels.Equal(a.Labels, b.Labels) }))
}

// Concat returns a source of the series of all given sources.
func Concat(sources ...Source) Source {
	var all []Series
	for _, src := range sources {
		all = slices.AppendSeq(all, src.Series())
	}
	return newList(all)
}

// dim is one label of a product: n values in ascending order for given digits of the previous
// dimensions.
type dim struct {
	name  string
	n     int
	value func(digits []int) string // digits up to and including this dimension's
}

// product is a Source that stores no series: every combination of the values of its dimensions. The
// dimensions are sorted by name, so that counting them up gives the order of label sets.
type product struct {
	kind   Kind
	seed   uint64
	target int // the dimension whose digit is the target
	dims   []dim
}

func (p *product) Series() iter.Seq[Series] {
	return func(yield func(Series) bool) {
		var (
			digits = make([]int, len(p.dims))
			values = make([]string, len(p.dims))
			b      labels.ScratchBuilder
			n      uint64
			from   = 0 // the first dimension whose value is out of date
		)
		for {
			for i := from; i < len(p.dims); i++ {
				values[i] = p.dims[i].value(digits[:i+1])
			}
			b.Reset()
			for i, d := range p.dims {
				b.Add(d.name, values[i])
			}
			s := Series{Labels: b.Labels(), Kind: p.kind, Seed: mix(p.seed ^ n),
				Target: uint64(digits[p.target])}
			if !yield(s) {
				return
			}
			n++
			from = len(p.dims) - 1
			for from >= 0 && digits[from] == p.dims[from].n-1 {
				digits[from] = 0
				from--
			}
			if from < 0 {
				return
			}
			digits[from]++
		}
	}
}

// fixed returns a dimension with one value.
func fixed(name, value string) dim {
	return dim{name, 1, func([]int) string { return value }}
}

// oneOf returns a dimension with the given values, which must ascend.
func oneOf(name string, values ...string) dim {
	return dim{name, len(values), func(d []int) string { return values[d[len(d)-1]] }}
}

// follows returns a dimension whose one value depends on the digit of dimension i.
func follows(name string, i int, value func(digit int) string) dim {
	return dim{name, 1, func(d []int) string { return value(d[i]) }}
}

// labelSeed derives a seed from label values, without the label of one name.
func labelSeed(seed uint64, ls labels.Labels, without string) uint64 {
	h := xxhash.New()
	ls.Range(func(l labels.Label) {
		if l.Name == without {
			return
		}
		_, _ = h.WriteString(l.Name) // a hash never fails
		_, _ = h.Write([]byte{0xff})
		_, _ = h.WriteString(l.Value)
		_, _ = h.Write([]byte{0xff})
	})
	return mix(seed ^ h.Sum64())
}
