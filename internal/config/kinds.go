package config

import "slices"

// kind is what the caches hold, one after the other. Each has its own allowance, so that none is displaced by another.
type Kind int

const (
	IndexPages Kind = iota
	ExpandedPostings
	SeriesSets
	ChunkPages
	HeaderBlocks
	Kinds // their number
)

// String is the kind's name in the log.
func (k Kind) String() string {
	return [Kinds]string{"index_pages", "expanded_postings", "series_sets", "chunk_pages", "header_blocks"}[k]
}

// least is what the kind needs to keep anything, unless its pages are large: the fixed parts of a cache take 0.4 MiB; those of blocks of headers
// have none, but keep only what is less than an eighth.
func (k Kind) least() int64 {
	if k == HeaderBlocks {
		return 256 << 10
	}
	return 1 << 20
}

// weight is the kind's part of what is divided.
//
// The index side is divided as 60 to 10 to 30. Pages come first because everything can be answered from them without the bucket, what the
// other two hold included. Expanded postings take one to four bytes a series where a page holds some fifty for it, so that little space goes
// far. Series sets are the largest for what they hold, some 360 bytes a series, and save only work; but a set is kept only up to a third of
// their space, and by default that should be enough for 50,000 series (18 MB). The questions of `larder demo`, asked twice, leave 2.4 MB of
// index pages, 0.04 MB of expanded postings and 3.4 MB of series sets.
//
// Index side, chunk pages and header blocks are to one another as 30 to 62 to 8, as they are by default without a memory limit.
func (k Kind) weight() int64 {
	return [Kinds]int64{36, 6, 18, 124, 16}[k]
}

// division is bytes, without those of them that have their place already, and the kinds that share what is left.
type division struct {
	of   *Amount
	less int64
	to   []Kind
}

// divide puts the parts into kept. A kind that would get less than it can use, least, gets none, the one of the least weight first, so that a
// small whole is some kinds that work and not all of them too small.
func (d division) divide(least func(Kind) int64, kept *[Kinds]int64) {
	bytes := d.of.Bytes - d.less
	to := slices.Clone(d.to)
	slices.SortFunc(to, func(a, b Kind) int { return int(a.weight() - b.weight()) })
	for {
		var all int64
		for _, k := range to {
			all += k.weight()
		}
		part := func(k Kind) int64 { return bytes/all*k.weight() + bytes%all*k.weight()/all }
		small := slices.IndexFunc(to, func(k Kind) bool { return part(k) < least(k) })
		if small >= 0 && len(to) > 1 {
			to = slices.Delete(to, small, small+1)
			continue
		}
		for _, k := range to {
			kept[k] = part(k)
		}
		return
	}
}
