package pagecache

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"larder/internal/bucket/cost"
)

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

// traced adds the plan of a Fetch to the span of its request, with the cost of reading no gaps.
func (r *Reader) traced(ctx context.Context, c *claims) {
	span := trace.SpanFromContext(ctx)
	if len(c.own) == 0 || !span.IsRecording() {
		return
	}
	m, apart := r.opts.Costs.Model(), stretches(r.geometry(c.obj), c.need)
	var bytes int64
	reads := make([]cost.Extent, len(c.own))
	for i, f := range c.own {
		reads[i] = cost.Extent{Off: f.off, End: f.end}
		bytes += f.end - f.off
	}
	span.AddEvent("bucket_reads_planned", trace.WithAttributes(
		attribute.String("object", c.obj.Name),
		attribute.Int("requests", len(reads)), attribute.Int64("bytes", bytes),
		attribute.Int64("cost_us", m.Cost(reads).Microseconds()),
		attribute.Int("stretches", len(apart)),
		attribute.Int64("stretches_cost_us", m.Cost(apart).Microseconds()),
	))
}
