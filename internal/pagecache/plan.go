package pagecache

import "larder/internal/bucket/cost"

// read is a planned read of the pages [first, last].
type read struct {
	first, last int64
}

// geometry says how an object of a given size is divided into pages.
type geometry struct {
	shift uint
	size  int64
}

// pageLen returns the length of a page in bytes. The last page of an object may be shorter.
func (g geometry) pageLen(no int64) int64 {
	return min(g.size-no<<g.shift, 1<<g.shift)
}

// bounds returns the byte range of a read, never past the object's end.
func (g geometry) bounds(r read) (off, end int64) {
	return r.first << g.shift, min((r.last+1)<<g.shift, g.size)
}

// plan returns the cheapest reads (ascending, disjoint) that cover the needed pages (ascending,
// distinct). See cost.Model.Plan.
func plan(g geometry, need []int64, m cost.Model) []read {
	if len(need) == 0 {
		return nil
	}
	planned := m.Plan(stretches(g, need), 1<<g.shift)
	reads := make([]read, len(planned))
	for i, e := range planned {
		reads[i] = read{e.Off >> g.shift, (e.End - 1) >> g.shift}
	}
	return reads
}

// stretches returns the byte ranges of the longest stretches of adjoining pages.
func stretches(g geometry, need []int64) []cost.Extent {
	var out []cost.Extent
	for _, no := range need {
		off, end := g.bounds(read{no, no})
		if n := len(out); n > 0 && out[n-1].End == off {
			out[n-1].End = end
			continue
		}
		out = append(out, cost.Extent{Off: off, End: end})
	}
	return out
}
