package main

import (
	"fmt"
	"strings"

	"larder/store/inspection"
)

// bucket prints the report on a bucket.
func (o *reportWriter) bucket(r *inspection.BucketReport) {
	o.printf("Bucket %s, times are UTC\n", r.Bucket)
	o.printf("%d objects, of which %d belong to no block%s\n", r.Objects, r.Others,
		examples(r.Examples))
	o.totals("Served", r.Served)
	if r.Covered.Blocks > 0 {
		o.totals("Among them replaced by larger ones", r.Covered)
	}
	o.left(r.Left)

	o.title("%d label sets, %s", r.LabelSets(), rangeText(r.Range))
	rows := [][]string{{"labels", "resolution", "blocks", "size", "series", "chunks",
		"time range", "gaps", "overlaps"}}
	for _, s := range r.Streams {
		rows = append(rows, []string{oneLineText(labelsText(s.Labels)), s.Resolution,
			decimal(s.Blocks), sizeText(s.Bytes), decimal(s.Series), decimal(s.Chunks),
			rangeText(s.Range), decimal(s.GapCount), decimal(s.OverlapCount)})
	}
	o.table(0, rows...)
	o.gaps(r)
	o.overlaps(r)
	o.partial(r)
	o.marks(r)
	o.irregular(r)
	o.bad(r.Bad)
}

func examples(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return ", such as " + oneLineText(strings.Join(names, ", "))
}

func (o *reportWriter) gaps(r *inspection.BucketReport) {
	gaps, _ := r.Count()
	if gaps == 0 {
		return
	}
	o.title("Gaps: %d", gaps)
	var rows [][]string
	for _, s := range r.Streams {
		for _, g := range s.Gaps {
			rows = append(rows, []string{rangeText(g), g.To.Sub(*g.From).String(), s.Resolution,
				oneLineText(labelsText(s.Labels))})
		}
	}
	o.list(gaps, []string{"time range", "length", "resolution", "labels"}, rows)
}

func (o *reportWriter) overlaps(r *inspection.BucketReport) {
	_, overlaps := r.Count()
	if overlaps == 0 {
		return
	}
	o.title("Overlaps: %d", overlaps)
	var rows [][]string
	for _, s := range r.Streams {
		for _, v := range s.Overlaps {
			blocks := strings.Join(v.Blocks[:min(len(v.Blocks), 2)], " ")
			if v.Count > 2 {
				blocks += " ..."
			}
			rows = append(rows, []string{rangeText(v.Range), decimal(v.Count), s.Resolution,
				oneLineText(labelsText(s.Labels)), blocks})
		}
	}
	o.list(
		overlaps,
		[]string{"time range", "blocks", "resolution", "labels", "first of them"},
		rows,
	)
}

func (o *reportWriter) partial(r *inspection.BucketReport) {
	if len(r.Partial) == 0 {
		return
	}
	o.title("Blocks without a meta.json: %d", len(r.Partial))
	var rows [][]string
	for _, p := range r.Partial {
		what := "upload"
		if p.Deleting {
			what = "deletion"
		}
		rows = append(rows, []string{p.Block, what, timeText(p.Modified), decimal(p.Objects),
			fmt.Sprintf("%v", p.Index), decimal(p.Chunks)})
	}
	o.list(len(rows), []string{"block", "of", "last change", "objects", "index", "chunk files"},
		rows)
}

func (o *reportWriter) marks(r *inspection.BucketReport) {
	if len(r.Marks) == 0 {
		return
	}
	o.title("Marks: %d", len(r.Marks))
	var rows [][]string
	for _, m := range r.Marks {
		rows = append(rows, []string{m.Block, m.Mark, markText(m)})
	}
	o.list(len(rows), []string{"block", "mark", ""}, rows)
}

func (o *reportWriter) irregular(r *inspection.BucketReport) {
	switch {
	case !r.Checked:
		o.title("Irregular blocks: not checked, see --check-indexes")
	case len(r.Irregular) == 0:
		o.title("Irregular blocks: none")
	default:
		o.title("Irregular blocks: %d", len(r.Irregular))
		var rows [][]string
		for _, i := range r.Irregular {
			rows = append(rows, []string{i.Block, i.What})
		}
		o.list(len(rows), []string{"block", "found"}, rows)
	}
}
