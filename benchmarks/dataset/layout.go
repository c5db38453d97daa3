package dataset

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"
)

// Layout describes a bucket.
type Layout struct {
	Name   string
	Blocks []Block
}

// Progress is the progress of Write.
type Progress struct {
	// Blocks of TotalBlocks are complete. Series counts those written so far, to these and to
	// unfinished blocks.
	Blocks, TotalBlocks int
	Series              int
}

// WriteOptions configure Layout.Write. The zero value works.
type WriteOptions struct {
	// Concurrency is the number of blocks written in parallel. 0 = number of processors. Each needs
	// memory: two writers' buffers (about 16 MB) and the block's strings. It does not change the
	// result.
	Concurrency int
	// Progress is called after every thousand series and every block, by one goroutine at a time.
	// nil: no reports.
	Progress func(Progress)
}

// Write writes the layout's blocks into dir, the root of a FILESYSTEM bucket, and returns their
// meta.json in the order of l.Blocks. An existing block is overwritten. After an error the folder
// may contain blocks without meta.json, which readers ignore.
func (l Layout) Write(ctx context.Context, dir string, opts WriteOptions) ([]*Meta, error) {
	if opts.Concurrency <= 0 {
		opts.Concurrency = runtime.GOMAXPROCS(0)
	}
	var (
		mu       sync.Mutex // guards progress, and one report at a time
		progress = Progress{TotalBlocks: len(l.Blocks)}
		report   = func(blocks, series int) {
			mu.Lock()
			defer mu.Unlock()
			progress.Blocks += blocks
			progress.Series += series
			if opts.Progress != nil {
				opts.Progress(progress)
			}
		}
	)
	metas := make([]*Meta, len(l.Blocks))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(opts.Concurrency)
	for i := range l.Blocks {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			metas[i], err = l.Blocks[i].write(ctx, dir, func(series int) { report(0, series) })
			if err != nil {
				return fmt.Errorf("layout %s: %w", l.Name, err)
			}
			report(1, 0)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return metas, nil
}

// withIDs gives every block without an ID one derived from the seed and its position. Its time is
// when the block was uploaded, the same as for real blocks.
func withIDs(seed uint64, blocks []Block) []Block {
	for i := range blocks {
		if blocks[i].ID == (ulid.ULID{}) {
			blocks[i].ID = blockID(seed, i, blocks[i].MaxTime)
		}
	}
	return blocks
}

func blockID(seed uint64, n int, maxTime int64) (id ulid.ULID) {
	// The time fits into 48 bits until the year 10889.
	if err := id.SetTime(uint64(maxTime + uploadDelay.Milliseconds())); err != nil {
		panic(err)
	}
	hi, lo := mix(seed^uint64(n)<<32), mix(seed+uint64(n))
	for i := range 8 {
		id[6+i] = byte(hi >> (8 * i))
	}
	id[14], id[15] = byte(lo), byte(lo>>8)
	return id
}
