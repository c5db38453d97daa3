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
	// defaultMaxRequests bounds requests over all connections, because each costs about 15 KiB
	// before it waits for anything.
	defaultMaxRequests          = 8192
	defaultMaxRequestsPerClient = 2048
	defaultReceiveTimeout       = 10 * time.Second
	// defaultHalfReceived is enough for four messages of the maximum size.
	defaultHalfReceived = 64 << 20
	defaultUnsent       = 64 << 20

	// A client may drop this many requests per second before they are answered, with this burst. A
	// Querier that cancels a query drops one request.
	droppedPerSecond = 200
	droppedAtOnce    = 2000
)

// RequestsOptions bounds the requests of a gRPC server. The zero value is ready to use.
type RequestsOptions struct {
	// Max is the maximum number of open requests; default 8192. Beyond it, the client with most for
	// its share loses its connection with most requests.
	Max int
	// MaxPerClient is the maximum number of open requests for one share of a client; default 2048,
	// negative: no bound. A client that opens more loses its connection with most requests.
	MaxPerClient int
	// ReceiveTimeout is the maximum time from the headers of a request to the end of its message;
	// default 10 seconds. Then its connection is closed.
	ReceiveTimeout time.Duration
	// HalfReceived is the maximum number of received bytes of incomplete messages, over all
	// connections; default 64 MiB. Beyond it, the connection with most of them is closed.
	HalfReceived int64
	// Unsent is the maximum number of bytes of answers that are kept after their handlers have
	// returned, because their clients do not read; default 64 MiB. A single answer may be larger.
	// Beyond it, the client with most for its share loses its connection with most bytes.
	Unsent int64
	// Shares multiplies the bounds for some clients. nil gives every client one share.
	Shares Shares
}

// Requests bounds the requests of a gRPC server from their headers on, before a handler or its
// limits see them. Install its Tap, Unary and Stream in the server's options, and pass it in the
// Options of the listener.
//
// Requests are counted by client, and the client with most for its share loses first. A client that
// opens as many requests as it can therefore does not harm other clients.
type Requests struct {
	opts RequestsOptions

	streams *streams

	mu           sync.Mutex // guards what follows; never held while a connection is closed
	open         int
	halfReceived int64
	unsent       int64 // bytes of answers that may not have been written
	looked       time.Time
	looking      bool
	timer        *time.Timer // runs watch while there are connections with requests
	clients      map[netip.Prefix]*clientRequests
}

// clientRequests has the counts of a client.
type clientRequests struct {
	open    int
	shares  int
	dropped *rate.Limiter
	conns   map[*Conn]*connRequests
}

// connRequests has the counts of a connection. INVARIANT: until gone is set, it is in its client's
// conns and its counts are part of the sums.
type connRequests struct {
	conn      *Conn
	client    *clientRequests
	open      int
	receiving int     // requests whose message has not arrived
	received  int64   // bytes since receiving was 0
	tails     []int64 // bytes of answers that may not have been written
	unsent    int64   // their sum
	// undelivered is the number of answers that were not written at the last poll, standing the
	// number at the last two polls.
	undelivered, standing int
	// ended is the number of requests that have ended, endedThen that number at the last poll.
	// readAt is the last time at which an answer was delivered or none was waiting. reads reports
	// whether that was recently.
	ended, endedThen int
	readAt           time.Time
	// unread is the size of the answers that were undelivered at the last poll, largest that of the
	// largest one.
	unread, largest int64
	reads           bool
	answers         map[*unsent]struct{}
	gone            bool // closed by either side
}

// NewRequests returns an empty Requests.
func NewRequests(opts RequestsOptions) *Requests {
	opts.Max = cmp.Or(opts.Max, defaultMaxRequests)
	opts.MaxPerClient = cmp.Or(opts.MaxPerClient, defaultMaxRequestsPerClient)
	opts.ReceiveTimeout = cmp.Or(opts.ReceiveTimeout, defaultReceiveTimeout)
	opts.HalfReceived = cmp.Or(opts.HalfReceived, defaultHalfReceived)
	opts.Unsent = cmp.Or(opts.Unsent, defaultUnsent)
	return &Requests{opts: opts, streams: newStreams(), clients: map[netip.Prefix]*clientRequests{}}
}

// arrival is the state of one request.
type arrival struct {
	requests *Requests
	conn     *connRequests
	timer    *time.Timer
	arrived  atomic.Bool
	began    atomic.Bool // its handler has begun
	refused  atomic.Bool // larder did not accept its message
	credited atomic.Bool // its headers are no longer counted
	dropped  atomic.Bool // it is counted as dropped

	ended bool // guarded by Requests.mu; no longer open
}

type arrivalKey struct{}

