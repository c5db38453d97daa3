package postings

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/indexheader"
)

// rule is a matcher as a choice among the values of its label. If it adds, a series must have one
// of the selected values; else it must have none of them, and a series without the label passes.
//
// A block's index may hold a label with an empty value, which to a matcher is the same as no label.
// Prometheus's rules then look at how a matcher is written (l!="" takes such a series, l=~"..*"
// does not); they are kept by the fields every and adds.
type rule struct {
	matcher *labels.Matcher
	adds    bool
	every   bool // selects every value, also an empty one, whatever the matcher says
	invert  bool // selects the values that the matcher does not match
	finite  bool // selects values and no other
	values  []string
	prefix  string // of everything that is selected
}

// selects reports whether the rule selects value v.
func (r *rule) selects(v string) bool { return r.every || r.matcher.Matches(v) != r.invert }

// group is the matchers of one label name. The lists of a name's values lie next to one another in
// the index. In a sound block they are disjoint: a series has one value. Sums of their lengths are
// upper bounds, because an irregular block may hold a series in several of them.
type group struct {
	name  string
	rules []rule
	// some rule adds: the group selects the values that series must have; else those that they must
	// not have
	adds bool

	// What follows is known once the group is resolved: the lists of the selected values.
	resolved bool
	listing
}

// selects reports whether the list of value v belongs to the group.
func (g *group) selects(v string) bool {
	for i := range g.rules {
		r := &g.rules[i]
		switch {
		case g.adds && r.selects(v) != r.adds:
			return false
		case !g.adds && r.selects(v):
			return true
		}
	}
	return g.adds
}

// every reports whether the group selects every value of its name.
func (g *group) every() bool {
	for i := range g.rules {
		if r := &g.rules[i]; !r.every || r.adds != g.adds {
			return false
		}
	}
	return true
}

// scope says how the lists of a group are found.
type scope int

const (
	points scope = iota // its values are known
	ranges              // they share a known prefix
	whole               // all values must be looked at
)

func (g *group) scope() scope {
	sc := points
	if g.adds {
		// Any one rule that adds narrows the group.
		sc = whole
	}
	for i := range g.rules {
		r := &g.rules[i]
		rs := whole
		switch {
		case r.finite:
			rs = points
		case r.prefix != "":
			rs = ranges
		}
		switch {
		case !g.adds:
			sc = max(sc, rs)
		case r.adds:
			sc = min(sc, rs)
		}
	}
	return sc
}

// singleRange reports whether the group is one rule with a prefix: no other one has values to add
// to those.
func (g *group) singleRange() bool { return len(g.rules) == 1 && !g.rules[0].finite }

// narrowest returns the rule of a group that adds which leaves the fewest values to look at.
func (g *group) narrowest() *rule {
	var best *rule
	for i := range g.rules {
		r := &g.rules[i]
		switch {
		case !r.adds:
		case best == nil,
			r.finite && (!best.finite || len(r.values) < len(best.values)),
			!r.finite && !best.finite && len(r.prefix) > len(best.prefix):
			best = r
		}
	}
	return best
}

// finish brings the lists into the order of the index, which is that of the values but in format
// V1, and removes those that two rules of the group have selected.
func (g *group) finish() {
	g.resolved = true
	byOff := func(a, b indexheader.List) int { return cmp.Compare(a.Off, b.Off) }
	if !slices.IsSortedFunc(g.lists, byOff) {
		slices.SortFunc(g.lists, byOff)
	}
	n := len(g.lists)
	if lists := slices.Compact(g.lists); len(lists) != n {
		g.listing = listing{}
		for _, l := range lists {
			g.add(l)
		}
	}
}

// groupMatchers turns matchers into groups, in the order in which their names appear. none says
// that no series can match.
func groupMatchers(ms []*labels.Matcher) (groups []*group, none bool) {
	// mustBeSet are the label names that a series must have: some matcher does not match the empty
	// value.
	mustBeSet := map[string]bool{}
	for _, m := range ms {
		if !m.Matches("") {
			mustBeSet[m.Name] = true
		}
	}
	byName := map[string]*group{}
	for _, m := range ms {
		if m.Name == "" {
			// No series has a label without a name. (The index has an entry of that name: the list
			// of all series.)
			none = none || !m.Matches("")
			continue
		}
		if m.Value == ".*" {
			// Anything, and not even a series without the label.
			if m.Type == labels.MatchRegexp {
				continue
			}
			none = none || m.Type == labels.MatchNotRegexp
		}
		g := byName[m.Name]
		if g == nil {
			g = &group{name: m.Name}
			byName[m.Name] = g
			groups = append(groups, g)
		}
		r := newRule(m, mustBeSet[m.Name])
		g.rules = append(g.rules, r)
		g.adds = g.adds || r.adds
	}
	return groups, none
}

// newRule returns the rule of a matcher. mustBeSet says that some matcher of the same name does not
// match the empty value.
func newRule(m *labels.Matcher, mustBeSet bool) rule {
	r := rule{matcher: m}
	negative := m.Type == labels.MatchNotEqual || m.Type == labels.MatchNotRegexp
	regexp := m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp
	switch empty := m.Matches(""); {
	case regexp && m.Value == ".+":
		r.every, r.adds = true, !negative
	case negative && empty: // l!="a", l!~"a|b": the series that have what is named are out
		r.invert = true
	case negative: // l!="", l!~"a|": with the label, and with another value
		r.adds, r.every = true, m.Value == ""
	case !empty || mustBeSet && m.Value != "": // l="a", l=~"a.*"; l=~"a|" beside l!=""
		r.adds = true
	default: // l="", l=~"a|": the series that have anything else are out
		r.invert, r.every = true, m.Value == ""
	}
	if r.every || negative != r.invert {
		// What is selected is all but what the expression names: it gives no values to look up.
		return r
	}
	if !regexp {
		r.finite, r.values = true, []string{m.Value}
		return r
	}
	// The expression's set or prefix says what it matches, so for a negative matcher what it does
	// not.
	if r.values = m.SetMatches(); len(r.values) > 0 {
		slices.Sort(r.values)
		r.finite, r.values = true, slices.Compact(r.values)
		return r
	}
	r.prefix = m.Prefix()
	return r
}

// hidesEmpty reports whether the group's rules and its matchers may disagree on the empty value:
// such a group can be left to be checked against the series only in a block that has no empty value
// of the group's name.
func (g *group) hidesEmpty() bool {
	return slices.ContainsFunc(g.rules, func(r rule) bool { return r.every })
}
