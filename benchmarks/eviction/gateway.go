package main

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/thanos-io/objstore/providers/filesystem"
	"google.golang.org/grpc"

	"larder/benchmarks/inprocess"
	"larder/chunkcache"
	"larder/indexcache"
	"larder/internal/pagecache"
	"larder/store"
	"larder/store/admission"
	"larder/store/block"
	"larder/store/storepb"
)

// recorder records the pages that requests need.
type recorder struct {
	mu      sync.Mutex // guards fetches
	fetches []fetch    // since the last take
}

// fetch is one call of a reader.
type fetch struct {
	kind   kind
	object pagecache.Object
	nth    int     // number among the fetches of this object in this request
	pages  []int64 // ascending
	needed int64   // needed bytes of the pages
}

// note records a Fetch.
func (r *recorder) note(k kind, obj pagecache.Object, pageSize int64, spans []pagecache.Span) {
	f := fetch{kind: k, object: obj}
	last, end := int64(-1), int64(0)
	for _, s := range spans {
		if s.Off == s.End {
			continue
		}
		f.needed += max(s.End-max(s.Off, end), 0)
		end = max(end, s.End)
		for no := max(s.Off/pageSize, last+1); no <= (s.End-1)/pageSize; no++ {
			f.pages = append(f.pages, no)
			last = no
		}
	}
	r.mu.Lock()
	r.fetches = append(r.fetches, f)
	r.mu.Unlock()
}

// take returns the fetches since the last call. Goroutines of a request read different objects in
// parallel; fetches of one object are in order. take sorts them into a reproducible order: the
// first of each object, the second of each, and so on.
func (r *recorder) take() []fetch {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[string]int{}
	for i := range r.fetches {
		f := &r.fetches[i]
		f.nth = seen[f.object.Name]
		seen[f.object.Name]++
	}
	out := r.fetches
	r.fetches = nil
	slices.SortFunc(out, func(a, b fetch) int {
		switch {
		case a.kind != b.kind:
			return int(a.kind) - int(b.kind)
		case a.nth != b.nth:
			return a.nth - b.nth
		}
		return strings.Compare(a.object.Name, b.object.Name)
	})
	return out
}

type recordedIndex struct {
	block.IndexPages
	rec      *recorder
	pageSize int64
}

func (p recordedIndex) Fetch(
	ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account,
) (*pagecache.Pages, error) {
	p.rec.note(indexPages, obj, p.pageSize, spans)
	return p.IndexPages.Fetch(ctx, obj, spans, acct)
}

type recordedChunks struct {
	block.ChunkPages
	rec      *recorder
	pageSize int64
}

func (p recordedChunks) Fetch(
	ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account,
) (*pagecache.Pages, error) {
	p.rec.note(chunkPages, obj, p.pageSize, spans)
	return p.ChunkPages.Fetch(ctx, obj, spans, acct)
}

// recorded is a gateway over a folder of blocks that records the pages its requests need. Its page
// caches are large enough for all of them.
type recorded struct {
	*inprocess.Gateway
	rec recorder
}

func openGateway(ctx context.Context, bucketDir, dataDir string) (*recorded, error) {
	bucket, err := filesystem.NewBucket(bucketDir)
	if err != nil {
		return nil, err
	}
	r := &recorded{}
	r.Gateway, err = inprocess.New(inprocess.Options{
		Bucket: bucket, Dir: dataDir,
		Index: indexcache.Options{
			MaxBytes: 1 << 30, Pages: pagecache.Options{PageSize: pageSize},
		},
		Chunks: chunkcache.Options{MaxBytes: 4 << 30},
		Server: func(o *store.Options) {
			index := o.Blocks.Index.(*indexcache.Cache)
			o.Blocks.Index = recordedIndex{index, &r.rec, int64(index.PageSize())}
			o.Blocks.Chunks = recordedChunks{o.Blocks.Chunks, &r.rec, o.ChunkPageBytes}
			// A request must read all pages, even if its postings or series were cached.
			o.Blocks.Postings, o.Blocks.Sets = nil, nil
			// The bytes that a request may reserve decide how much it reads at a time. They must
			// be the same for all requests.
			o.Allowance = admission.AllowanceOptions{Bytes: 1 << 40}
		},
	})
	if err != nil {
		return nil, err
	}
	if err := r.Catalog.Sync(ctx); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// ask sends a request and returns the pages that its answer needed.
func (r *recorded) ask(ctx context.Context, req *storepb.SeriesRequest) ([]fetch, error) {
	if err := r.Server.Series(req, discard{ctx: ctx}); err != nil {
		return nil, err
	}
	return r.rec.take(), nil
}

// discard is the client's end of a Series call. It drops all frames.
type discard struct {
	grpc.ServerStream
	ctx context.Context
}

func (d discard) Context() context.Context           { return d.ctx }
func (d discard) Send(*storepb.SeriesResponse) error { return nil }
func (d discard) SendMsg(any) error                  { return nil }
