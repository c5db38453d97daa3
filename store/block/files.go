package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/postings"
)

// Measurer asks the bucket for the sizes of a block's files: *catalog.Catalog.
type Measurer interface {
	Measure(
		ctx context.Context, id ulid.ULID, content uint64, doubt catalog.Doubt,
	) (catalog.Verdict, error)
}

var errNoChunkFile = errors.New("no such chunk file")

// chunkObject returns the object of chunk file number n, counted from 0 as chunk references count.
//
// INVARIANT: a file is read only with a size that is part of the block's identity. If the size or
// the file is unknown, the bucket is asked. Its answer replaces the block by another version, and
// the error is indexheader.ErrReplaced: the request is planned again with the new version.
func (b *Block) chunkObject(ctx context.Context, n int) (pagecache.Object, error) {
	dir := b.meta.ID.String() + "/chunks/"
	files := b.meta.ChunkFiles
	i, err := b.chunkFile(ctx, n)
	switch {
	case err != nil:
		return pagecache.Object{}, err
	case i < 0:
		if err := b.measure(ctx, catalog.NameDoubt); err != nil {
			return pagecache.Object{}, fmt.Errorf("chunk file %s%06d: %w", dir, n+1, err)
		}
		// The block is damaged, or was deleted.
		return pagecache.Object{}, fmt.Errorf(
			"%w: number %d of %d, %s%06d: %w", errNoChunkFile, n+1, len(files), dir, n+1,
			pagecache.ErrNotFound,
		)
	case files[i].Size == 0:
		// If the bucket confirms it, the file is empty, and every record is beyond its end.
		if err := b.measure(ctx, catalog.SizeDoubt); err != nil {
			return pagecache.Object{}, fmt.Errorf("size of %s%s: %w", dir, files[i].Name, err)
		}
	}
	return b.chunkFileObject(n, i), nil
}

// knownChunkObject is chunkObject for callers that read nothing. It returns false if the bucket
// must be asked about the file.
func (b *Block) knownChunkObject(n int) (pagecache.Object, bool) {
	files := b.meta.ChunkFiles
	for i, f := range files {
		if fileNumber(f) > len(files) || i == n && f.Size == 0 {
			return pagecache.Object{}, false
		}
	}
	if n >= len(files) {
		return pagecache.Object{}, false
	}
	return b.chunkFileObject(n, n), true
}

// chunkFileObject returns the object of chunk file number n, which is files[i] of meta.json.
func (b *Block) chunkFileObject(n, i int) pagecache.Object {
	f := b.meta.ChunkFiles[i]
	return b.deps.Chunks.Object(b.meta.Number, b.meta.ID, b.meta.Content, n+1,
		b.meta.ID.String()+"/chunks/"+f.Name, f.Size)
}

// measure asks the bucket for the sizes of the block's files. It returns nil if they are as known,
// indexheader.ErrReplaced if they replace the block by another version, or the error of the bucket.
func (b *Block) measure(ctx context.Context, doubt catalog.Doubt) error {
	if b.deps.Sizes == nil {
		return nil
	}
	verdict, err := b.deps.Sizes.Measure(ctx, b.meta.ID, b.meta.Content, doubt)
	switch {
	case verdict == catalog.Changed:
		return indexheader.ErrReplaced
	case err != nil:
		return fault(err)
	}
	return nil
}

// chunkFile returns the index in ChunkFiles of the file that chunk references call number n,
// counted from 0; -1 if there is none.
//
// References count files and do not name them. If a writer began with 000002, number 0 is that
// file, same as Prometheus and Thanos read it. But if 000001 was lost, number 0 is the lost file.
// Reading another file instead would look right, because the first record of each file has the same
// offset. The largest number in the index tells the two cases apart, because a writer makes a file
// only for a chunk: a block that refers to more files than it has, has lost some, and the others
// have the numbers of their names.
func (b *Block) chunkFile(ctx context.Context, n int) (int, error) {
	files := b.meta.ChunkFiles
	beyond := func(f catalog.ChunkFile) bool { return fileNumber(f) > len(files) }
	if !slices.ContainsFunc(files, beyond) {
		if n >= len(files) { // without a gap, numbers are those of the names
			return -1, nil
		}
		return n, nil
	}
	last, err := b.lastFile(ctx)
	if err != nil {
		return 0, err
	}
	if last < len(files) {
		if n > last {
			return -1, nil
		}
		return n, nil
	}
	named := func(f catalog.ChunkFile) bool { return fileNumber(f) == n+1 }
	return slices.IndexFunc(files, named), nil
}

// fileNumber returns the number in a chunk file's name, 0 if it is not a number.
func fileNumber(f catalog.ChunkFile) int {
	n, err := strconv.Atoi(f.Name)
	if err != nil {
		return 0
	}
	return n
}

// lastFile is the largest number of a chunk file that the block's index refers to, counted from 0.
// It is read once, from the last series, because writers write chunks in the order of the series.
type lastFile struct {
	mu     sync.Mutex // guards number
	number int        // -1: unknown
}

func (b *Block) lastFile(ctx context.Context) (int, error) {
	b.last.mu.Lock()
	n := b.last.number
	b.last.mu.Unlock()
	if n >= 0 {
		return n, nil
	}
	all := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".*")}
	var acct pagecache.Account
	p, err := b.planByPostings(ctx, postings.NewMatcherSet(all), &PlanOptions{Account: &acct})
	if err != nil {
		return 0, err
	}
	defer p.Close()
	if len(p.refs) == 0 {
		return 0, nil
	}
	p.refs = p.refs[len(p.refs)-1:]
	s := p.decode(ctx, StreamOptions{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64,
		RunBytes: defaultRunBytes, Account: &acct,
	})
	defer s.Close()
	for {
		seg, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		for _, ref := range seg.Chunks().Ref {
			n = max(n, int(ref>>32))
		}
	}
	b.last.mu.Lock()
	b.last.number = n
	b.last.mu.Unlock()
	return n, nil
}
