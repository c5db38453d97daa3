package layout

import (
	"github.com/prometheus/prometheus/model/labels"
)

// Depth returns how deep prefix chains are: the largest number of series in which each label set is
// a strict prefix of the next, minus one.
func Depth(ss []Series) int {
	// Series are sorted: a prefix comes before the label sets that it is a prefix of. Therefore a
	// stack of open prefixes suffices.
	var open []labels.Labels
	deepest := 0
	for _, s := range ss {
		for len(open) > 0 && !strictPrefix(open[len(open)-1], s.Labels) {
			open = open[:len(open)-1]
		}
		open = append(open, s.Labels)
		deepest = max(deepest, len(open)-1)
	}
	return deepest
}

func strictPrefix(a, b labels.Labels) bool {
	if a.Len() >= b.Len() {
		return false
	}
	var as, bs []labels.Label
	a.Range(func(l labels.Label) { as = append(as, l) })
	b.Range(func(l labels.Label) { bs = append(bs, l) })
	for i := range as {
		if as[i] != bs[i] {
			return false
		}
	}
	return true
}

// Shape lists the properties of a layout on which gateways disagree.
type Shape struct {
	Depth                                               int
	Clash, EmptyExternal, ReplicaInside, ReplicaOutside bool
	Overlapping, Nested, Gapped, Touching               bool
	Downsampled, RawDeleted                             bool
	Covered, MarkedServed, MarkedGone                   bool
	Damaged                                             bool
	// Irregular are the irregularities of served blocks. OddTwin reports whether an irregular block
	// has a regular replica of the same time.
	Irregular map[Irregularity]bool
	OddTwin   bool
}

// Shape returns the layout's shape.
func (l *Layout) Shape() Shape {
	s := Shape{Irregular: map[Irregularity]bool{}}
	served := l.Served()
	in := distinct(served)
	for _, b := range l.Blocks {
		s.Damaged = s.Damaged || b.Damage != Sound
		if !in[b] {
			s.MarkedGone = s.MarkedGone || b.MarkAge > 0
			s.Covered = s.Covered || b.MarkAge == 0
		} else if b.MarkAge > 0 {
			s.MarkedServed = true
		}
	}
	for i, b := range served {
		s.Depth = max(s.Depth, Depth(b.Series))
		s.EmptyExternal = s.EmptyExternal || b.Labels.IsEmpty()
		s.ReplicaOutside = s.ReplicaOutside || b.Labels.Has(l.ReplicaLabel)
		s.Downsampled = s.Downsampled || b.Resolution > Raw
		for _, k := range b.Irregular {
			s.Irregular[k] = true
		}
		s.OddTwin = s.OddTwin || len(b.Irregular) > 0 && regularTwin(l.ReplicaLabel, b, served)
		for _, x := range b.Series {
			s.ReplicaInside = s.ReplicaInside || x.Labels.Has(l.ReplicaLabel)
			x.Labels.Range(func(lb labels.Label) { s.Clash = s.Clash || b.Labels.Has(lb.Name) })
		}
		covered, follower, nested := b.Resolution == Raw, false, false
		for j, o := range served {
			if i == j || !labels.Equal(b.Labels, o.Labels) {
				continue
			}
			if o.Resolution == Raw && o.MinTime <= b.MinTime && o.MaxTime >= b.MaxTime {
				covered = true
			}
			if o.Resolution != b.Resolution {
				continue
			}
			s.Touching = s.Touching || o.MinTime == b.MaxTime
			if o.MinTime < b.MaxTime && b.MinTime < o.MaxTime {
				s.Overlapping = true
				nested = nested || o.MinTime <= b.MinTime && b.MaxTime <= o.MaxTime
			}
			follower = follower || o.MinTime >= b.MaxTime
		}
		s.Nested = s.Nested || nested
		s.RawDeleted = s.RawDeleted || !covered
		s.Gapped = s.Gapped || follower && gapAfter(b, served)
	}
	return s
}

// gapAfter reports whether no block of b's set and resolution continues where b ends.
func gapAfter(b *Block, served []*Block) bool {
	for _, o := range served {
		if o != b && o.Resolution == b.Resolution && labels.Equal(o.Labels, b.Labels) &&
			o.MinTime <= b.MaxTime &&
			o.MaxTime > b.MaxTime {
			return false
		}
	}
	return true
}

// regularTwin reports whether another replica's block of b's time and resolution is regular.
func regularTwin(replica string, b *Block, served []*Block) bool {
	group := func(b *Block) labels.Labels {
		return labels.NewBuilder(b.Labels).Del(replica).Labels()
	}
	for _, o := range served {
		if len(o.Irregular) == 0 && o.MinTime == b.MinTime && o.MaxTime == b.MaxTime &&
			o.Resolution == b.Resolution &&
			!labels.Equal(o.Labels, b.Labels) &&
			labels.Equal(group(o), group(b)) {
			return true
		}
	}
	return false
}
