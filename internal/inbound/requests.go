package inbound

import (
	"cmp"
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
)

const (
	// defaultMaxRequests bounds requests over all connections: each costs some 15 KiB before it
	// waits for anything.
	defaultMaxRequests          = 8192
	defaultMaxRequestsPerClient = 2048
	defaultReceiveTimeout       = 10 * time.Second
	// defaultHalfReceived leaves room for four messages of the largest size.
	defaultHalfReceived = 64 << 20
	defaultUnsent       = 64 << 20

	// A client may drop this many requests a second before they are answered, and this many at
	// once: a Querier that cancels queries drops one for each.
	droppedPerSecond = 200
	droppedAtOnce    = 2000
)

// RequestsOptions bound the requests of a gRPC server. The zero value works.
type RequestsOptions struct {
	// Max is the number of requests that are open at once; default 8192. When there are more, the
	// client that holds most for its share loses the connection that holds most of them.
	Max int
	// MaxPerClient is the number of open requests that one share of a client allows; default 2048,
	// negative: no bound. A client that opens more loses the connection that holds most of them.
	MaxPerClient int
	// ReceiveTimeout is how long a request may take from its headers to the end of its message;
	// default 10 seconds. Its connection is closed then.
	ReceiveTimeout time.Duration
	// HalfReceived is how many bytes may have been received of messages that are not complete, over
	// all connections; default 64 MiB. When there are more, the connection that holds most of them
	// is closed.
	HalfReceived int64
	// Unsent is how many bytes of unary answers may be kept that their clients have not read,
	// besides a single one; default 64 MiB.
	Unsent int64
	// Shares weigh clients; nil: all have one.
	Shares Shares
}

// Requests looks after the requests of a gRPC server from their headers on, which is before a
// handler or its limits see them. Its Tap, Unary and Stream all go into the server's options, and
// it goes into the Options of its listener.
//
// Requests are counted by client, and the client that holds most for its share loses first.
// Therefore a client that opens as many as it can costs no other client a request.
type Requests struct {
	opts RequestsOptions

	mu           sync.Mutex // guards what follows; never held while a connection is closed
	open         int
	halfReceived int64
	unsent       int64
	clients      map[netip.Prefix]*clientRequests
}

// clientRequests is what a client holds.
type clientRequests struct {
	open    int
	shares  int
	dropped *rate.Limiter
	conns   map[*Conn]*connRequests
}

// connRequests is what a connection holds. INVARIANT: it is in its client's conns, and its figures
// are part of the sums, until gone is set.
type connRequests struct {
	conn      *Conn
	client    *clientRequests
	open      int
	receiving int   // requests of which the message is awaited
	received  int64 // bytes since receiving was 0
	unsent    int64 // bytes of answers
	answers   map[*unsent]struct{}
	gone      bool // hung up on, or closed
}

// NewRequests returns a Requests without requests.
func NewRequests(opts RequestsOptions) *Requests {
	opts.Max = cmp.Or(opts.Max, defaultMaxRequests)
	opts.MaxPerClient = cmp.Or(opts.MaxPerClient, defaultMaxRequestsPerClient)
	opts.ReceiveTimeout = cmp.Or(opts.ReceiveTimeout, defaultReceiveTimeout)
	opts.HalfReceived = cmp.Or(opts.HalfReceived, defaultHalfReceived)
	opts.Unsent = cmp.Or(opts.Unsent, defaultUnsent)
	return &Requests{opts: opts, clients: map[netip.Prefix]*clientRequests{}}
}

// arrival is one request until its message has arrived and its handler has returned.
type arrival struct {
	requests *Requests
	conn     *connRequests
	timer    *time.Timer
	arrived  atomic.Bool
	answered atomic.Bool
}

type arrivalKey struct{}

// Tap is for grpc.InTapHandle. grpc holds a lock of the connection meanwhile: nothing here waits.
func (r *Requests) Tap(ctx context.Context, _ *tap.Info) (context.Context, error) {
	var c *Conn
	if p, ok := peer.FromContext(ctx); ok {
		c = From(p.Addr)
	}
	if c == nil {
		return ctx, nil
	}
	held, loser := r.enter(c)
	if loser != nil {
		// To refuse this request alone would be cheaper, but grpc keeps the timers of requests that
		// are refused here.
		loser.hangUp(tooManyRequests)
	}
	if held == nil {
		return ctx, nil // of a connection that larder hangs up on
	}
	a := &arrival{requests: r, conn: held}
	a.timer = time.AfterFunc(r.opts.ReceiveTimeout, func() {
		if ctx.Err() == nil {
			c.hangUp(notReceived)
		}
	})
	context.AfterFunc(ctx, func() { // grpc ends the context with the request
		a.timer.Stop()
		for _, loser := range r.leave(a, ctx.Err()) {
			loser.hangUp(requestsDropped)
		}
	})
	return context.WithValue(ctx, arrivalKey{}, a), nil
}

// enter counts a request. It returns nil for one of a connection that is gone, and the connection
// that has to go, if one has.
func (r *Requests) enter(c *Conn) (held *connRequests, loser *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.requests == nil {
		c.requests = r.connection(c)
	}
	held = c.requests
	if held.gone {
		return nil, nil
	}
	held.open++
	held.receiving++
	held.client.open++
	r.open++
	switch {
	case r.opts.MaxPerClient > 0 && held.client.open > r.opts.MaxPerClient*held.client.shares:
		loser = r.lose(held.client.most(func(o *connRequests) int64 { return int64(o.open) }))
	case r.open > r.opts.Max:
		loser = r.lose(r.most(func(o *connRequests) int64 { return int64(o.open) }))
	}
	if held.gone {
		return nil, loser
	}
	return held, loser
}

