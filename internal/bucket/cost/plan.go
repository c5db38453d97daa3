package cost

import (
	"cmp"
	"math"
	"slices"
)

// maxPasses bounds how many bounds of the longest read Plan tries.
const maxPasses = 64

// Plan returns the reads, ascending and disjoint, that get the needed ranges at the least cost if
// they are sent together. need is ascending and disjoint and begins and ends at multiples of unit,
// except for the end of the object. Plan begins and ends reads where needed ranges do, or at
// multiples of unit within them. It keeps MaxRead, unless unit is larger, MaxGap and MaxAlong.
//
// It tries bounds of the longest read. For one bound, the cheapest joins are found in one pass over
// the needed ranges. A smaller bound costs less transfer and more requests; a branch whose least
// possible cost is above the best known one is cut off. If the joins of a pass read more than
// MaxAlong permits, those of the largest gaps are given up.
//
// A range is split only into parts of at least InFlight bytes, because shorter parts would make a
// large answer out of many small requests, which gain little: its reads follow one another anyway.
// See Last for reads that nothing follows.
func (m Model) Plan(need []Extent, unit int64) []Extent {
	if len(need) == 0 {
		return nil
	}
	m = m.withDefaults()
	unit = max(unit, 1)
	maxRead := max(m.MaxRead/unit, 1) * unit
	whole := cut(adjoin(need), maxRead, unit)
	longest := int64(0)
	for _, e := range whole {
		longest = max(longest, e.Len())
	}
	floor := m.InFlight()
	if m.last > 0 {
		floor = min(floor, m.last)
	}
	floor = max(min(floor, longest), unit)
	if len(whole) == 1 && longest <= floor {
		return whole
	}
	s := search{m: m, unit: unit, along: math.MaxInt64, best: math.Inf(1)}
	if m.MaxAlong >= 0 {
		s.along = m.MaxAlong
	}
	// First the bounds that split nothing.
	s.use(whole)
	low, high := s.try(longest), float64(0)
	most := min(maxRead, whole[len(whole)-1].End-whole[0].Off)
	if most > longest {
		high = s.try(most)
		s.between(longest, most, low, high)
	}
	for parts := int64(2); parts <= longest/floor && s.passes < maxPasses; parts++ {
		bound := (longest + parts*unit - 1) / (parts * unit) * unit
		s.use(cut(whole, bound, unit))
		s.try(bound)
	}
	return s.plan
}

// adjoin returns the ranges with those joined that touch. It does not change its argument.
func adjoin(need []Extent) []Extent {
	out := make([]Extent, 0, len(need))
	for _, e := range need {
		if n := len(out); n > 0 && out[n-1].End == e.Off {
			out[n-1].End = e.End
			continue
		}
		out = append(out, e)
	}
	return out
}

// cut returns the ranges, each split into the fewest parts of at most bound bytes, of about equal
// length.
func cut(ranges []Extent, bound, unit int64) []Extent {
	out := make([]Extent, 0, len(ranges))
	for _, e := range ranges {
		units := (e.Len() + unit - 1) / unit
		for parts := (e.Len() + bound - 1) / bound; parts > 0; parts-- {
			n := (units + parts - 1) / parts
			end := min(e.Off+n*unit, e.End)
			out = append(out, Extent{e.Off, end})
			e.Off, units = end, units-n
		}
	}
	return out
}

// search finds the cheapest plan for ranges that are joined but not split.
type search struct {
	m      Model
	unit   int64
	along  int64 // how many bytes of gaps a plan may read
	passes int

	ranges []Extent
	// costs[k] is the least cost of the first k ranges, apart from the longest read; the last read
	// of that plan begins with range from[k].
	costs  []float64
	from   []int
	window []int
	// begins[k] says that a read of the last pass begins with range k. joined has the others.
	begins []bool
	joined []int

	best float64
	plan []Extent
}

func (s *search) use(ranges []Extent) {
	s.ranges = ranges
	s.costs = append(s.costs[:0], make([]float64, len(ranges)+1)...)
	s.from = append(s.from[:0], make([]int, len(ranges)+1)...)
	s.begins = append(s.begins[:0], make([]bool, len(ranges))...)
}

