package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/oklog/ulid/v2"

	"larder/internal/panics"
	"larder/internal/sealed"
	"larder/internal/telemetry"
)

// readOutcome is how the read of a small object ended.
type readOutcome string

const (
	readOK      readOutcome = "ok"
	readMissing readOutcome = "missing"
	readBroken  readOutcome = "broken"
	readFailed  readOutcome = "failed"
)

// readObject reads a whole object of at most limit bytes; one byte more is returned if it is larger. Whether an error
// means a missing object is asked before the error is wrapped: some buckets do not look through wrapped errors.
func (c *Catalog) readObject(ctx context.Context, name string, limit int64) ([]byte, readOutcome, error) {
	return c.readObjectOf(ctx, c.reader, name, limit)
}

func (c *Catalog) readObjectOf(ctx context.Context, bucket objectReader, name string, limit int64) ([]byte, readOutcome, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	body, err := bucket.Get(ctx, name)
	if err == nil {
		var data []byte
		data, err = io.ReadAll(io.LimitReader(body, limit+1))
		if closeErr := body.Close(); err == nil {
			err = closeErr
		}
		if err == nil {
			return data, readOK, nil
		}
	}
	if bucket.IsObjNotFoundErr(err) {
		return nil, readMissing, fmt.Errorf("read %s: %w", name, err)
	}
	return nil, readFailed, fmt.Errorf("read %s: %w", name, err)
}

// metaResult is the outcome of one read of a meta.json.
type metaResult struct {
	meta    *meta
	outcome readOutcome
	err     error
}

// readMeta reads a block's meta.json: from its local copy unless fresh is set, else from the bucket.
func (c *Catalog) readMeta(ctx context.Context, id ulid.ULID, fresh bool) metaResult {
	if !fresh {
		m, err := c.local.meta(id)
		if err == nil {
			return metaResult{meta: m, outcome: readOK}
		}
		if !errors.Is(err, fs.ErrNotExist) {
			c.damagedCopy(id, err)
		}
	}
	res := c.fetchMeta(ctx, id)
	if res.outcome == readBroken {
		// It may have been damaged on the way.
		c.log.Warn("meta.json is not usable: it is read once more", "block", id, "err", res.err)
		switch res = c.fetchMeta(ctx, id); res.outcome {
		case readOK:
			c.metrics.corruptions.Mended(telemetry.CorruptMeta, 1)
		case readBroken:
			c.metrics.corruptions.Failed(telemetry.CorruptMeta)
		case readMissing, readFailed:
		}
	}
	return res
}

// fetchMeta reads a block's meta.json from the bucket, and keeps a copy of one that can be used.
func (c *Catalog) fetchMeta(ctx context.Context, id ulid.ULID) metaResult {
	data, outcome, err := c.readObject(ctx, id.String()+"/"+metaFile, maxMetaSize)
	res := metaResult{outcome: outcome, err: err}
	if outcome == readOK {
		if res.meta, res.err = parseMeta(id, data); res.err != nil {
			res.outcome = readBroken
		} else if err := c.local.putMeta(id, data); err != nil {
			c.diskFailed("copy of meta.json could not be written", err, "block", id)
		}
	}
	c.metrics.metaReads.WithLabelValues(string(res.outcome)).Inc()
	return res
}

// damagedCopy counts a local copy that cannot be used: the disk does not give it back, or not as it was written.
func (c *Catalog) damagedCopy(id ulid.ULID, err error) {
	if errors.Is(err, sealed.ErrUnread) {
		c.diskFailed("local copy of meta.json cannot be read: it will be read from the bucket", err, "block", id)
		return
	}
	c.metrics.damagedCopies.Inc()
	c.noteDamage(err)
	c.log.Warn("local copy of meta.json does not verify: it will be read from the bucket", "block", id, "err", err)
}

// noteDamage counts a local file that did not verify.
func (c *Catalog) noteDamage(err error) {
	if errors.Is(err, sealed.ErrDamaged) || errors.Is(err, errBroken) {
		c.metrics.corruptions.Mended(telemetry.CorruptLocal, 1)
	}
}

// parallel calls f for 0 to n-1, Options.Concurrency at a time, and returns when all calls have. A call that panics is
// reported to panicked, from the same goroutine.
func (c *Catalog) parallel(n int, f func(i int) error, panicked func(i int, err error)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, c.opts.Concurrency) {
		wg.Go(func() {
			for i := range next {
				if err := panics.Contained(func() error { return f(i) })(); c.panics.Note(err) {
					panicked(i, err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
