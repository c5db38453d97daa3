package inbound

import (
	"cmp"
	"context"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
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
	// Unsent is how many bytes of answers may be kept after their handlers have returned, because
	// their clients do not read, besides a single one; default 64 MiB. When there are more, the
	// client that has most for its share loses the connection that has most.
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

	streams *streams

	mu           sync.Mutex // guards what follows; never held while a connection is closed
	open         int
	halfReceived int64
	unsent       int64 // bytes of answers that may not have been written
	looked       time.Time
	looking      bool
	timer        *time.Timer // looks while there are connections with requests
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
	receiving int     // requests of which the message is awaited
	received  int64   // bytes since receiving was 0
	tails     []int64 // bytes of answers that may not have been written
	unsent    int64   // their sum
	// undelivered is how many answers were not written when grpc was asked last, standing how many
	// then and the time before.
	undelivered, standing int
	// ended is how many requests are over, endedThen how many were when grpc was asked last. readAt
	// is when an answer was delivered last, or none was waiting; reads tells whether that is not
	// long ago.
	ended, endedThen int
	readAt           time.Time
	// unread is the bytes of the undelivered answers, by what grpc said last; largest is one of
	// them.
	unread, largest int64
	reads           bool
	answers         map[*unsent]struct{}
	gone            bool // hung up on, or closed
}

// NewRequests returns a Requests without requests.
func NewRequests(opts RequestsOptions) *Requests {
	opts.Max = cmp.Or(opts.Max, defaultMaxRequests)
	opts.MaxPerClient = cmp.Or(opts.MaxPerClient, defaultMaxRequestsPerClient)
	opts.ReceiveTimeout = cmp.Or(opts.ReceiveTimeout, defaultReceiveTimeout)
	opts.HalfReceived = cmp.Or(opts.HalfReceived, defaultHalfReceived)
	opts.Unsent = cmp.Or(opts.Unsent, defaultUnsent)
	return &Requests{opts: opts, streams: newStreams(), clients: map[netip.Prefix]*clientRequests{}}
}

// arrival is one request until its message has arrived and its handler has returned.
type arrival struct {
	requests *Requests
	conn     *connRequests
	timer    *time.Timer
	arrived  atomic.Bool
	began    atomic.Bool // its handler has begun
	refused  atomic.Bool // receiving its message has failed, and not by its client
	credited atomic.Bool // its headers are not counted any more
	dropped  atomic.Bool // it is counted as dropped

	ended bool // guarded by Requests.mu; it is open no more
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
		loser.hangUp(tooManyRequests, true)
	}
	if held == nil {
		return ctx, nil // of a connection that larder hangs up on
	}
	a := &arrival{requests: r, conn: held}
	a.timer = time.AfterFunc(r.opts.ReceiveTimeout, func() {
		if ctx.Err() == nil {
			c.hangUp(notReceived, true)
		}
	})
	context.AfterFunc(ctx, func() { // grpc ends the context with the request
		a.timer.Stop()
		r.leave(a)
		if ctx.Err() == context.Canceled && !a.began.Load() {
			r.drop(a)
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
	if r.timer == nil {
		r.timer = time.AfterFunc(lookEvery, r.watch)
	}
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

// Received notes that a message has arrived, of so many bytes when it is decompressed.
func Received(ctx context.Context, bytes int, compressed bool) {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		return
	}
	// What the message took on the wire is not known. The credit is what it took at least, or
	// little more: a client must not make room for an incomplete message by complete ones. The rest
	// is settled when no message is awaited.
	const frame, headers, most, mostCompressed = 16, 256, 1 << 20, 256
	n := int64(bytes)
	if compressed {
		n = min(n, mostCompressed)
	}
	n = min(n, most) + frame
	if !a.credited.Swap(true) {
		n += headers
	}
	a.requests.credit(a.conn, n)
}

// credit takes bytes of a message that has arrived out of those of incomplete ones.
func (r *Requests) credit(held *connRequests, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n = min(n, held.received); !held.gone {
		held.received -= n
		r.halfReceived -= n
	}
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

// leave counts a request no more.
func (r *Requests) leave(a *arrival) {
	if a.arrived.CompareAndSwap(false, true) {
		r.settle(a.conn)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !a.conn.gone {
		r.end(a)
	}
}

// end counts a request no more as open. It is called with the lock held, while its connection is
// not gone.
func (r *Requests) end(a *arrival) {
	if !a.ended {
		a.ended = true
		a.conn.open--
		a.conn.ended++
		a.conn.client.open--
		r.open--
	}
}

// drop counts a request that its client has dropped, once. A client that drops too many loses all
// of its connections. Requests that end with their connection were not dropped.
func (r *Requests) drop(a *arrival) {
	if a.dropped.Swap(true) {
		return
	}
	var losers []*Conn
	r.mu.Lock()
	if held := a.conn; !held.gone && !held.client.dropped.Allow() {
		for _, other := range held.client.conns {
			losers = append(losers, r.lose(other))
		}
	}
	r.mu.Unlock()
	hangUpAll(losers, requestsDropped, true)
}

// begin notes that the handler of a request begins. The caller calls end with the error that it
// returned.
func (r *Requests) begin(ctx context.Context, a *arrival) (end func(error)) {
	a.began.Store(true)
	return func(err error) {
		// A client that resets a stream cancels its context while the handler runs. So does larder
		// when it does not accept a message, or when it ends a request whose answer is not read.
		if ctx.Err() == context.Canceled && !a.refused.Load() && status.Code(err) != codes.Aborted {
			r.drop(a)
		}
	}
}

// Began notes that grpc has called the handler of a unary request, which it does before it decodes
// the message: larder may refuse it from here on. The caller calls failed if the message did not
// arrive.
func Began(ctx context.Context) (failed func()) {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		return func() {}
	}
	a.began.Store(true)
	return func() {
		if ctx.Err() == context.Canceled {
			a.requests.drop(a)
		}
	}
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

// Unary notes that a request has arrived, and how it ended.
func (r *Requests) Unary(
	ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (resp any, err error) {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		return next(ctx, req)
	}
	a.hasArrived()
	end := r.begin(ctx, a)
	defer func() { end(err) }()
	return next(ctx, req)
}

// Stream notes when the first message of a request has arrived, and how the request ended.
func (r *Requests) Stream(
	srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler,
) (err error) {
	a, ok := ss.Context().Value(arrivalKey{}).(*arrival)
	if !ok {
		return next(srv, ss)
	}
	end := r.begin(ss.Context(), a)
	defer func() { end(err) }()
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
	if code := status.Code(err); code != codes.OK && code != codes.Canceled && err != io.EOF {
		r.arrival.refused.Store(true)
	}
	r.arrival.hasArrived()
	return err
}
