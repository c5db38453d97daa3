package bytecachetest

import (
	"context"
	"sync"

	"larder/internal/bytecache"
)

// Remote is a memcached without a server: it keeps everything, checks nothing, and does what a test
// wants besides.
type Remote struct {
	// Before, if not nil, is called by each look-up before it looks.
	Before func(ctx context.Context)
	// Answer, if not nil, may change what a look-up has found.
	Answer func(ids []bytecache.ID, values [][]byte)

	mu     sync.Mutex // guards what follows
	values map[bytecache.ID][]byte
	asked  []int
}

var _ bytecache.Remote = (*Remote)(nil)

// NewRemote returns an empty one.
func NewRemote() *Remote { return &Remote{values: map[bytecache.ID][]byte{}} }

// GetMulti implements bytecache.Remote.
func (r *Remote) GetMulti(ctx context.Context, ids []bytecache.ID, values [][]byte) {
	r.mu.Lock()
	r.asked = append(r.asked, len(ids))
	before := r.Before
	r.mu.Unlock()
	if before != nil {
		before(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, id := range ids {
		values[i] = r.values[id]
	}
	if r.Answer != nil {
		r.Answer(ids, values)
	}
}

// Set implements bytecache.Remote.
func (r *Remote) Set(id bytecache.ID, value []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.values[id] = value
}

// Delete implements bytecache.Remote.
func (r *Remote) Delete(id bytecache.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.values, id)
}

// Asked returns how many values each look-up since the last call of Asked was for.
func (r *Remote) Asked() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.asked
	r.asked = nil
	return asked
}

// Change has f change, or look at, all that is kept.
func (r *Remote) Change(f func(values map[bytecache.ID][]byte)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.values)
}
