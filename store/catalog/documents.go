package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/semaphore"
)

const (
	// defaultDocumentBytes admits a meta.json of maxMetaSize.
	defaultDocumentBytes = 72 << 20
	// minDocumentBytes admits a meta.json of some 100 KiB.
	minDocumentBytes = 2 << 20
	// usualDocument is the size of a document that the first reservation covers. Most meta.json are
	// smaller.
	usualDocument = 12 << 10
	// listingBytes covers one page of a listing, raw and decoded: 1000 names of up to 1024 bytes.
	listingBytes = 2 << 20
)

// documentCost returns the memory that a document of n bytes needs until it is decoded: its bytes,
// twice as much for unescaped or quoted strings and for its copy, and its decoded lists and labels,
// which are bounded. The constant is for a buffer of the bucket's client.
func documentCost(n int64) int64 { return 3*n + min(10*n, 3<<19) + 64<<10 }

// errRefused is in the chain of the error of a document that exceeds a bound. Reading it again does
// not help.
var errRefused = errors.New("refused")

// documents is the account of the documents that the catalog reads: meta.json, marks, meta.pb,
// listings and local copies. Each reserves memory before its bytes are read, and until it is
// decoded.
//
// INVARIANT: a goroutine that waits for the account has no reservation, no slot of the bucket and
// no open body. A read that needs more only tries to reserve it; if that fails, it releases
// everything and begins again.
type documents struct {
	size  int64
	free  *semaphore.Weighted // first come, first served
	used  atomic.Int64
	gauge prometheus.Gauge
}

func newDocuments(size int64, gauge prometheus.Gauge) *documents {
	return &documents{size: size, free: semaphore.NewWeighted(size), gauge: gauge}
}

// maxDocument returns the size of a document that needs the whole account.
func (d *documents) maxDocument() int64 { return (d.size - documentCost(0) - 3<<19) / 3 }

// reservation is a part of the account. It belongs to one goroutine.
type reservation struct {
	account *documents
	bytes   int64
}

// reserve waits for its turn and reserves bytes. The error is errRefused if the account is too
// small, otherwise that of the context.
func (d *documents) reserve(ctx context.Context, bytes int64) (*reservation, error) {
	if bytes > d.size {
		return nil, fmt.Errorf("%w: decoding needs %d bytes, the limit for all documents is %d "+
			"(raise the memory limit)", errRefused, bytes, d.size)
	}
	if err := d.free.Acquire(ctx, bytes); err != nil {
		return nil, err
	}
	d.count(bytes)
	return &reservation{d, bytes}, nil
}

func (d *documents) count(bytes int64) { d.gauge.Set(float64(d.used.Add(bytes))) }

// tryReserve extends the reservation to the given total, if that is free now.
func (r *reservation) tryReserve(total int64) bool {
	more := total - r.bytes
	if more <= 0 {
		return true
	}
	if !r.account.free.TryAcquire(more) {
		return false
	}
	r.account.count(more)
	r.bytes = total
	return true
}

func (r *reservation) release() {
	r.account.count(-r.bytes) // first, because another goroutine may reserve the bytes at once
	r.account.free.Release(r.bytes)
	r.bytes = 0
}

// needsMore is the error of a read that must begin again with a larger reservation.
type needsMore struct{ bytes int64 }

func (e *needsMore) Error() string { return fmt.Sprintf("needs %d bytes", e.bytes) }

// readReserved reads a body to its end and extends the reservation as needed. It returns errRefused
// if the body is longer than limit, and needsMore if the reservation cannot be extended.
func readReserved(body io.Reader, limit int64, r *reservation) (data []byte, err error) {
	size := int64(usualDocument)
	if hint, err := objstore.TryToGetSize(body); err == nil && hint >= 0 {
		size = hint
	}
	for eof := false; ; {
		if size > limit {
			return nil, fmt.Errorf("%w: larger than %d bytes", errRefused, limit)
		}
		if cost := documentCost(size); !r.tryReserve(cost) {
			return nil, &needsMore{cost}
		}
		// One more byte shows whether the body is longer.
		data = append(make([]byte, 0, size+1), data...)
		for !eof && int64(len(data)) <= size {
			n, err := body.Read(data[len(data):cap(data)])
			data = data[:len(data)+n]
			if eof = err == io.EOF; err != nil && !eof {
				return nil, err
			}
		}
		if int64(len(data)) <= size {
			return data, nil
		}
		size = max(min(2*size, limit, r.account.maxDocument()), size+1)
	}
}
