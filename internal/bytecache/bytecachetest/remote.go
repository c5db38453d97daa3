package bytecachetest

import (
	"context"
	"sync"

	"larder/internal/bytecache"
)

// Remote is a memcached without a server: it keeps everything and verifies nothing. Tests can hook
// into its look-ups.
type Remote struct {
	// Before, if not nil, is called at the start of each look-up.
	Before func(ctx context.Context)
	// Answer, if not nil, may change the result of a look-up.
	Answer func(ids []bytecache.ID, values [][]byte)

	mu     sync.Mutex // guards the fields below
	values map[bytecache.ID][]byte
	asked  []int
}

var _ bytecache.Remote = (*Remote)(nil)

// NewRemote returns an empty Remote.
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

// Asked returns, for each look-up since the last call of Asked, how many values it requested.
func (r *Remote) Asked() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.asked
	r.asked = nil
	return asked
}

// Change calls f with all values; f may change them.
func (r *Remote) Change(f func(values map[bytecache.ID][]byte)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.values)
}
