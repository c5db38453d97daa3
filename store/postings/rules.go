package postings

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/indexheader"
)

// rule is a matcher as a selection of values of its label. If the rule adds, a series must have one
// of the selected values. Otherwise it must have none of them, and a series without the label
// passes.
//
// The index of a block may have a label with an empty value, which for a matcher is the same as no
// label. Prometheus then decides by the text of the matcher: l!="" matches such a series, l=~"..*"
// does not. The fields every and adds do the same.
type rule struct {
	matcher *labels.Matcher
	adds    bool
	every   bool // selects every value, even an empty one, whatever the matcher says
	invert  bool // selects the values that the matcher does not match
	finite  bool // selects exactly values
	values  []string
	prefix  string // of every selected value
}

// selects reports whether the rule selects value v.
func (r *rule) selects(v string) bool { return r.every || r.matcher.Matches(v) != r.invert }

// group has the matchers of one label name. The lists of a name's values are adjacent in the index,
// and disjoint, because a series has one value. Only an irregular block may have a series in
// several of them: sums of their lengths are upper bounds.
type group struct {
	name  string
	rules []rule
	// adds says that some rule adds: the group selects the values of which a series must have one.
	// Otherwise it selects the values that a series must not have.
	adds bool

	resolved bool
	listing  // of the selected values, once the group is resolved
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
		// One rule that adds is enough to narrow the group.
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

// singleRange reports whether the group is one rule with a prefix.
func (g *group) singleRange() bool { return len(g.rules) == 1 && !g.rules[0].finite }

// narrowest returns the rule with the fewest values to look at, in a group that adds.
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

// finish sorts the lists by offset, which is the order of the values except in format V1. It
// removes duplicates, which two rules of the group have selected.
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

// groupMatchers turns matchers into groups, in the order of their names in ms. none says that no
// series can match.
func groupMatchers(ms []*labels.Matcher) (groups []*group, none bool) {
	// mustBeSet has the label names that a series must have, because some matcher does not match
	// the empty value.
	mustBeSet := map[string]bool{}
	for _, m := range ms {
		if !m.Matches("") {
			mustBeSet[m.Name] = true
		}
	}
	byName := map[string]*group{}
	for _, m := range ms {
		if m.Name == "" {
			// No series has a label without a name. The index has such an entry for all series.
			none = none || !m.Matches("")
			continue
		}
		if m.Value == ".*" {
			// It matches everything, or nothing: not even a series without the label.
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
	case negative && empty: // l!="a", l!~"a|b": series with these values are out
		r.invert = true
	case negative: // l!="", l!~"a|": series with another value of the label
		r.adds, r.every = true, m.Value == ""
	case !empty || mustBeSet && m.Value != "": // l="a", l=~"a.*"; l=~"a|" beside l!=""
		r.adds = true
	default: // l="", l=~"a|": series with any other value are out
		r.invert, r.every = true, m.Value == ""
	}
	if r.every || negative != r.invert {
		// The rule selects all values except those that the matcher names: none can be looked up.
		return r
	}
	if !regexp {
		r.finite, r.values = true, []string{m.Value}
		return r
	}
	// The set or prefix of an expression says what it matches, for a negative matcher what it
	// excludes.
	if r.values = m.SetMatches(); len(r.values) > 0 {
		slices.Sort(r.values)
		r.finite, r.values = true, slices.Compact(r.values)
		return r
	}
	r.prefix = m.Prefix()
	return r
}

// hidesEmpty reports whether the group's rules and its matchers may disagree on the empty value.
// The matchers of such a group may stay pending only if the block has no empty value of the name.
func (g *group) hidesEmpty() bool {
	return slices.ContainsFunc(g.rules, func(r rule) bool { return r.every })
}
