package postings

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/internal/tsdbfmt"
	"larder/store/indexheader"
)

const (
	defaultSeriesBytes = 512
	// valueCost is the cost of evaluating a matcher on one label value of the header, in bytes of
	// series entries. The list of a value is at least as long, so that a group costs at least this
	// for each value of its name.
	valueCost = tsdbfmt.MinPostingsSize
	// maxWideBytes bounds the lists of a group that selects most values of its name (pod!="",
	// pod=~".+") beside a selective group. Such a group excludes little, and its lists are as large
	// as the list of all series, or several times that.
	maxWideBytes = 1 << 20
	// maxSavingBytes bounds the lists of a plan with a group that saves requests but no bytes. The
	// expansion must stay small: it also needs the pages and two copies of the largest set.
	maxSavingBytes = smallExpansion / 4
	// checkEvery is the number of values or lists after which the context is checked again.
	checkEvery = 1024
)

// plan says which lists are read and how they are combined.
type plan struct {
	empty     bool              // no series matches: nothing is read
	adds      []listing         // the sets to intersect, smallest first, at least one
	subtracts []listing         // the sets to subtract from that
	pending   []*labels.Matcher // the caller checks them against each series; in request order
	stats     Stats
}

// spans returns the byte ranges of all lists that are not marked.
func (p *plan) spans() []pagecache.Span {
	var sets [][]indexheader.List
	for _, l := range slices.Concat(p.adds, p.subtracts) {
		if l.marks == nil {
			sets = append(sets, l.lists)
		}
	}
	slices.SortFunc(
		sets, func(a, b []indexheader.List) int { return cmp.Compare(a[0].Off, b[0].Off) },
	)
	var out []pagecache.Span
	for _, lists := range sets {
		out = spansOf(out, lists)
	}
	// In format V1 the lists of groups may overlap.
	slices.SortFunc(out, func(a, b pagecache.Span) int { return cmp.Compare(a.Off, b.Off) })
	return out
}

// planner finds the lists of the groups and decides which of them are read.
//
// Reading the lists of a group pays in one of two ways; see pays:
//
//   - They are smaller than the series entries that they may exclude. A group excludes at most the
//     candidates, which are the series of the smallest group. A group that adds also excludes at
//     most the series outside of it, which are few if it selects nearly everything.
//   - They cost less than reading the entries that they are expected to exclude; see scales.
//     Entries that lie scattered cost a request each, lists few requests. Such lists are bounded in
//     bytes.
//
// The matchers of a group that does not pay stay pending.
//
// INVARIANT: the lists of adds[0] are read, therefore their size bounds the candidates.
type planner struct {
	ctx    context.Context
	hdr    header
	req    *request
	all    indexheader.List // of the block's series
	series int64            // upper bound of their number
	// bound is an upper bound of the series that match all resolved groups. anchored says that it
	// comes from a group.
	bound    int64
	anchored bool
	scales   scales
	stats    Stats
}

func newPlan(ctx context.Context, hdr header, req *request) (plan, error) {
	groups, none := groupMatchers(req.matchers)
	p := planner{ctx: ctx, hdr: hdr, req: req, all: hdr.AllPostings()}
	p.series = tsdbfmt.MaxPostingsCount(p.all.End - p.all.Off)
	p.bound, p.scales = p.series, newScales(req.costs, req)
	p.stats.Groups = len(groups)
	if none || p.series == 0 || len(req.matchers) == 0 {
		return plan{empty: true, stats: p.stats}, nil
	}
	// Groups that need few look-ups come first, because they bound what the others are worth.
	order := slices.Clone(groups)
	slices.SortStableFunc(order, func(a, b *group) int {
		switch {
		case a.adds != b.adds && a.adds:
			return -1
		case a.adds != b.adds:
			return 1
		}
		return cmp.Or(
			cmp.Compare(a.scope(), b.scope()),
			cmp.Compare(hdr.ValueCount(a.name), hdr.ValueCount(b.name)),
		)
	})
	for _, g := range order {
		if err := p.resolve(g); err != nil {
			return plan{stats: p.stats}, err
		}
		if g.adds && g.resolved {
			if g.count == 0 {
				return plan{empty: true, stats: p.stats}, nil
			}
			p.bound, p.anchored = min(p.bound, g.refs), true
		}
	}
	return p.decide(groups)
}

