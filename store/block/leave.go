package block

import "larder/internal/pagecache"

// Leave is how a request is asked whether more may be held for it than was estimated. Its zero
// value allows everything. All functions may be called by several goroutines at once, and do not
// wait.
type Leave struct {
	// Grow asks for leave to hold n more bytes; an error ends what asked.
	Grow func(n int64) error
	// TryGrow asks for leave to hold n more bytes without which what asks goes on more slowly. nil:
	// Grow is asked.
	TryGrow func(n int64) bool
	// GiveBack says that n of the bytes asked for are no longer held.
	GiveBack func(n int64)
}

func (l Leave) grow(n int64) error {
	if l.Grow == nil || n <= 0 {
		return nil
	}
	return l.Grow(n)
}

func (l Leave) tryGrow(n int64) bool {
	if l.TryGrow == nil || n <= 0 {
		return l.grow(n) == nil
	}
	return l.TryGrow(n)
}

func (l Leave) giveBack(n int64) {
	if l.GiveBack != nil && n > 0 {
		l.GiveBack(n)
	}
}

// pageBytes returns the size of the pages that spans, which are sorted by Off, lie on.
func pageBytes(spans []pagecache.Span, page int64) int64 {
	n, next := int64(0), int64(0)
	for _, s := range spans {
		last := (s.End-1)/page + 1
		n += max(last-max(s.Off/page, next), 0)
		next = max(next, last)
	}
	return n * page
}

// pageSizeOf returns the size of a cache's pages, otherwise if it does not say.
func pageSizeOf(pages Pages, otherwise int64) int64 {
	if p, ok := pages.(interface{ PageSize() int }); ok {
		return int64(p.PageSize())
	}
	return otherwise
}