// between tries bounds of the longest read above lo and below hi. low and high are the costs of lo
// and hi apart from the longest read.
func (s *search) between(lo, hi int64, low, high float64) {
	if hi-lo <= s.unit || s.passes >= maxPasses || low == high {
		return
	}
	// The bounds in between cost at least this.
	if s.m.transfer(lo+s.unit)+high >= s.best {
		return
	}
	mid := lo + (hi-lo)/2/s.unit*s.unit
	cost := s.try(mid)
	s.between(lo, mid, low, cost)
	s.between(mid, hi, cost, high)
}

// try finds the cheapest joins with reads of at most bound bytes, and keeps the plan if it is the
// best one so far. It returns its cost apart from the longest read.
//
// A read from range j to range k-1 costs a request and its bytes. The best j for k minimises
// costs[j] minus the bytes before range j, among those that are near enough. They are a window that
// only moves forward: window holds those that may still become the best one, ascending.
func (s *search) try(bound int64) float64 {
	s.passes++
	request, perByte := float64(s.m.PerRequest), s.m.perByte()
	start := func(j int) float64 { return s.costs[j] - float64(s.ranges[j].Off)*perByte }
	w, head, first := s.window[:0], 0, 0
	for k := 1; k <= len(s.ranges); k++ {
		if k > 1 && s.ranges[k-1].Off-s.ranges[k-2].End > s.m.MaxGap {
			first = k - 1
		}
		for s.ranges[k-1].End-s.ranges[first].Off > bound && first < k-1 {
			first++
		}
		for len(w) > head && start(w[len(w)-1]) > start(k-1) {
			w = w[:len(w)-1]
		}
		w = append(w, k-1)
		for w[head] < first {
			head++
		}
		j := w[head]
		s.costs[k] = start(j) + float64(s.ranges[k-1].End)*perByte + request
		s.from[k] = j
	}
	s.window = w
	n := len(s.ranges)
	all := s.costs[n] + s.keepAlong()
	longest, begin := int64(0), 0
	for k := 1; k <= n; k++ {
		if k == n || s.begins[k] {
			longest = max(longest, s.ranges[k-1].End-s.ranges[begin].Off)
			begin = k
		}
	}
	if all += s.m.transfer(longest); all < s.best {
		s.best = all
		s.plan = s.reads()
	}
	return s.costs[n]
}

// gap returns the bytes between range k and the one before.
func (s *search) gap(k int) int64 { return s.ranges[k].Off - s.ranges[k-1].End }

// keepAlong fills in begins from the last pass, and gives up joins of the largest gaps until the
// gaps have at most along bytes. It returns what that adds to the cost.
func (s *search) keepAlong() (cost float64) {
	clear(s.begins)
	for k := len(s.ranges); k > 0; k = s.from[k] {
		s.begins[s.from[k]] = true
	}
	gaps := int64(0)
	for k := 1; k < len(s.ranges); k++ {
		if !s.begins[k] {
			gaps += s.gap(k)
		}
	}
	if gaps <= s.along {
		return 0
	}
	s.joined = s.joined[:0]
	for k := range s.ranges {
		if !s.begins[k] {
			s.joined = append(s.joined, k)
		}
	}
	slices.SortStableFunc(s.joined, func(a, b int) int { return cmp.Compare(s.gap(a), s.gap(b)) })
	for n := len(s.joined) - 1; gaps > s.along; n-- {
		k := s.joined[n]
		s.begins[k] = true
		gaps -= s.gap(k)
		cost += float64(s.m.PerRequest) - float64(s.gap(k))*s.m.perByte()
	}
	return cost
}

// reads returns the reads of the last pass.
func (s *search) reads() []Extent {
	var out []Extent
	for k, r := range s.ranges {
		if s.begins[k] {
			out = append(out, r)
			continue
		}
		out[len(out)-1].End = r.End
	}
	return out
}
