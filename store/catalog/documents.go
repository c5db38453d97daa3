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
	// defaultDocumentBytes lets a meta.json of maxMetaSize through.
	defaultDocumentBytes = 72 << 20
	// minDocumentBytes is what a meta.json of some 100 KiB needs.
	minDocumentBytes = 2 << 20
	// usualDocument is the size of a document that its first reservation covers. Most meta.json are
	// smaller.
	usualDocument = 12 << 10
	// listingBytes is for a page of a listing as it came and as it is decoded: 1000 names of up to
	// 1024 bytes.
	listingBytes = 2 << 20
)

// documentCost is what a document of n bytes takes until it is decoded: its bytes, as much again
// twice for texts that are unescaped or repeated in an error and for its copy, and what its bounded
// lists and labels are decoded into. The rest is for a buffer of the bucket's client.
func documentCost(n int64) int64 { return 3*n + min(10*n, 3<<19) + 64<<10 }

// errRefused is in the chain of the error of a document that larder does not take in because of its
// size or of what it has too much of. Reading it again would not help.
var errRefused = errors.New("refused")

// documents is the account of what is read of the bucket for the catalog: meta.json, marks, meta.pb
// and listings, and of local copies. Each reserves before its bytes are read, and until they are
// decoded.
//
// INVARIANT: nothing waits for the account while it holds some of it, a slot of the bucket or the
// body of an object. What needs more than it has gets it at once, or gives up all and begins again.
type documents struct {
	size  int64
	free  *semaphore.Weighted // first come, first served
	used  atomic.Int64
	gauge prometheus.Gauge
}

func newDocuments(size int64, gauge prometheus.Gauge) *documents {
	return &documents{size: size, free: semaphore.NewWeighted(size), gauge: gauge}
}

// largest is the size of a document that takes the whole account.
func (d *documents) largest() int64 { return (d.size - documentCost(0) - 3<<19) / 3 }

// reservation is a part of the account. It belongs to one goroutine.
type reservation struct {
	d     *documents
	bytes int64
}

// reserve waits for its turn. Its error is errRefused if the account never has as much, else the
// context's.
func (d *documents) reserve(ctx context.Context, bytes int64) (*reservation, error) {
	if bytes > d.size {
		return nil, fmt.Errorf(
			"%w: it takes %d bytes to decode, and there are %d for all documents "+
				"(raise the memory limit)",
			errRefused,
			bytes,
			d.size,
		)
	}
	if err := d.free.Acquire(ctx, bytes); err != nil {
		return nil, err
	}
	d.add(bytes)
	return &reservation{d, bytes}, nil
}

func (d *documents) add(bytes int64) { d.gauge.Set(float64(d.used.Add(bytes))) }

// grow makes the reservation one of so many bytes in all, if they are free.
func (r *reservation) grow(bytes int64) bool {
	more := bytes - r.bytes
	if more <= 0 {
		return true
	}
	if !r.d.free.TryAcquire(more) {
		return false
	}
	r.d.add(more)
	r.bytes = bytes
	return true
}

func (r *reservation) release() {
	r.d.add(-r.bytes) // first: what is free may be taken and counted at once
	r.d.free.Release(r.bytes)
	r.bytes = 0
}

// needsMore is the error of a read that has to begin again with a larger reservation.
type needsMore struct{ bytes int64 }

func (e *needsMore) Error() string { return fmt.Sprintf("needs %d bytes", e.bytes) }

// readReserved reads a body to its end, as far as the reservation can be made to reach. errRefused
// is the error of one of more than limit bytes.
func readReserved(body io.Reader, limit int64, held *reservation) (data []byte, err error) {
	room := int64(usualDocument)
	if size, err := objstore.TryToGetSize(body); err == nil && size >= 0 {
		room = size // which is a hint
	}
	for eof := false; ; {
		if room > limit {
			return nil, fmt.Errorf("%w: larger than %d bytes", errRefused, limit)
		}
		if cost := documentCost(room); !held.grow(cost) {
			return nil, &needsMore{cost}
		}
		// One byte more shows whether there is more.
		data = append(make([]byte, 0, room+1), data...)
		for !eof && int64(len(data)) <= room {
			n, err := body.Read(data[len(data):cap(data)])
			data = data[:len(data)+n]
			if eof = err == io.EOF; err != nil && !eof {
				return nil, err
			}
		}
		if int64(len(data)) <= room {
			return data, nil
		}
		room = max(min(2*room, limit, held.d.largest()), room+1)
	}
}
