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

// Measurer asks the bucket how large the files of a block really are: *catalog.Catalog.
type Measurer interface {
	Measure(
		ctx context.Context, id ulid.ULID, content uint64, doubt catalog.Doubt,
	) (catalog.Verdict, error)
}

var errNoChunkFile = errors.New("no such chunk file")

// chunkObject returns the object of chunk file number n, counted from 0 as chunk references count.
//
// INVARIANT: a file is read only by a size that is part of the block's identity. While the size is
// not known, or where the file is not known at all, the bucket is asked. What it says makes another
// block of this one, and the error is indexheader.ErrReplaced: the request is planned again with
// that one.
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
		// Either the block is damaged or it has left the bucket.
		return pagecache.Object{}, fmt.Errorf(
			"%w: number %d of %d, %s%06d: %w", errNoChunkFile, n+1, len(files), dir, n+1,
			pagecache.ErrNotFound,
		)
	case files[i].Size == 0:
		// If the bucket confirms that, the file is empty, and every record is beyond its end.
		if err := b.measure(ctx, catalog.SizeDoubt); err != nil {
			return pagecache.Object{}, fmt.Errorf("size of %s%s: %w", dir, files[i].Name, err)
		}
	}
	return b.deps.Chunks.Object(
		b.meta.Number, b.meta.ID, b.meta.Content, n+1, dir+files[i].Name, files[i].Size,
	), nil
}

// measure has the bucket asked for the sizes of the block's files. Its error is ErrReplaced if that
// made another block of this one, or why the bucket could not tell; nil if all is as it was known.
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

// chunkFile returns the place in the block's ChunkFiles of the file that references call number n,
// counted from 0; -1 if there is none.
//
// References count files, not their names. A writer that began with 000002 means that file by 0, as
// Prometheus and Thanos read it. But where 000001 was lost, 0 means the lost file: to take another
// for it would be wrong and look right, because the first record of each file lies at the same
// offset. The largest number that the index refers to tells the two apart: a writer makes a file
// only for a chunk, so a block that refers to more files than there are has lost some, and each of
// the others has the number of its name.
func (b *Block) chunkFile(ctx context.Context, n int) (int, error) {
	files := b.meta.ChunkFiles
	if !slices.ContainsFunc(
		files, func(f catalog.ChunkFile) bool { return fileNumber(f) > len(files) },
	) {
		if n >= len(files) { // without a gap names and places agree
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
	return slices.IndexFunc(
		files, func(f catalog.ChunkFile) bool { return fileNumber(f) == n+1 },
	), nil
}

// fileNumber returns the number that is a chunk file's name.
func fileNumber(f catalog.ChunkFile) int {
	n, err := strconv.Atoi(f.Name)
	if err != nil {
		return 0
	}
	return n
}

// lastFile is the largest number of a chunk file that the block's index refers to, counted from 0.
// It is read once: a writer writes chunks in the order of the series, so it is that of the last
// one.
type lastFile struct {
	mu     sync.Mutex // guards number
	number int        // -1 while it is not known
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
	p, err := b.planPostings(ctx, postings.NewMatcherSet(all), &PlanOptions{Account: &acct})
	if err != nil {
		return 0, err
	}
	defer p.Close()
	if len(p.refs) == 0 {
		return 0, nil
	}
	p.refs = p.refs[len(p.refs)-1:]
	s := p.decode(
		ctx,
		StreamOptions{
			MinTime:  math.MinInt64,
			MaxTime:  math.MaxInt64,
			RunBytes: defaultRunBytes,
			Account:  &acct,
		},
	)
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
