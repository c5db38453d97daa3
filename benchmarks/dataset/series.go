package dataset

import (
	"iter"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Series is one series of a Source.
type Series struct {
	// Labels of the series itself, without external labels.
	Labels labels.Labels
	// Kind says how its values behave.
	Kind Kind
	// Seed decides its values. Series with one Seed move together.
	Seed uint64
	// Share is the part of what Seed counts that this series has, for the buckets of a classic
	// histogram; 0 stands for 1.
	Share float64
	// Target is who is scraped for it: series of one target have the same timestamps.
	Target uint64
	// From and To bound its life in milliseconds: [From, To). To 0 stands for no end. A life that
	// ends inside a block ends with a staleness marker.
	From, To int64
}

// Source lists the series that a block may hold, in the order of labels.Compare, the same ones each
// time.
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

// Concat is a source of the series of all the given ones.
func Concat(sources ...Source) Source {
	var all []Series
	for _, src := range sources {
		all = slices.AppendSeq(all, src.Series())
	}
	return newList(all)
}

// dim is one label of a product: n values in ascending order for given digits of the dimensions
// before it.
type dim struct {
	name  string
	n     int
	value func(digits []int) string // digits up to and with this dimension's
}

// product is a Source that holds no series: every combination of the values of its dimensions. The
// dimensions are in the order of their names, so counting them up gives the order of label sets.
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
			from   = 0 // the first dimension whose value is not up to date
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

// fixed is a dimension of one value.
func fixed(name, value string) dim {
	return dim{name, 1, func([]int) string { return value }}
}

// oneOf is a dimension of the given values, which are ascending.
func oneOf(name string, values ...string) dim {
	return dim{name, len(values), func(d []int) string { return values[d[len(d)-1]] }}
}

// follows is a dimension whose one value depends on the digit of dimension i.
func follows(name string, i int, value func(digit int) string) dim {
	return dim{name, 1, func(d []int) string { return value(d[i]) }}
}

// labelSeed makes a seed of label values, leaving out one label by name.
func labelSeed(seed uint64, ls labels.Labels, without string) uint64 {
	h := xxhash.New()
	ls.Range(func(l labels.Label) {
		if l.Name == without {
			return
		}
		_, _ = h.WriteString(l.Name) // A hash never fails.
		_, _ = h.Write([]byte{0xff})
		_, _ = h.WriteString(l.Value)
		_, _ = h.Write([]byte{0xff})
	})
	return mix(seed ^ h.Sum64())
}