// resolve finds the lists of a group. It gives up once they are known to cost more than they save.
func (p *planner) resolve(g *group) error {
	budget, err := p.budget(g)
	if err != nil {
		return err
	}
	count := p.hdr.ValueCount(g.name)
	sc := g.scope()
	if budget >= 0 && sc == whole && int64(count)*valueCost > budget {
		return nil
	}
	s := valueScan{p: p, g: g, budget: budget}
	switch {
	case count == 0:
	case g.adds && sc == points:
		r := g.narrowest()
		values := slices.DeleteFunc(
			slices.Clone(r.values), func(v string) bool { return !g.selects(v) },
		)
		err = s.addValues(values)
	case g.adds:
		err = s.addPrefix(g.narrowest().prefix, g.selects)
	case sc == whole, sc == ranges && p.marked(count) && !g.singleRange():
		err = s.addPrefix("", g.selects)
	default:
		var values []string
		for i := range g.rules {
			r := &g.rules[i]
			if r.finite {
				values = append(values, r.values...)
			} else if err = s.addPrefix(r.prefix, r.selects); err != nil || s.over {
				break
			}
		}
		if err == nil && !s.over {
			slices.Sort(values)
			err = s.addValues(slices.Compact(values))
		}
	}
	if err != nil {
		return fmt.Errorf("postings of label %q: %w", g.name, err)
	}
	if s.over {
		g.listing = listing{}
		return nil
	}
	g.finish()
	return nil
}

// budget returns the bytes that finding and reading the lists of a group may cost before its
// matchers stay pending; -1: there is no limit.
func (p *planner) budget(g *group) (int64, error) {
	budget := int64(-1)
	switch {
	case g.adds && !p.anchored:
		// Any group that adds is better than all series, unless it selects nearly all of them.
		if !p.req.eager && g.every() {
			budget = p.withoutGroup(int64(p.hdr.ValueCount(g.name)))
		}
	case p.capped() && g.every():
		budget = maxWideBytes
		if !p.req.eager {
			budget = min(budget, p.worth(p.bound))
		}
	case !p.req.eager:
		budget = max(p.worth(p.bound), p.saves())
	}
	if budget < 0 {
		return -1, nil
	}
	if ok, err := p.mayPend(g); !ok {
		return -1, err
	}
	return budget, nil
}

// capped reports whether some group is selective, so that a group that selects nearly everything is
// worth little.
func (p *planner) capped() bool { return p.anchored && p.bound <= p.series/2 }

// withoutGroup returns the cost in bytes of starting from all series instead of a group with at
// least n: the list of all series, and the entries of series that are not in the group.
func (p *planner) withoutGroup(n int64) int64 {
	return p.all.End - p.all.Off + p.worth(max(p.series-n, 0))
}

// worth returns the bytes of n series entries.
func (p *planner) worth(n int64) int64 { return n * p.req.entryBytes() }

// saves returns how many bytes of lists may be read to save requests for the entries of the
// candidates. One entry is left to read.
func (p *planner) saves() int64 {
	all := candidates{n: float64(p.bound), among: float64(p.series)}
	saved := p.scales.entries(all) - p.scales.entries(candidates{n: 1, among: 1})
	return int64(min(max(saved/p.scales.transfer, 0), maxSavingBytes))
}

// mayPend reports whether the group's matchers may stay pending: the request allows it, and
// checking them against the labels of a series gives the same result as the lists.
func (p *planner) mayPend(g *group) (bool, error) {
	if p.req.complete {
		return false, nil
	}
	if !g.hidesEmpty() {
		return true, nil
	}
	lists, err := p.hdr.Lists(p.ctx, g.name, []string{""}, nil)
	if err != nil {
		return false, fmt.Errorf("postings of label %q: %w", g.name, err)
	}
	return len(lists) == 0 || lists[0] == indexheader.List{}, nil
}

// decide picks the groups whose lists are read.
func (p *planner) decide(groups []*group) (plan, error) {
	out := plan{}
	left := slices.DeleteFunc(slices.Clone(groups), func(g *group) bool { return !g.resolved })
	slices.SortStableFunc(left, func(a, b *group) int { return cmp.Compare(a.refs, b.refs) })
	base, err := p.base(left)
	if err != nil {
		return out, err
	}
	if base == nil {
		out.adds, p.bound = append(out.adds, p.allSeries()), p.series
	} else {
		out.adds, p.bound = append(out.adds, base.listing), base.refs
	}
	read := map[*group]bool{base: true}
	w := weighing{
		candidates: candidates{n: float64(p.series), among: float64(p.series)},
		bytes:      out.adds[0].bytes, extents: []pagecache.Span{out.adds[0].extent()},
	}
	if base != nil {
		p.req.choices.add(p, base, &w, true, true)
		w.candidates = w.after(base, p.series)
	}
	for _, g := range left {
		if g == base {
			continue
		}
		pays, err := p.pays(g, &w)
		if err != nil {
			return out, err
		}
		p.req.choices.add(p, g, &w, pays, false)
		switch {
		case !pays:
			continue
		case g.adds:
			out.adds = append(out.adds, g.listing)
		case g.count > 0:
			out.subtracts = append(out.subtracts, g.listing)
		}
		read[g] = true
		w.add(g, p.series)
	}
	p.stats.MaxSeries = p.bound
	pending := map[string]bool{}
	for _, g := range groups {
		if !g.resolved {
			p.req.choices.add(p, g, &w, false, false)
		}
		if !read[g] {
			pending[g.name] = true
			p.stats.Pending++
		}
	}
	for _, m := range p.req.matchers {
		if pending[m.Name] {
			out.pending = append(out.pending, m)
		}
	}
	for _, l := range slices.Concat(out.adds, out.subtracts) {
		p.stats.Lists += l.count
		p.stats.ListBytes += l.bytes
	}
	out.stats = p.stats
	return out, nil
}

