package faultstore

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"

	"github.com/thanos-io/objstore"
)

// Call is one call of a Bucket.
type Call struct {
	Op          string // as objstore names it: objstore.OpGetRange, ...
	Name        string // of the object, or of the folder of a listing
	Off, Length int64  // of a GetRange
}

// Script answers a Get or GetRange in the client's place. With answered false the client is called.
// It may block and panic. n is the number of reads before this one.
type Script func(ctx context.Context, c Call, n int) (body io.ReadCloser, err error, answered bool)

// InMemory returns a client whose bucket has the objects.
func InMemory(objects map[string][]byte) *objstore.InMemBucket {
	mem := objstore.NewInMemBucket()
	for name, data := range objects {
		// It fails only if reading fails.
		_ = mem.Upload(context.Background(), name, bytes.NewReader(data))
	}
	return mem
}

// recorder is what a Bucket knows of its calls.
type recorder struct {
	mu     sync.Mutex
	script Script
	calls  []Call
	reads  int // Get and GetRange, since the start
	open   int // bodies that are not closed
}

// Script sets the script of the reads that begin from now on. It is called before the rules of
// Faults apply. nil removes it.
func (b *Bucket) Script(s Script) {
	b.rec.mu.Lock()
	defer b.rec.mu.Unlock()
	b.rec.script = s
}

// Calls returns the calls of the given operations since the last Forget, in their order; without
// operations, all calls.
func (b *Bucket) Calls(ops ...string) []Call {
	b.rec.mu.Lock()
	defer b.rec.mu.Unlock()
	var calls []Call
	for _, c := range b.rec.calls {
		if len(ops) == 0 || slices.Contains(ops, c.Op) {
			calls = append(calls, c)
		}
	}
	return calls
}

// Forget forgets the calls so far.
func (b *Bucket) Forget() {
	b.rec.mu.Lock()
	defer b.rec.mu.Unlock()
	b.rec.calls = nil
}

// OpenBodies returns the number of bodies that the bucket has returned and that are not closed.
func (b *Bucket) OpenBodies() int {
	b.rec.mu.Lock()
	defer b.rec.mu.Unlock()
	return b.rec.open
}

// note records a call. It returns the script for it, nil for none, and the number of reads before.
func (r *recorder) note(c Call) (s Script, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
	if c.Op != objstore.OpGet && c.Op != objstore.OpGetRange {
		return nil, 0
	}
	r.reads++
	return r.script, r.reads - 1
}

// counted counts a body as open until it is closed.
func (r *recorder) counted(body io.ReadCloser) io.ReadCloser {
	if body == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open++
	return &countedBody{ReadCloser: body, closed: sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.open--
	})}
}

type countedBody struct {
	io.ReadCloser
	closed func()
}

// ObjectSize returns the size that the client tells.
func (b *countedBody) ObjectSize() (int64, error) { return objstore.TryToGetSize(b.ReadCloser) }

func (b *countedBody) Close() error {
	b.closed()
	return b.ReadCloser.Close()
}
