package block

import "larder/internal/pagecache"

// pageBytes returns the size of the pages that cover spans, which are sorted by Off.
func pageBytes(spans []pagecache.Span, page int64) int64 {
	n, next := int64(0), int64(0)
	for _, s := range spans {
		last := (s.End-1)/page + 1
		n += max(last-max(s.Off/page, next), 0)
		next = max(next, last)
	}
	return n * page
}

// pageSizeOf returns the page size of a cache, or otherwise if the cache does not tell.
func pageSizeOf(pages Pages, otherwise int64) int64 {
	if p, ok := pages.(interface{ PageSize() int }); ok {
		return int64(p.PageSize())
	}
	return otherwise
}
