package dataset

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"
)

// Layout is a bucket to be written.
type Layout struct {
	Name   string
	Blocks []Block
}

// Progress says how far Write has come.
type Progress struct {
	// Blocks of TotalBlocks are complete; Series were written so far, to these and to those under
	// way.
	Blocks, TotalBlocks int
	Series              int
}

// WriteOptions configure Layout.Write; the zero value works.
type WriteOptions struct {
	// Concurrency is how many blocks are written side by side; 0 stands for the number of
	// processors. More costs memory: two writers' buffers (about 16 MB) and a block's strings each.
	// It changes no byte.
	Concurrency int
	// Progress is called after every thousand series and every block, by one goroutine at a time;
	// nil stands for no reports.
	Progress func(Progress)
}

// Write writes the layout's blocks into dir, the root of a FILESYSTEM bucket, and returns their
// meta.json in the order of l.Blocks. A block that is there already is overwritten. After an error
// the folder holds blocks without meta.json, which are no blocks to a reader.
func (l Layout) Write(ctx context.Context, dir string, opts WriteOptions) ([]*Meta, error) {
	if opts.Concurrency <= 0 {
		opts.Concurrency = runtime.GOMAXPROCS(0)
	}
	var (
		mu       sync.Mutex // protects progress, and one report at a time
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

// withIDs gives every block that has none an ID made of the seed and its place. The time in it is
// when the block was uploaded, as with blocks of real processes.
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
