package postings

import (
	"cmp"
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/bucket/cost"
	"larder/internal/pagecache"
	"larder/store/indexheader"
)

// header finds the posting lists of label values: *indexheader.Header.
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

// request asks for the series of a block that match.
type request struct {
	// matchers is not empty. No matcher is for an external label.
	matchers []*labels.Matcher
	// object is the block's index. account counts reads of it, and may refuse them; nil: nothing
	// does.
	object  pagecache.Object
	account *pagecache.Account
	// seriesBytes is the mean size of a series entry; 0: 512. Posting lists are weighed against it.
	// If it is too large, lists are read that exclude little. If it is too small, series are read
	// that do not match.
	seriesBytes int64
	// costs says what the reads cost that the plan chooses between.
	costs cost.Model
	// eager reads the lists of every group, except those that select nearly everything.
	eager bool
	// complete leaves no matcher pending, whatever its lists cost. It implies eager.
	complete bool
	// memory is the reservation for what the expansion holds; nil: there is no limit.
	memory *reservation
	// pageBytes is the size of an index page; 0: 8 KiB.
	pageBytes int64
	// choices collects what the plan decides; nil collects nothing.
	choices *choices
	// markFrom and batch replace markedValues and batchLists in tests, unless they are 0.
	markFrom, batch int
}

// entryBytes is seriesBytes or its default.
func (r *request) entryBytes() int64 {
	if r.seriesBytes <= 0 {
		return defaultSeriesBytes
	}
	return r.seriesBytes
}

// expanded is the answer to a request.
type expanded struct {
	// refs are the postings as the index stores them, ascending and without duplicates. A series
	// matches if it matches pending too, where a label that it lacks has the value "".
	refs    []uint32
	pending []*labels.Matcher
	stats   Stats
}

// Stats says what finding the postings of a block needed.
type Stats struct {
	Groups    int   // label names with matchers
	Pending   int   // label names whose matchers stay pending
	Values    int   // label values that matchers were evaluated on
	MaxSeries int64 // upper bound of the postings, from the sizes of lists
	Lists     int   // posting lists read
	ListBytes int64 // bytes of those lists
	Lookups   int   // look-ups in the cache of postings
	Cached    int   // look-ups that found them
	Repaired  int   // lists that verified only after their pages were read again
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

// expand returns the series of a block that match all matchers of req, by the rules of Prometheus's
// tsdb.PostingsForMatchers. It reads all lists by one Fetch, except those of names with very many
// values. It reads nothing if the header knows that no series matches.
func expand(
	ctx context.Context, hdr header, pages Pages, req request,
) (expanded, error) {
	p, err := newPlan(ctx, hdr, &req)
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
	if err := req.memory.reserve(ctx, p.neededBytes(spans, r.pageBytes)); err != nil {
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
		// The first group may have been much larger than the result, which a request holds to its
		// end.
		refs = slices.Clone(refs)
	}
	return expanded{refs: refs, pending: p.pending, stats: p.stats}, nil
}

// evaluate combines the groups of the plan, the smallest first, and returns the postings that
// match.
func (p *plan) evaluate(r *listReader) ([]uint32, error) {
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
