package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"larder/store/inspection"
)

// maxRows bounds the rows of lists that may be long. JSON has all of them.
const maxRows = 20

// title prints a heading.
func (o *reportWriter) title(format string, args ...any) {
	o.printf("\n"+format+"\n", args...)
}

func (o *reportWriter) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(o.w, format, args...); err != nil && o.err == nil {
		o.err = err
	}
}

// table prints rows of cells. Figures are in all columns but the first, and aligned to the right.
func (o *reportWriter) table(flags uint, rows ...[]string) {
	t := tabwriter.NewWriter(o.w, 0, 0, 2, ' ', flags)
	for _, cells := range rows {
		end := ""
		if flags&tabwriter.AlignRight != 0 {
			end = "\t"
		}
		if _, err := fmt.Fprintln(t, "  "+strings.Join(cells, "\t")+end); err != nil {
			o.err = err
		}
	}
	if err := t.Flush(); err != nil && o.err == nil {
		o.err = err
	}
}

// list prints at most maxRows rows below a header. all is the number of rows that there are.
func (o *reportWriter) list(all int, header []string, rows [][]string) {
	shown := rows[:min(len(rows), maxRows)]
	o.table(0, append([][]string{header}, shown...)...)
	if more := all - len(shown); more > 0 {
		o.printf("  and %d more: see --output=json\n", more)
	}
}

