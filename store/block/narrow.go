package block

import (
	"context"
	"fmt"
	"slices"
)

// Collect says which strings a caller collects that needs no series. The zero value: it needs the
// series.
//
// The stream then decodes only what shows new strings. It may leave out labels that are not asked
// for and series that add no string, and may give label names without their values. The strings of
// all segments together are the same, and so are the checks of the block's shape.
type Collect struct {
	// Names collects label names.
	Names bool
	// Label collects the values of this label, which must not be an external label.
	Label string
}

// narrowing picks from decoded series what a Collect asks for, by references of symbols: most
// series of a block repeat the strings of others, whose bytes are then never looked up.
type narrowing struct {
	on    bool
	names bool // label names are collected
	// distinct says that a series without a new string is left out.
	distinct bool
	wanted   []string // label names whose values are needed
	found    []uint32 // references of those that were seen
	// others has references of other label names, while some wanted one was not seen.
	others map[uint32]struct{}
	// least is the smallest reference of a value, because the empty symbol sorts first. It is only
	// set if checked is.
	least   uint32
	checked bool
}

// newNarrowing returns the narrowing of a stream. An irregular block is not narrowed, because its
// labels are normalised as a whole.
func newNarrowing(c Collect, p *Plan) narrowing {
	n := narrowing{distinct: len(p.pending) == 0}
	switch {
	case p.irregular || c == Collect{}:
	case c.Names:
		// Pending matchers need values.
		n.on, n.names = n.distinct, true
	default:
		n.on, n.wanted = true, []string{c.Label}
		for _, m := range p.pending {
			if !slices.Contains(n.wanted, m.Name) {
				n.wanted = append(n.wanted, m.Name)
			}
		}
	}
	return n
}

// narrowedBytes estimates what decodingBytes does, for a narrowed stream whose segments have up to
// the given number of series.
func (p *Plan) narrowedBytes(n *narrowing, series, runBytes int64) int64 {
	const (
		// A string of usual length takes as much in the symbol table, and again in a segment.
		stringBytes = 2 * symbolOverhead
		// The arrays of postings, slots and label ends of a series, twice as large as needed.
		seriesBytes = 64
	)
	names := p.header.LabelNames()
	all, postings := int64(0), int64(len(p.refs))
	if n.names {
		all = int64(len(names))
	}
	for _, name := range n.wanted {
		all += min(int64(p.header.ValueCount(name)), postings)
	}
	if n.distinct {
		series = min(series, all)
	}
	labels := max(int64(len(n.wanted)), 1)
	others := 2 * symbolOverhead * int64(min(len(names), maxOthers))
	return others + min(stringBytes*all, runBytes) + series*(seriesBytes+labels*stringBytes)
}

// appendNarrowed appends to raw what is needed of the series of a posting with these symbol
// references.
func (s *Stream) appendNarrowed(posting uint32, refs []uint32) error {
	if err := s.checkLeast(refs); err != nil {
		return err
	}
	n := &s.narrow
	before, symbols := len(s.raw.slots), len(s.syms.refs)
	own := false // a value is the label's own name, whose symbol is known before the value is
	known := !n.names && len(n.found) == len(n.wanted)
	for i := 0; i < len(refs); i += 2 {
		name, value := refs[i], refs[i+1]
		if n.names {
			value = name
		} else if known && name != n.found[0] && len(n.found) == 1 {
			continue
		} else if wanted, err := n.wants(s.ctx, s.plan.header, name); err != nil {
			return err
		} else if !wanted {
			continue
		} else if value == name {
			own = true
		}
		s.raw.slots = append(s.raw.slots, s.syms.slot(name), s.syms.slot(value))
	}
	if n.distinct && !own && len(s.syms.refs) == symbols && s.decoded {
		s.raw.slots = s.raw.slots[:before]
		return nil
	}
	s.raw.endSeries(posting)
	return nil
}

// sortNarrowed sorts the series of a single label by its values, because a set collects strings
// faster in their order. It leaves out series without a value, and those whose value an earlier one
// has. References of symbols compare like their strings.
func (s *Stream) sortNarrowed() {
	if s.narrow.names || len(s.narrow.wanted) > 1 {
		return
	}
	s.left = s.syms.sortByValue(&s.raw, s.left)
}

// sortByValue sorts series of raw, which have at most one label, by the references of their values.
// It keeps the first one of each value.
func (t *symbols) sortByValue(raw *rawSeries, series []uint32) []uint32 {
	// Scratch of resolve, which has ended: one more than the series, by the slot of its value.
	of := slices.Grow(t.missing[:0], len(t.refs))[:len(t.refs)]
	clear(of)
	t.missing, t.order = of[:0], t.order[:0]
	for _, i := range series {
		if slots := raw.labels(int(i)); len(slots) > 0 && of[slots[1]] == 0 {
			of[slots[1]] = i + 1
			t.order = append(t.order, t.refs[slots[1]])
		}
	}
	slices.Sort(t.order)
	series = series[:0]
	for _, ref := range t.order {
		series = append(series, of[t.slot(ref)]-1)
	}
	return series
}

// checkLeast returns an IrregularError if one of the values is empty.
func (s *Stream) checkLeast(refs []uint32) error {
	n := &s.narrow
	for i := 1; i < len(refs); i += 2 {
		if n.checked && refs[i] >= n.least {
			continue
		}
		n.least, n.checked = refs[i], true
		empty := false
		err := s.plan.header.Symbols(s.ctx, refs[i:i+1], func(_ int, b []byte) error {
			empty = len(b) == 0
			return nil
		})
		if err != nil {
			return fmt.Errorf("symbols: %w", err)
		}
		if empty {
			return &IrregularError{What: emptyValue}
		}
	}
	return nil
}

// wants reports whether the values of the label with this name are needed.
func (n *narrowing) wants(ctx context.Context, src symbolSource, name uint32) (bool, error) {
	if slices.Contains(n.found, name) {
		return true, nil
	}
	if len(n.found) == len(n.wanted) {
		return false, nil
	}
	if _, other := n.others[name]; other {
		return false, nil
	}
	wanted := false
	err := src.Symbols(ctx, []uint32{name}, func(_ int, b []byte) error {
		wanted = slices.Contains(n.wanted, string(b))
		return nil
	})
	switch {
	case err != nil:
		return false, fmt.Errorf("symbols: %w", err)
	case wanted:
		n.found = append(n.found, name)
		return true, nil
	case len(n.others) == maxOthers:
		clear(n.others)
	case n.others == nil:
		n.others = make(map[uint32]struct{})
	}
	n.others[name] = struct{}{}
	return false, nil
}

// maxOthers bounds narrowing.others. A block with more label names has some of them looked up
// repeatedly.
const maxOthers = 1024
