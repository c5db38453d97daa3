package pagecache

import "slices"

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

func (g geometry) bytes(r read) int64 {
	off, end := g.bounds(r)
	return end - off
}

// plan returns reads (ascending, disjoint) that cover the needed pages (ascending, distinct).
// Adjoining pages are read together. Then neighbouring reads are joined, smallest gap first, while
// all bytes stay within amplification times the needed bytes and each read within maxRead. A
// stretch of needed pages longer than maxRead becomes several reads of about equal length.
//
// Smallest gap first gives the fewest reads unless maxRead prevents a join, because every join
// saves one request and costs its gap.
func plan(g geometry, need []int64, amplification float64, maxRead int64) []read {
	if len(need) == 0 {
		return nil
	}
	reads := stretches(g, need, maxRead)
	if len(reads) == 1 {
		return reads
	}
	var needed int64
	for _, r := range reads {
		needed += g.bytes(r)
	}
	spare := int64(float64(needed)*amplification) - needed
	return joinGaps(g, reads, spare, maxRead)
}

// stretches returns the longest stretches of adjoining pages, split at maxRead.
func stretches(g geometry, need []int64, maxRead int64) []read {
	maxPages := max(maxRead>>g.shift, 1)
	var reads []read
	for i := 0; i < len(need); {
		j := i + 1
		for j < len(need) && need[j] == need[j-1]+1 {
			j++
		}
		first, pages := need[i], int64(j-i)
		for parts := (pages + maxPages - 1) / maxPages; parts > 0; parts-- {
			n := (pages + parts - 1) / parts
			reads = append(reads, read{first, first + n - 1})
			first += n
			pages -= n
		}
		i = j
	}
	return reads
}

// joinGaps joins neighbouring reads for at most spare bytes of gaps.
func joinGaps(g geometry, reads []read, spare, maxRead int64) []read {
	type gap struct {
		left  int // the reads left and left+1 enclose it
		pages int64
	}
	gaps := make([]gap, 0, len(reads)-1)
	for i := range len(reads) - 1 {
		pages := reads[i+1].first - reads[i].last - 1
		// An empty gap is where a stretch was split.
		if pages > 0 && pages<<g.shift <= spare {
			gaps = append(gaps, gap{left: i, pages: pages})
		}
	}
	slices.SortStableFunc(gaps, func(a, b gap) int { return int(min(max(a.pages-b.pages, -1), 1)) })

	// INVARIANT: for a group of joined reads from a to b, head[b] is a and tail[a] is b. Other
	// entries are stale.
	head, tail := make([]int, len(reads)), make([]int, len(reads))
	for i := range reads {
		head[i], tail[i] = i, i
	}
	joined := make([]bool, len(reads)) // joined[i]: read i continues into read i+1
	for _, gp := range gaps {
		cost := gp.pages << g.shift // a gap never has the object's short last page
		if cost > spare {
			break
		}
		from, to := head[gp.left], tail[gp.left+1]
		if g.bytes(read{reads[from].first, reads[to].last}) > maxRead {
			continue
		}
		spare -= cost
		joined[gp.left] = true
		head[to], tail[from] = from, to
	}
	out := reads[:0]
	for i := 0; i < len(reads); {
		j := i
		for joined[j] {
			j++
		}
		out = append(out, read{reads[i].first, reads[j].last})
		i = j + 1
	}
	return out
}
