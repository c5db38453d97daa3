package inspection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"larder/internal/bucket/cost"
	"larder/internal/bucket/retry"
	"larder/internal/localfs"
	"larder/store/indexheader"
)

// bucketReader is the part of an object store client that an Inspector uses.
type bucketReader = indexheader.Bucket

// Options of an Inspector. Bucket and Dir must be set.
type Options struct {
	// Bucket repeats requests that failed: an Inspector does not.
	Bucket indexheader.Bucket
	// Dir is an empty directory for index headers. The caller removes it after Close.
	Dir localfs.Dir
	// IndexPageBytes and ChunkPageBytes are the sizes of the pages that a gateway reads of index
	// and chunk files. Default 16 KiB and 8 KiB.
	IndexPageBytes, ChunkPageBytes int64
	// PerRequest is the price of a request as a time, see cost.NewMeter. Default 1 ms.
	PerRequest time.Duration
}

// Inspector reads blocks of a bucket.
type Inspector struct {
	opts    Options
	bucket  *meteredBucket
	headers *indexheader.Manager
}

// New returns an Inspector. The caller must call Close.
func New(opts Options) (*Inspector, error) {
	if opts.IndexPageBytes <= 0 {
		opts.IndexPageBytes = 16 << 10
	}
	if opts.ChunkPageBytes <= 0 {
		opts.ChunkPageBytes = 8 << 10
	}
	if opts.PerRequest <= 0 {
		opts.PerRequest = time.Millisecond
	}
	b := &meteredBucket{
		bucketReader: opts.Bucket,
		meter:        cost.NewMeter(cost.Model{PerRequest: opts.PerRequest}),
	}
	headers, err := indexheader.New(indexheader.Options{
		Dir: opts.Dir, Bucket: b, BuildConcurrency: checksConcurrency,
		Unsatisfiable: retry.Unsatisfiable,
	})
	if err != nil {
		return nil, err
	}
	return &Inspector{opts: opts, bucket: b, headers: headers}, nil
}

// Close closes the headers.
func (i *Inspector) Close() { i.headers.Close() }

// meteredBucket counts and measures reads.
type meteredBucket struct {
	bucketReader
	meter           *cost.Meter
	requests, bytes atomic.Int64
}

func (b *meteredBucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	b.requests.Add(1)
	body, err := b.bucketReader.GetRange(ctx, name, off, length)
	if err != nil {
		return body, err
	}
	return &countedBody{ReadCloser: body, bytes: &b.bytes}, nil
}

// countedBody counts the bytes of a body.
type countedBody struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(int64(n))
	return n, err
}

// read fills p with the bytes of an object from off on, and measures the bucket.
func (b *meteredBucket) read(ctx context.Context, name string, off int64, p []byte) error {
	began := time.Now()
	body, err := b.GetRange(ctx, name, off, int64(len(p)))
	if err != nil {
		if body != nil {
			err = errors.Join(err, body.Close())
		}
		return fmt.Errorf("object %s: %w", name, err)
	}
	defer body.Close()
	n, err := io.ReadFull(body, p[:min(1, len(p))])
	first := time.Since(began)
	if err == nil {
		var more int
		more, err = io.ReadFull(body, p[n:])
		n += more
	}
	if err != nil {
		return fmt.Errorf(
			"object %s, %d bytes at offset %d: read %d: %w",
			name,
			len(p),
			off,
			n,
			err,
		)
	}
	b.meter.Observe(first, time.Since(began)-first, int64(n))
	return nil
}
