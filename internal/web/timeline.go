package web

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

const (
	// maxDrawn bounds the blocks that a page shows, the newest first. Browsers scroll smoothly
	// through this number.
	maxDrawn = 3000
	// maxGroups bounds the drawings, one for each set of external labels.
	maxGroups = 50
	// maxBroken bounds the irregular blocks that a page lists, and the gaps.
	maxBroken = 100
	// maxDays bounds the parameter days. Without it the page shows all blocks.
	maxDays = 100_000

	rowHeight = 14 // pixels of a row of bars
	// minWidth is the minimum width of a bar in percent, so that two hours are visible beside a
	// year. Bars narrower than gapWidth have no gap between them, because the gap would hide them.
	minWidth, gapWidth = 0.3, 0.6
)

// blocksPage is the page at /blocks.
type blocksPage struct {
	Snap    Snapshot
	Total   int // served
	Found   int // of Total
	LeftOut int // of Found, beyond maxDrawn
	// GroupsLeftOut are the sets of external labels beyond maxGroups.
	GroupsLeftOut int
	Days          int // only blocks with samples in the last Days are shown; 0 = all
	Zoom          []int
	Search        blockSearch
	Min, Max      int64
	Ticks         []tick
	Groups        []*group
	Rows          []Block // a page of those found, newest first
	Rest          pager
	Gaps          []gap // the first maxBroken of GapTotal
	GapTotal      int
	// Absent are blocks that are not served, a page of those found. Damaged are the damaged ones of
	// the bucket, at most maxNamed.
	Absent     []absent
	Damaged    []Broken
	AbsentRest pager
	// Irregular are irregular blocks, at most maxBroken of IrregularTotal.
	Irregular      []Block
	IrregularTotal int
}

// tick is a mark on the time axis.
type tick struct {
	X     float64 // percent of the width
	Text  string  // "" where it would not fit
	Minor bool    // the text is left out in narrow windows
}

// group is the blocks of one external label set.
type group struct {
	Title  string
	Labels string
	Blocks []Block // by time, newest first
	Lanes  []*lane
	Size   int64
	Series uint64
}

// lane is the blocks of a group that have one resolution.
type lane struct {
	Name   string
	Count  int
	Height int
	Ticks  []tick
	Bars   []bar
	Gaps   []gap

	resolution int64
	rows       []int64 // the end of each row's last bar
	covered    int64   // the end of all blocks so far
}

// gap is a time between two blocks of a lane that no block of the lane covers, also none that
// another process serves. X and Width are in percent.
type gap struct {
	X, Width       float64
	From, To       int64
	Labels, Series string // of the lane: its external labels and resolution
}

// Length returns the length of the gap in milliseconds.
func (g gap) Length() int64 { return g.To - g.From }

// bar is a block in its lane. X and Width are in percent, Y is in pixels. Shade is the compaction
// level, 1 to 5.
type bar struct {
	X, Width float64
	Y        int
	Shade    int
	Narrow   bool
	Block    Block
}

func (p *pages) serveBlocks(w http.ResponseWriter, r *http.Request) {
	days := 0
	if s := r.FormValue("days"); s != "" {
		var err error
		if days, err = strconv.Atoi(s); err != nil || days < 1 || days > maxDays {
			http.Error(
				w, fmt.Sprintf("days: %q is not a number from 1 to %d", s, maxDays),
				http.StatusBadRequest,
			)
			return
		}
	}
	search, err := newBlockSearch(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	snap := p.Blocks.Snapshot()
	found := snap
	found.Blocks = search.blocks(snap.Blocks)
	page := drawBlocks(found, p.Label, days)
	page.Total, page.Snap, page.Search = len(snap.Blocks), snap, search
	page.Damaged, _ = snap.damaged()
	page.fill(found.Blocks, r)
	p.render(w, r, p.blocks, "larder: blocks", page)
}

// drawBlocks lays out the blocks on one time axis. If days is not 0, it omits blocks that end
// before the last days.
func drawBlocks(snap Snapshot, label string, days int) *blocksPage {
	page := &blocksPage{
		Snap: snap, Total: len(snap.Blocks), Found: len(snap.Blocks), Days: days,
		Zoom: []int{2, 14, 91, 364},
	}
	for _, b := range snap.Blocks {
		if b.Irregular == "" {
			continue
		}
		if page.IrregularTotal++; page.IrregularTotal <= maxBroken {
			page.Irregular = append(page.Irregular, b)
		}
	}
	blocks := slices.Clone(snap.Blocks)
	cut := int64(math.MinInt64)
	if days > 0 && len(blocks) > 0 {
		newest := slices.MaxFunc(
			blocks, func(a, b Block) int { return cmp.Compare(a.MaxTime, b.MaxTime) },
		).MaxTime
		if length := int64(days) * (24 * time.Hour).Milliseconds(); newest > math.MinInt64+length {
			cut = newest - length
		}
		blocks = slices.DeleteFunc(blocks, func(b Block) bool { return b.MaxTime <= cut })
	}
	if page.LeftOut = max(0, len(blocks)-maxDrawn); page.LeftOut > 0 {
		slices.SortFunc(blocks, func(a, b Block) int { return cmp.Compare(b.MaxTime, a.MaxTime) })
		blocks = blocks[:maxDrawn]
	}
	if len(blocks) == 0 {
		return page
	}
	slices.SortFunc(blocks, func(a, b Block) int {
		return cmp.Or(
			cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(b.MaxTime, a.MaxTime),
			a.ID.Compare(b.ID),
		)
	})
	page.Min, page.Max = max(cut, blocks[0].MinTime), blocks[0].MaxTime
	for _, b := range blocks {
		page.Max = max(page.Max, b.MaxTime)
	}
	page.Ticks = ticks(page.Min, page.Max)

	// Floats, because the difference of two times may overflow 64 bits.
	from, width := float64(page.Min), max(1, float64(page.Max)-float64(page.Min))
	groups := map[string]*group{}
	for _, b := range blocks {
		key := string(b.Labels.Bytes(nil))
		g := groups[key]
		if g == nil {
			g = &group{Labels: b.Labels.String(), Title: b.Labels.Get(label)}
			if g.Title == "" {
				g.Title = g.Labels
			}
			groups[key] = g
			page.Groups = append(page.Groups, g)
		}
		g.Blocks = append(g.Blocks, b)
		g.Size += b.Size
		g.Series += b.Series
		visible := float64(max(b.MinTime, page.Min))
		g.lane(b.Resolution).
			add(b, (visible-from)/width*100, (float64(b.MaxTime)-visible)/width*100)
	}
	slices.SortFunc(page.Groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.Title, b.Title), cmp.Compare(a.Labels, b.Labels))
	})
	elsewhere := servedElsewhere(snap.Excluded)
	page.GroupsLeftOut = max(0, len(page.Groups)-maxGroups)
	page.Groups = page.Groups[:len(page.Groups)-page.GroupsLeftOut]
	for _, g := range page.Groups {
		slices.Reverse(g.Blocks)
		slices.SortFunc(
			g.Lanes, func(a, b *lane) int { return cmp.Compare(a.resolution, b.resolution) },
		)
		for _, l := range g.Lanes {
			l.fillGaps(elsewhere[laneKey{g.Labels, l.resolution}])
		}
		page.findGaps(g)
		for _, l := range g.Lanes {
			l.Height, l.Ticks = len(l.rows)*(rowHeight+2)+2, page.Ticks
		}
	}
	return page
}

