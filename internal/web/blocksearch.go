package web

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

const (
	// rowsPerPage is how many blocks a table shows at a time.
	rowsPerPage = 100
	// maxSearch bounds the text of a search in bytes.
	maxSearch = 256
)

// blockSearch selects blocks by a part of the ULID or of the external labels, and by time.
type blockSearch struct {
	Text, From, To string // as entered
	text           string // in lower case, without quotes
	from, to       int64
}

// Any reports whether the search leaves anything out.
func (s *blockSearch) Any() bool { return s.Text != "" || s.From != "" || s.To != "" }

func newBlockSearch(r *http.Request) (s blockSearch, err error) {
	s = blockSearch{
		Text: r.FormValue("q"), From: r.FormValue("from"), To: r.FormValue("to"),
		from: math.MinInt64, to: math.MaxInt64,
	}
	if len(s.Text) > maxSearch {
		return s, fmt.Errorf("q: more than %d bytes", maxSearch)
	}
	s.text = bare(s.Text)
	for _, t := range []struct {
		name, text string
		at         *int64
	}{{"from", s.From, &s.from}, {"to", s.To, &s.to}} {
		if t.text == "" {
			continue
		}
		if day, err := time.Parse(time.DateOnly, t.text); err == nil {
			*t.at = day.UnixMilli()
		} else if *t.at, err = timeParam(r, t.name, time.Time{}); err != nil {
			return s, fmt.Errorf("%w, or a day such as 2026-01-31", err)
		}
	}
	return s, nil
}

// bare returns a text as it is compared: in lower case, without quotes.
func bare(s string) string { return strings.ToLower(strings.ReplaceAll(s, `"`, "")) }

func (s *blockSearch) matches(id ulid.ULID, ls labels.Labels, minT, maxT int64, more string) bool {
	if minT > s.to || maxT <= s.from {
		return false
	}
	return s.text == "" || strings.Contains(strings.ToLower(id.String()), s.text) ||
		strings.Contains(bare(ls.String()), s.text) || more != "" &&
		strings.Contains(bare(more), s.text)
}

// blocks returns the blocks that match.
func (s *blockSearch) blocks(all []Block) (out []Block) {
	if !s.Any() {
		return all
	}
	for _, b := range all {
		if s.matches(b.ID, b.Labels, b.MinTime, b.MaxTime, "") {
			out = append(out, b)
		}
	}
	return out
}

// absent is a block that is not served, and why.
type absent struct {
	ID               ulid.ULID
	State, Details   string
	Known            bool // the times
	MinTime, MaxTime int64
}

// absent returns the blocks that are not served and match, damaged ones first.
func (s *blockSearch) absent(snap *Snapshot) (out []absent) {
	for _, b := range snap.Broken {
		// Their times are unknown, therefore they match every time.
		if s.matches(b.ID, labels.EmptyLabels(), max(s.from, math.MinInt64+1)-1,
			math.MaxInt64, b.State) {
			a := absent{ID: b.ID, State: b.State}
			if b.Err != nil {
				a.Details = b.Err.Error()
			}
			out = append(out, a)
		}
	}
	for _, b := range snap.Excluded {
		if !s.matches(b.ID, b.Labels, b.MinTime, b.MaxTime, b.State) {
			continue
		}
		a := absent{
			ID: b.ID, State: b.State, Details: b.Labels.String(), Known: true,
			MinTime: b.MinTime, MaxTime: b.MaxTime,
		}
		if b.By != (ulid.ULID{}) {
			a.Details = "by " + b.By.String() + ", " + a.Details
		}
		out = append(out, a)
	}
	return out
}

// pager leads to the other pages of a table.
type pager struct {
	First, Last, Total int
	Before, After      string // addresses, "" for none
}

// Needed reports whether there are other pages.
func (p pager) Needed() bool { return p.Before != "" || p.After != "" }

// newPager returns the part of total rows that parameter name of the request asks for. The links
// are relative to the page.
func newPager(r *http.Request, name string, total int) (p pager, from, to int) {
	page, err := strconv.Atoi(r.FormValue(name))
	if last := max(total-1, 0) / rowsPerPage; err != nil || page < 0 || page > last {
		page = 0
	}
	from = page * rowsPerPage
	to = min(from+rowsPerPage, total)
	p = pager{First: from + 1, Last: to, Total: total}
	link := func(page int) string {
		q := url.Values{name: {strconv.Itoa(page)}}
		for _, keep := range []string{"q", "from", "to", "days", "page", "absent"} {
			if v := r.FormValue(keep); v != "" && keep != name {
				q.Set(keep, v)
			}
		}
		return "?" + q.Encode()
	}
	if page > 0 {
		p.Before = link(page - 1)
	}
	if to < total {
		p.After = link(page + 1)
	}
	return p, from, to
}

// fill fills the tables of the page.
func (page *blocksPage) fill(found []Block, r *http.Request) {
	rows := slices.Clone(found)
	slices.SortFunc(rows, func(a, b Block) int {
		return cmp.Or(cmp.Compare(b.MaxTime, a.MaxTime), b.ID.Compare(a.ID))
	})
	var from, to int
	page.Rest, from, to = newPager(r, "page", len(rows))
	page.Rows = rows[from:to]
	all := page.Search.absent(&page.Snap)
	page.AbsentRest, from, to = newPager(r, "absent", len(all))
	page.Absent = all[from:to]
}

// findGaps places the gaps of a group's lanes on the time axis and lists them.
func (page *blocksPage) findGaps(g *group) {
	from, width := float64(page.Min), max(1, float64(page.Max)-float64(page.Min))
	for _, l := range g.Lanes {
		for i := range l.Gaps {
			one := &l.Gaps[i]
			start := max(one.From, page.Min)
			one.X = (float64(start) - from) / width * 100
			one.Width = max((float64(one.To)-float64(start))/width*100, minWidth)
			one.Labels, one.Series = g.Labels, l.Name
			page.GapTotal++
			if len(page.Gaps) < maxBroken {
				page.Gaps = append(page.Gaps, *one)
			}
		}
	}
}
