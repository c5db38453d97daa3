package warm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/pagecache"
	"larder/store/catalog"
)

// MaxHeatBytes bounds what Heat returns.
const MaxHeatBytes = maxSnapshotBytes + maxPagesBytes

const (
	// maxHeatPages is the most pages in a Heat, 2 GiB at 8 KiB each: more than a hand-over reads.
	maxHeatPages = 1 << 18
	// maxPagesBytes bounds their encoding.
	maxPagesBytes = 4 << 20
	// maxPageNumber bounds the numbers of pages, as the caches do.
	maxPageNumber = 1 << 26
	// readAtOnce is how many bytes of pages are read and reserved at once.
	readAtOnce = 256 << 10
)

// The outcomes of a hot page, in metrics.
const (
	pageRead    = "read"
	pageSkipped = "skipped"
)

// Pages is a cache of pages: *indexcache.Cache and *chunkcache.Cache.
type Pages interface {
	PageSize() int
	EachResident(f func(pagecache.Resident))
}

// filePages are pages of a file of a block.
type filePages struct {
	id    ulid.ULID
	file  int
	asked bool             // several requests have used them
	spans []pagecache.Span // sorted and disjoint
}

// Heat returns what the process that takes over blocks should warm: the matcher sets that were
// recorded for them, and the addresses of their pages in memory. Pages that several requests used
// come first, then newer blocks, and indexes before chunks.
//
// It is the length and content of the encoded sets. For each file with pages follow the ULID, the
// number of the file with a bit for asked, the page size, and the number of runs of pages. A run
// has the pages between it and the one before, and its own. Numbers are uvarints.
func (w *Warmer) Heat(blocks []ulid.ULID) []byte {
	want := make(map[ulid.ULID]bool, len(blocks))
	for _, id := range blocks {
		want[id] = true
	}
	sets, _ := w.opts.Recorder.encode(func(id ulid.ULID) bool { return want[id] })
	p := append(binary.AppendUvarint(nil, uint64(len(sets))), sets...)
	view := w.known()
	if view == nil {
		return p
	}
	byNumber := map[uint32]ulid.ULID{}
	for id := range want {
		if b := view.ByID(id); b != nil {
			byNumber[b.Number] = id
		}
	}
	return append(p, encodePages(residents(byNumber, w.opts.Index, w.opts.Chunks))...)
}

// heatOf returns the addresses of the pages in memory of all blocks of a view, encoded as in Heat.
func (w *Warmer) heatOf(view *catalog.View) []byte {
	byNumber := make(map[uint32]ulid.ULID, len(view.Blocks))
	for _, b := range view.Blocks {
		byNumber[b.Number] = b.ID
	}
	return encodePages(residents(byNumber, w.opts.Index, w.opts.Chunks))
}

// pageSet are the pages of a file of a block that are in memory.
type pageSet struct {
	id       ulid.ULID
	file     int
	asked    bool
	pageSize int64
	pages    []int64
}

// residents returns the pages in memory of blocks, given by their numbers, hottest first.
func residents(byNumber map[uint32]ulid.ULID, index, chunks Pages) []pageSet {
	type place struct {
		id    ulid.ULID
		file  int
		asked bool
	}
	found := map[place]*pageSet{}
	list := func(cache Pages) {
		if cache == nil {
			return
		}
		size := int64(cache.PageSize())
		cache.EachResident(func(r pagecache.Resident) {
			id, ok := byNumber[r.Block]
			if !ok {
				return
			}
			at := place{id, r.File, r.Asked}
			if found[at] == nil {
				found[at] = &pageSet{id: id, file: r.File, asked: r.Asked, pageSize: size}
			}
			found[at].pages = append(found[at].pages, r.Page)
		})
	}
	list(index)
	list(chunks)
	var sets []pageSet
	for _, s := range found {
		slices.Sort(s.pages)
		sets = append(sets, *s)
	}
	slices.SortFunc(sets, func(a, b pageSet) int {
		if a.asked != b.asked {
			if a.asked {
				return -1
			}
			return 1
		}
		return cmp.Or(b.id.Compare(a.id), a.file-b.file)
	})
	return sets
}

// encodePages encodes as many pages as a Heat may have.
func encodePages(sets []pageSet) []byte {
	var p []byte
	left := maxHeatPages
	for _, s := range sets {
		s.pages = s.pages[:min(len(s.pages), left)]
		if len(s.pages) == 0 {
			break
		}
		var runs []byte
		n, after := 0, int64(0)
		for i := 0; i < len(s.pages); n++ {
			first, last := s.pages[i], s.pages[i]
			for i++; i < len(s.pages) && s.pages[i] == last+1; i++ {
				last++
			}
			runs = binary.AppendUvarint(runs, uint64(first-after))
			runs = binary.AppendUvarint(runs, uint64(last+1-first))
			after = last + 1
		}
		flags := uint64(s.file) << 1
		if s.asked {
			flags |= 1
		}
		head := binary.AppendUvarint(bytes.Clone(s.id[:]), flags)
		head = binary.AppendUvarint(head, uint64(s.pageSize))
		head = binary.AppendUvarint(head, uint64(n))
		if len(p)+len(head)+len(runs) > maxPagesBytes {
			break
		}
		p = append(append(p, head...), runs...)
		left -= len(s.pages)
	}
	return p
}

