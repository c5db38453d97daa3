package config

import "slices"

// Kind is a kind of data that a cache holds. Each kind has a limit of its own, so that no kind
// evicts another.
type Kind int

// The kinds, and their number.
const (
	IndexPages Kind = iota
	ExpandedPostings
	SeriesSets
	ChunkPages
	HeaderBlocks
	Kinds
)

// String returns the name of the kind in the log.
func (k Kind) String() string {
	return [Kinds]string{
		"index_pages", "expanded_postings", "series_sets", "chunk_pages", "header_blocks",
	}[k]
}

// minBytes returns the size below which a cache of the kind holds next to nothing, whatever its
// page size. The fixed parts of a cache take 0.4 MiB. The cache of header blocks has no fixed
// parts, but it only accepts values smaller than an eighth of its size.
func (k Kind) minBytes() int64 {
	if k == HeaderBlocks {
		return 256 << 10
	}
	return 1 << 20
}

// weight returns the share of the kind when bytes are divided.
//
// The index side is divided 60:10:30. Pages get most, because they can answer every request
// without the bucket, including what the other two hold. Expanded postings take one to four bytes
// for each series where a page takes about fifty, so a small cache suffices. Series sets take
// about 360 bytes for each series and save only CPU. A set is cached only if it takes at most a
// third of their cache, and the default should be enough for 50,000 series (18 MB). After the
// requests of `larder demo` have run twice, the caches hold 2.4 MB of index pages, 0.04 MB of
// expanded postings and 3.4 MB of series sets.
//
// Index side, chunk pages and header blocks are divided 30:62:8, the same as their defaults
// without a memory limit.
func (k Kind) weight() int64 {
	return [Kinds]int64{36, 6, 18, 124, 16}[k]
}

// division divides the bytes of an amount, except for less bytes that are taken already, among
// kinds.
type division struct {
	of   *Amount
	less int64
	to   []Kind
}

// divide sets the limits of the caches of d.to. A kind that would get less than minBytes gets
// nothing, the kind with the lowest weight first. A small amount therefore makes a few useful
// caches and not many useless ones.
func (d division) divide(minBytes func(Kind) int64, limits *[Kinds]int64) {
	bytes := d.of.Bytes - d.less
	to := slices.Clone(d.to)
	slices.SortFunc(to, func(a, b Kind) int { return int(a.weight() - b.weight()) })
	for {
		var all int64
		for _, k := range to {
			all += k.weight()
		}
		part := func(k Kind) int64 { return bytes/all*k.weight() + bytes%all*k.weight()/all }
		small := slices.IndexFunc(to, func(k Kind) bool { return part(k) < minBytes(k) })
		if small >= 0 && len(to) > 1 {
			to = slices.Delete(to, small, small+1)
			continue
		}
		for _, k := range to {
			limits[k] = part(k)
		}
		return
	}
}