// Tap is for grpc.InTapHandle. It does not block, because grpc holds a lock of the connection.
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
		// Rejecting only this request would be cheaper, but grpc keeps the timers of requests that
		// are rejected here.
		loser.hangUp(tooManyRequests, true)
	}
	if held == nil {
		return ctx, nil // its connection is being closed
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

// enter counts a request. held is nil if the request's connection is gone. loser is a connection
// that the caller must close, nil for none.
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

// connection registers a connection at its first request. Call it with mu held.
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

// forget removes clients without connections.
func (r *Requests) forget() {
	for prefix, client := range r.clients {
		if len(client.conns) == 0 {
			delete(r.clients, prefix)
		}
	}
}

// most returns the client's connection with the largest value of of.
func (c *clientRequests) most(of func(*connRequests) int64) *connRequests {
	var most *connRequests
	for _, held := range c.conns {
		if most == nil || of(held) > of(most) {
			most = held
		}
	}
	return most
}

// most returns the connection with the largest value of of, of the client with the largest sum for
// its shares.
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

// lose removes a connection from the sums. Call it with mu held, and close the connection without
// it.
func (r *Requests) lose(held *connRequests) *Conn {
	r.open -= held.open
	r.halfReceived -= held.received
	r.unsent -= held.unsent
	held.client.open -= held.open
	delete(held.client.conns, held.conn)
	held.gone = true
	return held.conn
}

// received counts n received bytes. loser is a connection that the caller must close, nil for none.
func (r *Requests) received(c *Conn, n int) (loser *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := c.requests
	if held == nil || held.gone || held.receiving == 0 {
		return nil // no message is expected: pings, window updates, headers of the next request
	}
	held.received += int64(n)
	if r.halfReceived += int64(n); r.halfReceived <= r.opts.HalfReceived {
		return nil
	}
	return r.lose(r.most(func(o *connRequests) int64 { return o.received }))
}

// await records that one more message is expected.
func (r *Requests) await(held *connRequests) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held.receiving++
}

// Received records that a message has arrived. bytes is its decompressed size.
func Received(ctx context.Context, bytes int, compressed bool) {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		return
	}
	// The size of the message on the wire is not known. Credit its minimum size, or little more,
	// because complete messages must not hide the bytes of an incomplete one. settle corrects the
	// difference when no message is expected.
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

// credit subtracts the bytes of a complete message from those of incomplete ones.
func (r *Requests) credit(held *connRequests, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n = min(n, held.received); !held.gone {
		held.received -= n
		r.halfReceived -= n
	}
}

// settle records that one message fewer is expected.
func (r *Requests) settle(held *connRequests) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held.receiving--
	if held.receiving == 0 && !held.gone {
		r.halfReceived -= held.received
		held.received = 0
	}
}

// leave ends the counting of a request.
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

// end stops counting a request as open. Call it with mu held and only if the connection is not
// gone.
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
// of its connections. A request that ends with its connection does not count as dropped.
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

// begin records that the handler of a request begins. The caller must call end with the error of
// the handler.
func (r *Requests) begin(ctx context.Context, a *arrival) (end func(error)) {
	a.began.Store(true)
	return func(err error) {
		// A client that resets a stream cancels its context while the handler runs. larder also
		// cancels it if it does not accept a message, or if it aborts a request whose answer is not
		// read.
		if ctx.Err() == context.Canceled && !a.refused.Load() && status.Code(err) != codes.Aborted {
			r.drop(a)
		}
	}
}

// Began records that grpc has called the handler of a unary request, which happens before the
// message is decoded. From here on, larder may reject the request. The caller must call failed with
// the code of the error if the message did not arrive or was not accepted.
func Began(ctx context.Context) (failed func(codes.Code)) {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		return func(codes.Code) {}
	}
	a.began.Store(true)
	return func(code codes.Code) {
		switch {
		case code != codes.Canceled:
			a.refused.Store(true)
		case ctx.Err() == context.Canceled:
			a.requests.drop(a)
		}
	}
}

// closed removes a closed connection.
func (r *Requests) closed(c *Conn) {
	r.mu.Lock()
	held := c.requests
	switch {
	case held == nil:
		held = &connRequests{gone: true} // for bytes received before it was closed
		c.requests = held
	case !held.gone:
		r.lose(held)
	}
	r.mu.Unlock()
	r.releaseAnswers(held)
}

// hasArrived records that the first message of a request has arrived.
func (a *arrival) hasArrived() {
	if a.arrived.CompareAndSwap(false, true) {
		a.timer.Stop()
		a.requests.settle(a.conn)
	}
}

// Unary records the arrival and the end of a unary request.
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

// Stream records the arrival of a stream's first message, and the end of the stream.
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
