package main

import "container/heap"

// optimum returns the hits of a cache of maxBytes that knows the future: it evicts the page whose
// next use is farthest away, the page just read included (Belady). Only requested pages count.
func optimum(t *trace, maxBytes int64) (dashboards, all hits) {
	type page struct {
		object int
		no     int64
	}
	const never = int(^uint(0) >> 1)
	total := 0
	for _, a := range t.accesses {
		total += len(a.pages)
	}
	next := make([]int, total) // when the page of an access is needed next
	soonest := map[page]int{}
	at := total
	for i := len(t.accesses) - 1; i >= 0; i-- {
		a := t.accesses[i]
		for j := len(a.pages) - 1; j >= 0; j-- {
			at--
			p := page{a.object, a.pages[j]}
			next[at] = never
			if n, ok := soonest[p]; ok {
				next[at] = n
			}
			soonest[p] = at
		}
	}
	held := map[page]int{} // to its next use
	var queue futures
	left := maxBytes
	for _, a := range t.accesses {
		for _, no := range a.pages {
			p, bytes := page{a.object, no}, t.pageLen(a.object, no)
			_, hit := held[p]
			all.count(bytes, hit)
			if !a.scan {
				dashboards.count(bytes, hit)
			}
			if !hit {
				left -= bytes + entryOverhead
			}
			held[p] = next[at]
			heap.Push(&queue, future{next[at], p.object, p.no})
			for left < 0 {
				f := heap.Pop(&queue).(future)
				q := page{f.object, f.no}
				if held[q] != f.at { // requested since: another entry represents it
					continue
				}
				if _, ok := held[q]; ok {
					delete(held, q)
					left += t.pageLen(q.object, q.no) + entryOverhead
				}
			}
			at++
		}
	}
	return dashboards, all
}

// future is the next use of a page.
type future struct {
	at, object int
	no         int64
}

// futures is a heap, the latest first.
type futures []future

func (f futures) Len() int           { return len(f) }
func (f futures) Less(i, j int) bool { return f[i].at > f[j].at }
func (f futures) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *futures) Push(x any)        { *f = append(*f, x.(future)) }
func (f *futures) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}
