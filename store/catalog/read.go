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

// readOutcome is the outcome of reading a small object.
type readOutcome string

const (
	readOK      readOutcome = "ok"
	readMissing readOutcome = "missing"
	readBroken  readOutcome = "broken"
	readFailed  readOutcome = "failed"
)

// readObject reads and decodes a whole object of at most limit bytes, and reserves its memory in
// the account of documents. decode must not retain the bytes. Its error is returned unchanged.
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

// tryObject is readObjectOf with a first reservation of cost bytes. needsMore is in the chain of
// the error if the read must be repeated with a larger one.
func (c *Catalog) tryObject(ctx context.Context, bucket objectReader, name string, limit,
	cost int64, decode func(data []byte) error) (readOutcome, error) {
	memory, err := c.documents.reserve(ctx, cost)
	if err != nil {
		return outcomeOf(err), fmt.Errorf("read %s: %w", name, err)
	}
	defer memory.release()
	// The timeout does not include the wait for the account.
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	body, err := bucket.Get(ctx, name)
	var data []byte
	if err == nil {
		data, err = readReserved(body, limit, memory)
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
	case bucket.IsObjNotFoundErr(err): // of the plain error: some buckets do not unwrap
		return readMissing, fmt.Errorf("read %s: %w", name, err)
	}
	return outcomeOf(err), fmt.Errorf("read %s: %w", name, err)
}

// outcomeOf returns the outcome of a failed read. A refused document counts as broken, because
// repeating the read does not help.
func outcomeOf(err error) readOutcome {
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
		// It may have been damaged in transit.
		c.log.Warn("meta.json is not valid, reading it again", "block", id, "err", res.err)
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

// fetchMeta reads a block's meta.json from the bucket, and saves a copy if it is valid.
func (c *Catalog) fetchMeta(ctx context.Context, id ulid.ULID) metaResult {
	var res metaResult
	res.outcome, res.err = c.readObject(ctx, id.String()+"/"+metaFile, maxMetaSize,
		func(data []byte) (err error) {
			if res.meta, err = parseMeta(id, data); err != nil {
				return err
			}
			if err := c.local.putMeta(id, data); err != nil {
				c.diskFailed("cannot write a copy of meta.json", err, "block", id)
			}
			return nil
		})
	c.metrics.metaReads.WithLabelValues(string(res.outcome)).Inc()
	return res
}

// damagedCopy counts and logs a local copy that the disk fails to read or that does not verify.
func (c *Catalog) damagedCopy(id ulid.ULID, err error) {
	if errors.Is(err, errRefused) {
		return // the copy is right; reading the document from the bucket reports it
	}
	if errors.Is(err, sealed.ErrUnread) {
		c.diskFailed("cannot read a copy of meta.json, reading it from the bucket", err, "block", id)
		return
	}
	c.metrics.damagedCopies.Inc()
	c.noteDamage(err)
	c.log.Warn("copy of meta.json does not verify, reading it from the bucket",
		"block", id, "err", err)
}

// noteDamage counts a local file that did not verify.
func (c *Catalog) noteDamage(err error) {
	if errors.Is(err, sealed.ErrDamaged) || errors.Is(err, errBroken) {
		c.metrics.corruptions.Mended(telemetry.CorruptLocal, 1)
	}
}

// parallel calls f for 0 to n-1, Options.Concurrency at a time, and waits for all calls. If a call
// panics, it calls panicked on the same goroutine.
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
