package pagecache

import (
	"larder/internal/bucket/cost"
	"larder/internal/bytecache"
)

// Estimate says what a Fetch would read of the bucket: with empty caches, and with what memory and
// disk have now. Memcached is not asked, because that would be a read.
type Estimate struct {
	// Pages and Bytes are what the spans lie in. Memory and Disk are the pages found there.
	Pages, Bytes, Memory, Disk int64
	Cold, Warm                 Reads
}

// Reads are reads of the bucket that are sent together. Longest is the largest of them, in bytes.
type Reads struct {
	Requests, Bytes, Longest int64
}

// Add adds o to e, for reads that are sent at the same time.
func (e *Estimate) Add(o Estimate) {
	e.Pages += o.Pages
	e.Bytes += o.Bytes
	e.Memory += o.Memory
	e.Disk += o.Disk
	e.Cold.Add(o.Cold)
	e.Warm.Add(o.Warm)
}

// Add adds o to r.
func (r *Reads) Add(o Reads) {
	r.Requests += o.Requests
	r.Bytes += o.Bytes
	r.Longest = max(r.Longest, o.Longest)
}

// locator tells which values a disk has without reading them: *bytecache.Tiered.
type locator interface {
	OnDisk(keys []bytecache.Key) []bool
}

// Estimate says what Fetch would read for the same arguments. It reads nothing. Looking for a page
// in memory counts as a use of it. The answer may be wrong about pages that arrive or are evicted
// before the Fetch, and about pages that another request is reading.
func (r *Reader) Estimate(obj Object, spans []Span) (Estimate, error) {
	obj = r.named(obj)
	pages, t, err := r.touch(obj, spans)
	if err != nil {
		return Estimate{}, err
	}
	e := Estimate{Pages: t.touched, Bytes: t.touchedBytes}
	need := make([]int64, 0, len(pages.list))
	missing := make([]int64, 0, len(pages.list))
	var keys []bytecache.Key
	for _, p := range pages.list {
		need = append(need, p.no)
		if _, ok := r.cached(obj, p.no); ok {
			e.Memory++
			continue
		}
		missing = append(missing, p.no)
		if key, ok := obj.cacheKey(p.no, r.shift); ok {
			keys = append(keys, key)
		}
	}
	if l, ok := r.cache.(locator); ok && len(keys) == len(missing) {
		left := missing[:0]
		for i, has := range l.OnDisk(keys) {
			if has {
				e.Disk++
			} else {
				left = append(left, missing[i])
			}
		}
		missing = left
	}
	m, g := r.opts.Costs.Model(), r.geometry(obj)
	e.Cold, e.Warm = readsOf(g, need, m), readsOf(g, missing, m)
	return e, nil
}

// readsOf returns the reads that cover the needed pages.
func readsOf(g geometry, need []int64, m cost.Model) (out Reads) {
	for _, read := range plan(g, need, m) {
		off, end := g.bounds(read)
		out.Add(Reads{Requests: 1, Bytes: end - off, Longest: end - off})
	}
	return out
}
