package slots

import (
	"context"
	"sync"
	"sync/atomic"
)

// Owner is one request of a tenant, by which its reads take turns. The zero Owner is the process:
// it owns the reads of contexts without an owner, such as those of the catalog.
type Owner struct {
	tenant  string
	request *byte // another one for each request
}

// readerKey is the key of the reader of a context.
type readerKey struct{}

// reader says for whom the reads of a context are: an owner that waits for them, work with waiters
// of its own, or neither.
type reader struct {
	owner  *Owner
	shared *shared
}

func readerOf(ctx context.Context) reader {
	if r, ok := ctx.Value(readerKey{}).(*reader); ok {
		return *r
	}
	return reader{owner: &Owner{}}
}

// WithRequest returns a context whose reads are those of a new request of tenant, which waits for
// them.
func WithRequest(ctx context.Context, tenant string) context.Context {
	return context.WithValue(ctx, readerKey{}, &reader{
		owner: &Owner{tenant: tenant, request: new(byte)},
	})
}

// Background returns a context whose reads are look-ahead that no request will ever wait for. Those
// that a request joins become demand.
func Background(ctx context.Context) context.Context {
	return context.WithValue(ctx, readerKey{}, &reader{})
}

// LookAhead returns a context for reads that are started before the reader of ctx needs them. They
// are look-ahead until need is called: from then on they are the reads of ctx. need may be called
// more than once and concurrently, and does not wait.
func LookAhead(ctx context.Context) (ahead context.Context, need func()) {
	s := &shared{}
	ahead = context.WithValue(ctx, readerKey{}, &reader{shared: s})
	return ahead, func() { readerOf(ctx).join(s) }
}

// Share returns a context for work that several waiters may share. Its reads are those of ctx. join
// adds the context of another waiter: they become demand once any of the waiters is. join may be
// called concurrently, and does not wait.
func Share(ctx context.Context) (work context.Context, join func(waiter context.Context)) {
	if readerOf(ctx).owner != nil {
		return ctx, func(context.Context) {} // there is nothing more urgent
	}
	s := &shared{}
	readerOf(ctx).join(s)
	work = context.WithValue(ctx, readerKey{}, &reader{shared: s})
	return work, func(waiter context.Context) { readerOf(waiter).join(s) }
}

// urgent becomes demand when a request needs it.
type urgent interface {
	// promote makes it demand of owner. Only the first call has an effect. It does not wait.
	promote(owner *Owner)
}

// join adds the reader to the waiters of u.
func (r reader) join(u urgent) {
	switch {
	case r.owner != nil:
		u.promote(r.owner)
	case r.shared != nil:
		r.shared.add(u)
	}
}

// shared is work whose reads are look-ahead until promote is called.
type shared struct {
	mu    sync.Mutex
	owner *Owner   // nil before promote
	reads []urgent // that wait for promote; nil after it
}

func (s *shared) add(u urgent) {
	s.mu.Lock()
	owner := s.owner
	if owner == nil {
		s.reads = append(s.reads, u)
	}
	s.mu.Unlock()
	if owner != nil {
		u.promote(owner)
	}
}

func (s *shared) promote(owner *Owner) {
	s.mu.Lock()
	reads := s.reads
	s.reads = nil
	if s.owner == nil {
		s.owner = owner
	}
	s.mu.Unlock()
	for _, u := range reads {
		u.promote(owner)
	}
}

// Read is one read of the bucket, with the class of the most urgent of its waiters: demand or
// look-ahead. The zero Read is look-ahead without waiters. It is safe for concurrent use.
type Read struct {
	demand atomic.Pointer[Owner] // by which it queues as demand; nil: it is look-ahead
	place  atomic.Pointer[place] // where it waits as look-ahead
}

// NewRead returns a read whose waiter is the reader of ctx.
func NewRead(ctx context.Context) *Read {
	r := &Read{}
	r.Join(ctx)
	return r
}

// Join adds the reader of ctx to the waiters. A read never becomes less urgent. Join does not wait.
func (r *Read) Join(ctx context.Context) { readerOf(ctx).join(r) }

func (r *Read) promote(owner *Owner) {
	if !r.demand.CompareAndSwap(nil, owner) {
		return
	}
	if p := r.place.Load(); p != nil {
		p.promote(owner)
	}
}

// class returns the owner by which the read queues, and whether that waits for it.
func (r *Read) class() (owner *Owner, demand bool) {
	if owner := r.demand.Load(); owner != nil {
		return owner, true
	}
	return &Owner{}, false
}
