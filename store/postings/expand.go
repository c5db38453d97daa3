package postings

import (
	"cmp"
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/store/indexheader"
)

// header is what the postings of a block are planned with: *indexheader.Header.
type header interface {
	AllPostings() indexheader.List
	ValueCount(name string) int
	Lists(
		ctx context.Context, name string, values []string, dst []indexheader.List,
	) ([]indexheader.List, error)
	Values(
		ctx context.Context, name, from string,
		f func(value []byte, l indexheader.List) (more bool, err error),
	) error
}

// defaultPageBytes is the size of an index page unless another is given.
const defaultPageBytes = 8 << 10

// postingsRequest says which series of a block are wanted.
type postingsRequest struct {
	// matchers must not be empty, and name no external label.
	matchers []*labels.Matcher
	// object is the block's index, account what reading it is charged to (nil: nobody).
	object  pagecache.Object
	account *pagecache.Account
	// seriesBytes is the mean size of a series entry, 0 = 512. Lazy matching weighs posting lists
	// against it: too large a value reads lists that exclude little, too small a one reads series
	// that do not match.
	seriesBytes int64
	// eager reads the lists of every group but the widest instead of leaving matchers pending.
	eager bool
	// complete leaves no matcher pending, whatever its lists cost. It goes with eager.
	complete bool
	// memory is the reservation for what the expansion holds; nil: there is no limit.
	memory *reservation
	// pageBytes is the size of an index page, 0 = 8 KiB.
	pageBytes int64
	// markFrom and batch are markedValues and batchLists but in tests, 0 = those.
	markFrom, batch int
}

// expanded is the answer to a postingsRequest.
type expanded struct {
	// refs are the postings as the index stores them, ascending and without duplicates. A series of
	// theirs matches if it matches pending too, with "" as the value of a label that it lacks.
	refs    []uint32
	pending []*labels.Matcher
	stats   Stats
}

// Stats says what the expansion of a block's postings took.
type Stats struct {
	// label names with matchers, and how many of them are left to be checked against the series
	Groups, Pending int
	Values          int // label values that matchers were evaluated on
	// upper bound of the postings, known from the sizes of lists before one was read
	MaxSeries int64
	Lists     int   // posting lists read
	ListBytes int64 // bytes of those lists
	// look-ups in the cache of expanded postings, and how many of them found theirs
	Lookups, Cached int
	// lists whose checksum was right only when their pages had been read again
	Repaired int
}

// Add adds o to s.
func (s *Stats) Add(o Stats) {
	s.Groups += o.Groups
	s.Pending += o.Pending
	s.Values += o.Values
	s.MaxSeries += o.MaxSeries
	s.Lists += o.Lists
	s.ListBytes += o.ListBytes
	s.Repaired += o.Repaired
	s.Lookups += o.Lookups
	s.Cached += o.Cached
}

// expandPostings returns the series of a block that match all matchers of req, by the rules of
// Prometheus's tsdb.PostingsForMatchers. The lists that it needs are read by one Fetch, but for
// those of names with very many values, and by none at all if the header knows that nothing
// matches.
func expandPostings(
	ctx context.Context, hdr header, pages Pages, req postingsRequest,
) (expanded, error) {
	p, err := planPostings(ctx, hdr, &req)
	if err != nil || p.empty {
		return expanded{stats: p.stats}, err
	}
	r := listReader{
		ctx:       ctx,
		header:    hdr,
		pages:     pages,
		object:    req.object,
		account:   req.account,
		pageBytes: cmp.Or(req.pageBytes, defaultPageBytes),
		batch:     cmp.Or(req.batch, batchLists),
	}
	spans := p.spans()
	if err := req.memory.reserve(ctx, p.heldBytes(spans, r.pageBytes)); err != nil {
		return expanded{stats: p.stats}, err
	}
	if err := r.fetch(spans); err != nil {
		return expanded{stats: p.stats}, err
	}
	refs, err := p.evaluate(&r)
	p.stats.Repaired = r.repairs
	if err != nil {
		return expanded{stats: p.stats}, err
	}
	if len(refs) == 0 {
		return expanded{stats: p.stats}, nil
	}
	if cap(refs) > 2*len(refs) {
		// The first group may have been much larger than what is left of it, and a request holds
		// its postings to its end.
		refs = slices.Clone(refs)
	}
	return expanded{refs: refs, pending: p.pending, stats: p.stats}, nil
}

// evaluate reads the groups of the plan, the smallest first, and returns the postings that are
// left.
func (p *postingsPlan) evaluate(r *listReader) ([]uint32, error) {
	refs, err := r.set(nil, &p.adds[0])
	if err != nil {
		return nil, err
	}
	var other []uint32
	for i := range p.adds[1:] {
		if len(refs) == 0 {
			return nil, nil
		}
		if other, err = r.set(other[:0], &p.adds[1+i]); err != nil {
			return nil, err
		}
		refs = intersect(refs, other)
	}
	for i := range p.subtracts {
		if len(refs) == 0 {
			return nil, nil
		}
		if other, err = r.set(other[:0], &p.subtracts[i]); err != nil {
			return nil, err
		}
		refs = subtract(refs, other)
	}
	return refs, nil
}
