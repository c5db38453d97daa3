package catalog

import (
	"context"
	"errors"
	"fmt"
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

// readObject reads a whole object of at most limit bytes and decodes it, within the account of
// documents. decode must not keep the bytes; its error is returned as it is. Whether an error means
// a missing object is asked before the error is wrapped: some buckets do not look through wrapped
// errors.
func (c *Catalog) readObject(ctx context.Context, name string, limit int64,
	decode func(data []byte) error) (readOutcome, error) {
	return c.readObjectOf(ctx, c.reader, name, limit, decode)
}

func (c *Catalog) readObjectOf(ctx context.Context, bucket objectReader, name string, limit int64,
	decode func(data []byte) error) (readOutcome, error) {
	for cost := documentCost(usualDocument); ; {
		outcome, err := c.tryObject(ctx, bucket, name, limit, cost, decode)
		var more *needsMore
		if !errors.As(err, &more) {
			return outcome, err
		}
		cost = more.bytes
	}
}

// tryObject is readObjectOf with a reservation to begin with. needsMore is in the chain of the
// error if another read needs a larger one.
func (c *Catalog) tryObject(ctx context.Context, bucket objectReader, name string, limit,
	cost int64, decode func(data []byte) error) (readOutcome, error) {
	held, err := c.documents.reserve(ctx, cost)
	if err != nil {
		return failedOf(err), fmt.Errorf("read %s: %w", name, err)
	}
	defer held.release()
	// The wait for the account is not the bucket's.
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	body, err := bucket.Get(ctx, name)
	var data []byte
	if err == nil {
		data, err = readReserved(body, limit, held)
		if closeErr := body.Close(); err == nil {
			err = closeErr
		}
	}
	switch {
	case err == nil:
		if err := decode(data); err != nil {
			return readBroken, err
		}
		return readOK, nil
	case bucket.IsObjNotFoundErr(err):
		return readMissing, fmt.Errorf("read %s: %w", name, err)
	}
	return failedOf(err), fmt.Errorf("read %s: %w", name, err)
}

// failedOf returns what a read that failed came to: one that was refused does no better later.
func failedOf(err error) readOutcome {
	if errors.Is(err, errRefused) {
		return readBroken
	}
	return readFailed
}

// metaResult is the outcome of one read of a meta.json.
type metaResult struct {
	meta    *meta
	outcome readOutcome
	err     error
}

// readMeta reads a block's meta.json: from its local copy unless fresh is set, else from the
// bucket.
func (c *Catalog) readMeta(ctx context.Context, id ulid.ULID, fresh bool) metaResult {
	if !fresh {
		m, err := c.local.meta(ctx, id)
		switch {
		case err == nil:
			return metaResult{meta: m, outcome: readOK}
		case ctx.Err() != nil:
			return metaResult{outcome: readFailed, err: err}
		case !errors.Is(err, fs.ErrNotExist):
			c.damagedCopy(id, err)
		}
	}
	res := c.fetchMeta(ctx, id)
	if res.outcome == readBroken && !errors.Is(res.err, errRefused) {
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
	var res metaResult
	res.outcome, res.err = c.readObject(ctx, id.String()+"/"+metaFile, maxMetaSize,
		func(data []byte) (err error) {
			if res.meta, err = parseMeta(id, data); err != nil {
				return err
			}
			if err := c.local.putMeta(id, data); err != nil {
				c.diskFailed("copy of meta.json could not be written", err, "block", id)
			}
			return nil
		})
	c.metrics.metaReads.WithLabelValues(string(res.outcome)).Inc()
	return res
}

// damagedCopy counts a local copy that cannot be used: the disk does not give it back, or not as it
// was written.
func (c *Catalog) damagedCopy(id ulid.ULID, err error) {
	if errors.Is(err, errRefused) {
		return // it is what the bucket has, of which that is said
	}
	if errors.Is(err, sealed.ErrUnread) {
		c.diskFailed(
			"local copy of meta.json cannot be read: it will be read from the bucket", err, "block",
			id,
		)
		return
	}
	c.metrics.damagedCopies.Inc()
	c.noteDamage(err)
	c.log.Warn(
		"local copy of meta.json does not verify: it will be read from the bucket", "block", id,
		"err", err,
	)
}

// noteDamage counts a local file that did not verify.
func (c *Catalog) noteDamage(err error) {
	if errors.Is(err, sealed.ErrDamaged) || errors.Is(err, errBroken) {
		c.metrics.corruptions.Mended(telemetry.CorruptLocal, 1)
	}
}

// parallel calls f for 0 to n-1, Options.Concurrency at a time, and returns when all calls have. A
// call that panics is reported to panicked, from the same goroutine.
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