// marked reports whether the lists of a name with so many values are marked instead of kept.
func (p *planner) marked(values int) bool { return values > cmp.Or(p.req.markFrom, markedValues) }

// allSeries is the list of all series.
func (p *planner) allSeries() listing {
	l := listing{}
	l.add(p.all)
	return l
}

// base returns the smallest group that adds; the others are compared with it. It skips groups whose
// lists are larger than the list of all series plus the entries that the group excludes, such as a
// label with another value for every series. It returns nil for all series of the block if no group
// is left.
func (p *planner) base(bySize []*group) (*group, error) {
	for _, g := range bySize {
		if !g.adds {
			continue
		}
		if p.req.eager || g.bytes <= p.withoutGroup(g.refs) {
			return g, nil
		}
		if ok, err := p.mayPend(g); !ok {
			return g, err
		}
	}
	return nil, nil
}

// weighing is what the groups that are read so far cost and leave over.
type weighing struct {
	candidates
	bytes   int64            // of their lists
	extents []pagecache.Span // a range for each group
}

func (w *weighing) add(g *group, series int64) {
	w.candidates = w.after(g, series)
	if g.count > 0 {
		w.bytes += g.bytes
		w.extents = append(w.extents, g.extent())
	}
}

// pays reports whether the lists of a resolved group are read besides those of w. Few bytes always
// pay, even if they save no time, because fewer candidates need less memory later.
func (p *planner) pays(g *group, w *weighing) (bool, error) {
	excluded := g.refs
	if g.adds {
		excluded = max(p.series-g.refs, 0)
	}
	wide := p.capped() && g.bytes > maxWideBytes && g.count > p.hdr.ValueCount(g.name)/2
	switch {
	case wide:
	case p.req.eager, g.bytes <= p.worth(min(p.bound, excluded)):
		return true, nil
	case w.bytes+g.bytes <= maxSavingBytes:
		without := p.scales.entries(w.candidates)
		with := p.scales.lists(&g.listing, w.extents) + p.scales.entries(w.after(g, p.series))
		if with <= without {
			return true, nil
		}
	}
	ok, err := p.mayPend(g)
	return !ok, err
}

// valueScan collects the lists of a group from the header.
type valueScan struct {
	p      *planner
	g      *group
	budget int64 // -1 = none
	cost   int64
	over   bool // the budget is used up, and the lists are incomplete
}

// addPrefix adds the lists of the values that begin with prefix and that selects accepts.
func (s *valueScan) addPrefix(prefix string, selects func(v string) bool) error {
	ctx, n, every, count := s.p.ctx, 0, s.g.every(), s.p.hdr.ValueCount(s.g.name)
	var seen *marks
	switch {
	case s.p.marked(count):
		seen = &marks{name: s.g.name, from: prefix}
	case every:
		s.g.lists = make([]indexheader.List, 0, count)
	}
	err := s.p.hdr.Values(
		ctx,
		s.g.name,
		prefix,
		func(value []byte, l indexheader.List) (bool, error) {
			// Values are not copied, because a name may have millions. Matchers do not keep them.
			v := unsafe.String(unsafe.SliceData(value), len(value))
			if !strings.HasPrefix(v, prefix) {
				return false, nil
			}
			if n++; n%checkEvery == 0 {
				if err := ctx.Err(); err != nil {
					return false, err
				}
			}
			if selects(v) {
				s.g.add(l)
				if seen != nil {
					seen.set(n - 1)
					if s.g.marks == nil && s.p.marked(s.g.count) {
						s.g.marks, s.g.lists = seen, nil
					}
				}
			}
			if !every {
				s.cost += valueCost
			}
			s.over = s.budget >= 0 && s.cost+s.g.bytes > s.budget
			return !s.over, nil
		},
	)
	s.p.stats.Values += n
	return err
}

// addValues adds the lists of values, which are ascending and distinct.
func (s *valueScan) addValues(values []string) error {
	if len(values) == 0 {
		return nil
	}
	lists, err := s.p.hdr.Lists(s.p.ctx, s.g.name, values, make([]indexheader.List, 0, len(values)))
	if err != nil {
		return err
	}
	for _, l := range lists {
		if l != (indexheader.List{}) {
			s.g.add(l)
		}
	}
	return nil
}
