package diskcache

import (
	"context"
	"errors"

	"larder/internal/bytecache"
)

// ErrUnavailable is the error of Fill while nothing is written: the disk is unwell, or the bytes of
// the day are used up.
var ErrUnavailable = errors.New("the disk cache does not write")

// Available reports whether values may be written: the disk is well, and bytes of the day are left
// for the largest batch.
func (c *Cache) Available() bool {
	return c.disk.writable() &&
		c.disk.budget.left(c.o.Priority) >= batchBytes+recordBytes(c.o.PageBytes)
}

// Await waits until the queue has space for Fill to take n bytes without a wait, or is empty. It
// returns ErrUnavailable if nothing is written.
func (c *Cache) Await(ctx context.Context, n int64) error {
	for {
		if !c.Available() {
			return ErrUnavailable
		}
		c.mu.Lock()
		wait := c.changed
		if c.closed || c.queueBytes == 0 || c.queueBytes+n <= c.o.QueueBytes/2 {
			wait = nil
		}
		c.mu.Unlock()
		if wait == nil {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Fill writes values whatever their use, for reading ahead. It waits while the queue is full, and
// takes at most half of the queue, so that requests find a place. It returns ErrUnavailable if
// nothing is written, and the error of ctx when that ends.
func (c *Cache) Fill(ctx context.Context, keys []bytecache.Key, values [][]byte) error {
	for i := range keys {
		for {
			if !c.Available() {
				return ErrUnavailable
			}
			wait := c.fill(keys[i], values[i])
			if wait == nil {
				break
			}
			select {
			case <-wait:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// Offer is Fill of one value that does not wait. It drops the value if that would have to wait.
func (c *Cache) Offer(key bytecache.Key, value []byte) {
	if c.Available() {
		c.fill(key, value)
	}
}

// fill enqueues a value, or returns a channel that is closed when the queue has become shorter.
func (c *Cache) fill(key bytecache.Key, value []byte) (wait <-chan struct{}) {
	h := hashOf(&key.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed || int64(len(value)) > c.o.PageBytes || c.pending[key.ID] != nil ||
		c.table.find(h) >= 0:
		return nil
	case c.queueBytes > 0 && c.queueBytes+int64(len(value)) > c.o.QueueBytes/2:
		return c.changed
	}
	c.enqueue(&item{id: key.ID, hash: h, value: value, ahead: true})
	return nil
}

// Has reports for each key whether its value is there, without reading it. It is wrong about one
// key in 300,000 that is not there.
func (c *Cache) Has(keys []bytecache.Key) []bool {
	has := make([]bool, len(keys))
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range keys {
		has[i] = !c.closed && (c.pending[keys[i].ID] != nil ||
			c.table.find(hashOf(&keys[i].ID)) >= 0)
	}
	return has
}

// Lost returns a number that grows when values of Fill or Offer are lost other than by eviction:
// they could not be written, or the files of the cache were removed or replaced.
func (c *Cache) Lost() int64 { return c.lost.Load() }