// decodeHeat decodes what Heat returned. ok is false for a payload that it cannot have returned.
func decodeHeat(payload []byte) (sets snapshot, pages []filePages, ok bool) {
	d := decoder{data: payload}
	if sets, ok = decode(d.bytes()); !ok || d.bad {
		return snapshot{}, nil, false
	}
	if pages, ok = decodePages(d.data); !ok {
		return snapshot{}, nil, false
	}
	return sets, pages, true
}

// decodePages decodes what encodePages returned. ok is false for another payload.
func decodePages(payload []byte) (pages []filePages, ok bool) {
	d := decoder{data: payload}
	left := uint64(maxHeatPages)
	for len(d.data) > 0 && !d.bad {
		var f filePages
		copy(f.id[:], d.next(uint64(len(f.id))))
		flags, size, runs := d.uvarint(), d.uvarint(), d.uvarint()
		if flags>>1 >= 1<<14 || size == 0 || size > 1<<20 {
			return nil, false
		}
		f.file, f.asked = int(flags>>1), flags&1 != 0
		at := uint64(0)
		for range runs {
			gap, n := d.uvarint(), d.uvarint()
			if d.bad || n == 0 || n > left || gap > maxPageNumber || at+gap+n > maxPageNumber {
				return nil, false
			}
			at += gap
			f.spans = append(f.spans, pagecache.Span{
				Off: int64(at * size), End: int64((at + n) * size),
			})
			at += n
			left -= n
		}
		pages = append(pages, f)
	}
	return pages, !d.bad
}

// pageReads is a part of the pages of a file, small enough for one read.
type pageReads struct {
	block *catalog.Block
	file  int
	how   pagecache.Warming
	spans []pagecache.Span
}

// readsOf divides the pages of blocks into reads, in their order. block returns nil for a block
// whose pages are left out.
func readsOf(
	pages []filePages, block func(ulid.ULID) *catalog.Block, diskOnly bool,
) (reads []pageReads) {
	for _, f := range pages {
		b := block(f.id)
		if b == nil {
			continue
		}
		how := pagecache.Warming{Asked: f.asked, DiskOnly: diskOnly}
		r := pageReads{block: b, file: f.file, how: how}
		left := int64(readAtOnce)
		for _, s := range f.spans {
			for s.Off < s.End {
				n := min(s.End-s.Off, left)
				r.spans = append(r.spans, pagecache.Span{Off: s.Off, End: s.Off + n})
				s.Off += n
				if left -= n; left == 0 {
					reads = append(reads, r)
					r.spans, left = nil, readAtOnce
				}
			}
		}
		if len(r.spans) > 0 {
			reads = append(reads, r)
		}
	}
	return reads
}

// readPages reads pages that were hot where the blocks were served, or before the restart, until
// all are read, ctx ends or b is spent.
func (w *Warmer) readPages(ctx context.Context, purpose string, reads []pageReads, b *budget) {
	if len(reads) == 0 {
		return
	}
	start := time.Now()
	var next, done, fetched atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, len(reads)) {
		wg.Go(func() {
			for ctx.Err() == nil && !b.spent() {
				i := int(next.Add(1)) - 1
				if i >= len(reads) {
					return
				}
				r := reads[i]
				err := w.panics.Do(func() error {
					return w.patiently(ctx, r.block, b, &fetched,
						func(now *catalog.Block, acct *pagecache.Account) (bool, error) {
							return w.opts.Store.WarmPages(
								ctx, now, r.file, r.spans, r.how, acct,
							)
						})
				})
				if err == nil {
					done.Add(1)
				} else if ctx.Err() == nil && !errors.Is(err, errSpent) {
					w.log.Debug("hot pages could not be read", "block", r.block.ID, "file", r.file,
						"err", err)
				}
			}
		})
	}
	wg.Wait()
	w.metrics.pageReads.WithLabelValues(pageRead).Add(float64(done.Load()))
	w.metrics.pageReads.WithLabelValues(pageSkipped).Add(float64(len(reads)) - float64(done.Load()))
	w.metrics.bytes.WithLabelValues(purpose).Add(float64(fetched.Load()))
	took := time.Since(start)
	w.metrics.seconds.WithLabelValues(purpose).Add(took.Seconds())
	w.log.Info("read hot pages", "after", purpose, "reads", done.Load(), "of", len(reads),
		"bytes", fetched.Load(), "took", took.Round(time.Millisecond))
}