// connection is called with the lock held, at the first request of a connection.
func (r *Requests) connection(c *Conn) *connRequests {
	client := r.clients[c.client]
	if client == nil {
		if len(r.clients) >= rememberedClients {
			r.forget()
		}
		shares := r.opts.Shares.Of(c.client)
		client = &clientRequests{
			shares:  shares,
			dropped: rate.NewLimiter(rate.Limit(droppedPerSecond*shares), droppedAtOnce*shares),
			conns:   map[*Conn]*connRequests{},
		}
		r.clients[c.client] = client
	}
	held := &connRequests{conn: c, client: client}
	client.conns[c] = held
	return held
}

// forget drops clients that have no connection.
func (r *Requests) forget() {
	for prefix, client := range r.clients {
		if len(client.conns) == 0 {
			delete(r.clients, prefix)
		}
	}
}

// most returns the connection with most of something, of a client.
func (c *clientRequests) most(of func(*connRequests) int64) *connRequests {
	var most *connRequests
	for _, held := range c.conns {
		if most == nil || of(held) > of(most) {
			most = held
		}
	}
	return most
}

// most returns the connection with most of something, of the client with most of it for its shares.
func (r *Requests) most(of func(*connRequests) int64) *connRequests {
	var worst *clientRequests
	var most float64
	for _, client := range r.clients {
		var sum int64
		for _, held := range client.conns {
			sum += of(held)
		}
		if n := float64(sum) / float64(client.shares); worst == nil || n > most {
			worst, most = client, n
		}
	}
	return worst.most(of)
}

// lose takes a connection out of the sums. It is called with the lock held; the caller hangs up
// without it.
func (r *Requests) lose(held *connRequests) *Conn {
	r.open -= held.open
	r.halfReceived -= held.received
	r.unsent -= held.unsent
	held.client.open -= held.open
	delete(held.client.conns, held.conn)
	held.gone = true
	return held.conn
}

// received counts n bytes that a connection has received, and returns the connection that has to
// go, if one has.
func (r *Requests) received(c *Conn, n int) (loser *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := c.requests
	if held == nil || held.gone || held.receiving == 0 {
		return nil // no message is awaited: pings, window updates, headers of the next request
	}
	held.received += int64(n)
	if r.halfReceived += int64(n); r.halfReceived <= r.opts.HalfReceived {
		return nil
	}
	return r.lose(r.most(func(o *connRequests) int64 { return o.received }))
}

// await notes that one message more is awaited.
func (r *Requests) await(held *connRequests) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held.receiving++
}

// settle notes that one message fewer is awaited.
func (r *Requests) settle(held *connRequests) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held.receiving--
	if held.receiving == 0 && !held.gone {
		r.halfReceived -= held.received
		held.received = 0
	}
}

// leave counts a request no more. It returns all connections of a client that has dropped too many.
func (r *Requests) leave(a *arrival, why error) (losers []*Conn) {
	if a.arrived.CompareAndSwap(false, true) {
		r.settle(a.conn)
	}
	held := a.conn
	r.mu.Lock()
	defer r.mu.Unlock()
	if held.gone {
		return nil // requests that end with their connection were not dropped
	}
	held.open--
	held.client.open--
	r.open--
	if why != context.Canceled || a.answered.Load() || held.client.dropped.Allow() {
		return nil
	}
	for _, other := range held.client.conns {
		losers = append(losers, r.lose(other))
	}
	return losers
}

// closed forgets a connection.
func (r *Requests) closed(c *Conn) {
	r.mu.Lock()
	held := c.requests
	switch {
	case held == nil:
		held = &connRequests{gone: true} // of what was received before it was closed
		c.requests = held
	case !held.gone:
		r.lose(held)
	}
	r.mu.Unlock()
	r.releaseAnswers(held)
}

// hasArrived notes that the first message of a request is there.
func (a *arrival) hasArrived() {
	if a.arrived.CompareAndSwap(false, true) {
		a.timer.Stop()
		a.requests.settle(a.conn)
	}
}

// Unary notes that a request has arrived, and when it is answered.
func (r *Requests) Unary(
	ctx context.Context,
	req any,
	_ *grpc.UnaryServerInfo,
	next grpc.UnaryHandler,
) (any, error) {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		return next(ctx, req)
	}
	a.hasArrived()
	defer a.answered.Store(true)
	return next(ctx, req)
}

// Stream notes when the first message of a request has arrived, and when it is answered.
func (r *Requests) Stream(
	srv any,
	ss grpc.ServerStream,
	_ *grpc.StreamServerInfo,
	next grpc.StreamHandler,
) error {
	a, ok := ss.Context().Value(arrivalKey{}).(*arrival)
	if !ok {
		return next(srv, ss)
	}
	defer a.answered.Store(true)
	return next(srv, &receiving{ServerStream: ss, arrival: a})
}

type receiving struct {
	grpc.ServerStream
	arrival *arrival
}

func (r *receiving) RecvMsg(m any) error {
	if a := r.arrival; a.arrived.Load() {
		a.requests.await(a.conn) // the next message of a stream that has several
		defer a.requests.settle(a.conn)
	}
	err := r.ServerStream.RecvMsg(m)
	r.arrival.hasArrived()
	return err
}