// laneKey identifies a lane by its external labels and its resolution.
type laneKey struct {
	labels     string
	resolution int64
}

// servedElsewhere returns the blocks that another process serves, by their lanes and in the order
// of their times: those of other shards, and those that were converted to Parquet.
func servedElsewhere(excluded []Excluded) map[laneKey][]Block {
	out := map[laneKey][]Block{}
	for _, e := range excluded {
		if e.State == "shard" || e.State == "parquet-converted" {
			key := laneKey{e.Labels.String(), e.Resolution}
			out[key] = append(out[key], e.Block)
		}
	}
	for _, blocks := range out {
		slices.SortFunc(blocks, func(a, b Block) int { return cmp.Compare(a.MinTime, b.MinTime) })
	}
	return out
}

// fillGaps takes the times of blocks, which are in the order of their times, from the gaps.
func (l *lane) fillGaps(blocks []Block) {
	var left []gap
	for _, g := range l.Gaps {
		for _, b := range blocks {
			if b.MaxTime <= g.From || b.MinTime >= g.To {
				continue
			}
			if b.MinTime > g.From {
				left = append(left, gap{From: g.From, To: b.MinTime})
			}
			g.From = b.MaxTime
		}
		if g.From < g.To {
			left = append(left, g)
		}
	}
	l.Gaps = left
}

func (g *group) lane(resolution int64) *lane {
	for _, l := range g.Lanes {
		if l.resolution == resolution {
			return l
		}
	}
	l := &lane{resolution: resolution, Name: resolutionName(resolution)}
	g.Lanes = append(g.Lanes, l)
	return l
}

// add adds a block to the first row in which it overlaps no other. Call it in order of MinTime.
func (l *lane) add(b Block, x, width float64) {
	row := slices.IndexFunc(l.rows, func(end int64) bool { return end <= b.MinTime })
	if row < 0 {
		row = len(l.rows)
		l.rows = append(l.rows, 0)
	}
	l.rows[row] = b.MaxTime
	if l.Count > 0 && b.MinTime > l.covered {
		l.Gaps = append(l.Gaps, gap{From: l.covered, To: b.MinTime})
	}
	l.covered = max(l.covered, b.MaxTime)
	l.Count++
	l.Bars = append(l.Bars, bar{
		X: min(x, 100-minWidth), Width: max(width, minWidth), Y: row*(rowHeight+2) + 2,
		Shade: min(max(b.Level, 1), 5), Narrow: width < gapWidth, Block: b,
	})
}

func resolutionName(ms int64) string {
	if ms == 0 {
		return "raw"
	}
	return formatSpan(ms)
}

// ticks returns marks at round times, at most nine.
func ticks(from, to int64) []tick {
	const most = 8
	width := float64(to) - float64(from)
	const day = 24 * time.Hour
	steps := []time.Duration{
		time.Minute, 5 * time.Minute, 15 * time.Minute,
		time.Hour, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour,
		day, 2 * day, 7 * day, 14 * day, 28 * day, 91 * day, 182 * day, 364 * day,
	}
	i := slices.IndexFunc(
		steps, func(s time.Duration) bool { return width/float64(s.Milliseconds()) <= most },
	)
	if i < 0 {
		i = len(steps) - 1
	}
	step := steps[i].Milliseconds()
	for width/float64(step) > most {
		step *= 2
	}
	format := "2006-01-02"
	if step < day.Milliseconds() {
		format = "01-02 15:04"
	}
	var out []tick
	first := from - from%step
	if first < from {
		first += step
	}
	for t := first; t <= to && len(out) <= most; t += step {
		k := tick{X: (float64(t) - float64(from)) / width * 100}
		if k.X <= 92 {
			k.Text = at(t).Format(format)
		}
		k.Minor = len(out)%3 != 0 || k.X > 80
		out = append(out, k)
	}
	return out
}