// sizeText returns a number of bytes in decimal units.
func sizeText(n int64) string {
	units := []string{"B", "KB", "MB", "GB", "TB", "PB"}
	v, i := float64(n), 0
	for v >= 999.5 && i+1 < len(units) {
		v /= 1000
		i++
	}
	if i == 0 || v >= 99.95 {
		return fmt.Sprintf("%.0f %s", v, units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

func decimal[T ~int | ~int64 | ~uint64](n T) string { return fmt.Sprintf("%d", n) }

const minuteLayout = "2006-01-02 15:04"

func rangeText(r inspection.TimeRange) string {
	if r.From == nil || r.To == nil {
		return "-"
	}
	return timeText(r.From) + " to " + timeText(r.To)
}

// timeText returns a time to the minute, or to the second where that matters.
func timeText(t *time.Time) string {
	switch {
	case t == nil:
		return "-"
	case t.Truncate(time.Minute).Equal(*t):
		return t.Format(minuteLayout)
	}
	return t.Format(time.DateTime)
}

func totalsCells(t inspection.Totals) []string {
	return []string{decimal(t.Blocks), sizeText(t.Bytes), decimal(t.Series)}
}

// totals prints one line about blocks.
func (o *reportWriter) totals(what string, t inspection.Totals) {
	o.printf("%s: %d blocks, %s, %d series\n", what, t.Blocks, sizeText(t.Bytes), t.Series)
}

func (o *reportWriter) left(left []inspection.Left) {
	for _, l := range left {
		o.totals("Left out, "+l.State, l.Totals)
	}
}

func (o *reportWriter) bad(bad []inspection.BadBlock) {
	if len(bad) == 0 {
		return
	}
	o.title("Bad blocks: %d", len(bad))
	var rows [][]string
	for _, b := range bad {
		rows = append(rows, []string{b.Block, b.State, oneLineText(b.Reason)})
	}
	o.list(len(rows), []string{"block", "state", "reason"}, rows)
}

// oneLineText keeps a text of the bucket from breaking a table.
func oneLineText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

func (o *reportWriter) shards(r *inspection.ShardsReport) {
	o.printf("Bucket %s, times are UTC\n", r.Bucket)
	o.totals("Blocks of all shards", r.Selected)
	if r.Covered.Blocks > 0 {
		o.totals("Among them replaced by larger ones", r.Covered)
	}
	o.left(r.Left)
	for _, s := range r.Schemes {
		o.title("%s, %d shards", s.Kind, s.Count)
		rows := [][]string{{"shard", "blocks", "size", "series", "time range"}}
		for _, sh := range s.Shards {
			rows = append(rows, slices.Concat([]string{decimal(sh.Ordinal)},
				totalsCells(sh.Totals), []string{rangeText(sh.Range)}))
		}
		rows = append(rows, []string{"largest to mean", ratioText(s.Imbalance.Blocks),
			ratioText(s.Imbalance.Bytes), ratioText(s.Imbalance.Series), rangeText(r.Range)})
		o.table(0, rows...)
	}
	for _, m := range r.Moves {
		o.title("From %s to %s: %d of %d blocks move (%.1f %%), %s (%.1f %%), %d series",
			m.From, m.To, m.Moved.Blocks, r.Selected.Blocks, 100*m.Share, sizeText(m.Moved.Bytes),
			100*m.BytesShare, m.Moved.Series)
		rows := [][]string{{"shard", "gains", "size", "series", "loses", "size", "series"}}
		for _, s := range m.Shards {
			rows = append(rows, slices.Concat(
				[]string{decimal(s.Ordinal)}, totalsCells(s.Gains), totalsCells(s.Loses)))
		}
		o.table(0, rows...)
	}
	o.bad(r.Bad)
}

func ratioText(v float64) string { return fmt.Sprintf("%.2f", v) }

func labelsText(set map[string]string) string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(set)) {
		pairs = append(pairs, fmt.Sprintf("%s=%q", name, set[name]))
	}
	return "{" + strings.Join(pairs, ", ") + "}"
}

func (o *reportWriter) block(r *inspection.BlockReport) {
	o.printf("Block %s of bucket %s, times are UTC\n", r.Block, r.Bucket)
	rows := [][]string{
		{"state", r.State},
		{"labels", labelsText(r.Labels)},
		{"resolution", r.Resolution},
		{"time range", rangeText(r.Range)},
		{"compaction", fmt.Sprintf("level %d, of %d sources", r.Level, r.Sources)},
		{"content", fmt.Sprintf("%d series, %d chunks", r.Series, r.Chunks)},
	}
	indexed := r.Header.Bytes > 0
	if indexed {
		rows = append(rows, []string{"index", fmt.Sprintf("%s in %d pages, format %d: series %s, "+
			"postings %s, symbols %s (%d), tables %s", sizeText(r.Index.Bytes), r.Index.Pages,
			r.Index.Version, sizeText(r.Index.SeriesBytes), sizeText(r.Index.PostingBytes),
			sizeText(r.Index.SymbolBytes), r.Index.Symbols, sizeText(r.Index.TableBytes))})
	}
	rows = append(rows, []string{"chunks", fmt.Sprintf("%s in %d pages, %d files",
		sizeText(r.ChunkFiles.Bytes), r.ChunkFiles.Pages, r.ChunkFiles.Files)})
	if indexed {
		rows = append(rows, []string{"index header", fmt.Sprintf(
			"%s on disk, %s in memory while open", sizeText(r.Header.Bytes),
			sizeText(r.Header.OpenBytes))})
	}
	if r.Uploaded != nil {
		rows = append(rows, []string{"uploaded", timeText(r.Uploaded)})
	}
	for _, m := range r.Marks {
		rows = append(rows, []string{m.Mark, markText(m)})
	}
	if r.Shape != "" {
		rows = append(rows, []string{"irregular", r.Shape})
	}
	if r.Incomplete != "" {
		rows = append(rows, []string{"incomplete", r.Incomplete})
	}
	o.table(0, rows...)
	if !indexed {
		return
	}
	o.title("Largest of %d labels, by posting lists", r.LabelNames)
	rows = [][]string{{"label", "values", "series", "size", "most frequent value", "series"}}
	for _, l := range r.Largest {
		rows = append(rows, []string{oneLineText(l.Name), decimal(l.Values), decimal(l.Series),
			sizeText(l.Bytes), fmt.Sprintf("%q", l.Top), decimal(l.TopSeries)})
	}
	o.table(0, rows...)
	how := "defaults, not measured"
	if r.Prices.Measured {
		how = "measured"
	}
	o.title("Costs without a cache (%s: first byte %s, %s/s for one read, %s for a request)", how,
		secondsText(r.Prices.FirstByteSeconds), sizeText(int64(r.Prices.BytesPerSecond)),
		secondsText(r.Prices.PerRequestSeconds))
	rows = [][]string{{"read", "requests", "size", "cost as time", "USD"}}
	for _, c := range r.Costs {
		rows = append(rows, []string{oneLineText(c.What), decimal(c.Requests), sizeText(c.Bytes),
			secondsText(c.Seconds), fmt.Sprintf("%g", c.USD)})
	}
	o.table(0, rows...)
}

func secondsText(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func markText(m inspection.Marked) string {
	return strings.TrimSpace(oneLineText(timeText(m.At) + " " + m.Reason + " " + m.Details))
}
