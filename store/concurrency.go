package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// minBlocks is how many blocks of a request are read concurrently, whatever memory is free.
	minBlocks = 32
	// maxBlocks is how many blocks are read concurrently if their bytes can be reserved.
	maxBlocks = 256
	// workerBytes is the memory of a goroutine that reads a block, besides what the block reserves.
	workerBytes = 16 << 10
	// patience is after how long a request concludes that it waits for the bucket. What is in
	// memory takes less time mostly. It is short compared with the bucket's first byte.
	patience = time.Millisecond
)

// concurrently calls f for 0 to n-1, minBlocks of them at a time. A goroutine serves many of them,
// because most blocks take less time than its stack to grow. If some are left after patience, widen
// gets the number of goroutines that they could use, and returns how many to start.
func concurrently(
	ctx context.Context, n int, widen func(n int) int, f func(ctx context.Context, i int) error,
) error {
	if n == 1 {
		return contained(func() error { return f(ctx, 0) })()
	}
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	begun := make(chan struct{}) // closed when all have begun
	close := sync.OnceFunc(func() { close(begun) })
	work := func() error {
		for ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= n {
				close()
				return nil
			}
			if err := f(ctx, i); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	for range min(n, minBlocks) {
		g.Go(contained(work))
	}
	if n > minBlocks {
		g.Go(contained(func() error {
			t := time.NewTimer(patience)
			defer t.Stop()
			select {
			case <-t.C:
			case <-begun:
				return nil
			case <-ctx.Done():
				return nil
			}
			if left := n - int(next.Load()); left > 0 {
				for range widen(min(left, maxBlocks-minBlocks)) {
					g.Go(contained(work))
				}
			}
			return nil
		}))
	}
	return g.Wait()
}

// tryWorkers reserves what up to n more goroutines need. bytes returns it for a number of them. It
// returns how many it reserved for, and the bytes.
func (r *request) tryWorkers(n int, bytes func(n int) int64) (workers int, reserved int64) {
	for ; n > 0; n /= 2 {
		if b := bytes(n); r.TryReserve(b) {
			return n, b
		}
	}
	return 0, 0
}

// workersBytes returns the memory of n goroutines that read blocks.
func workersBytes(n int) int64 { return int64(n) * workerBytes }
