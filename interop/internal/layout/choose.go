package layout

import (
	"github.com/prometheus/prometheus/model/labels"
)

// Choice is the set of blocks that a Series request reads.
type Choice struct {
	// Thanos is the list that Thanos's BucketStore makes. A nested block moves its cursor backward;
	// it may therefore choose finer blocks for time that is already covered, and choose a block
	// twice.
	Thanos []*Block
	// Right is every needed block once: finer blocks only for time that no chosen coarser block
	// covers.
	Right []*Block
}

// Same reports whether both lists contain the same blocks, however often.
func (c Choice) Same() bool {
	t := distinct(c.Thanos)
	if len(t) != len(c.Right) {
		return false
	}
	for _, b := range c.Right {
		if !t[b] {
			return false
		}
	}
	return true
}

func distinct(bs []*Block) map[*Block]bool {
	m := map[*Block]bool{}
	for _, b := range bs {
		m[b] = true
	}
	return m
}

// Choose returns the blocks that a Series request with these bounds, resolution and matchers reads.
func (l *Layout) Choose(mint, maxt, resolution int64, ms []*labels.Matcher) Choice {
	mint, maxt = l.Clamp(mint, maxt)
	sets := map[string][]*Block{}
	for _, b := range l.Served() {
		k := b.Labels.String()
		sets[k] = append(sets[k], b)
	}
	var c Choice
	for _, bs := range sets {
		if !externalMatch(bs[0].Labels, ms) {
			continue
		}
		c.Thanos = append(c.Thanos, pick(bs, mint, maxt, resolution, true)...)
		right := distinct(pick(bs, mint, maxt, resolution, false))
		for _, b := range bs {
			if right[b] {
				c.Right = append(c.Right, b)
			}
		}
	}
	return c
}

// externalMatch reports whether a block with these external labels can contain series that match.
func externalMatch(ext labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if v := ext.Get(m.Name); v != "" && !m.Matches(v) {
			return false
		}
	}
	return true
}

// pick chooses among the blocks of one label set, which are sorted by time. With slip it moves its
// cursor backward as Thanos does.
func pick(bs []*Block, mint, maxt, resolution int64, slip bool) []*Block {
	if mint > maxt {
		return nil
	}
	level, finer := Raw, int64(-1)
	switch {
	case resolution >= OneHour:
		level, finer = OneHour, FiveMinutes
	case resolution >= FiveMinutes:
		level, finer = FiveMinutes, Raw
	}
	fill := func(from, to int64) []*Block {
		if finer < 0 {
			return nil
		}
		return pick(bs, from, to, finer, slip)
	}
	var out []*Block
	cursor := mint
	for _, b := range bs {
		if b.Resolution != level || b.MaxTime <= mint {
			continue
		}
		if b.MinTime > maxt {
			break
		}
		out = append(out, fill(cursor, b.MinTime-1)...)
		out = append(out, b)
		if slip {
			cursor = b.MaxTime
		} else {
			cursor = max(cursor, b.MaxTime)
		}
	}
	return append(out, fill(cursor, maxt)...)
}
