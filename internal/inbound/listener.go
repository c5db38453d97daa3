package inbound

import (
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// Options bounds the connections of a Listener. The zero value is ready to use.
type Options struct {
	// Max is the maximum number of connections, default 1024. MaxPerClient is the maximum from one
	// address (IPv6: one /64), default 256. Negative means no bound. A connection beyond
	// MaxPerClient is closed at once. A connection beyond Max replaces the newest connection of the
	// client with most for its share, or is closed if that is its own client. An idle connection
	// costs about 100 KiB. Clients behind one proxy have one address.
	Max, MaxPerClient int
	// WriteTimeout is the time after which a connection is closed if its client's side accepts no
	// bytes; default 1 minute, negative: never. It is accurate to about an eighth.
	WriteTimeout time.Duration
	// ReadBytes is the maximum rate of bytes received from one client, per second, after a burst of
	// two seconds' worth; default 16 MiB, negative: no bound. Requests are small, therefore only
	// clients that try to fill the memory reach it.
	ReadBytes int
	// Shares multiplies MaxPerClient and ReadBytes for some clients. nil gives every client one
	// share.
	Shares Shares
	// Requests counts the received bytes of requests. It is nil for servers other than gRPC.
	Requests *Requests
	// Server is the name of the server in metrics and logs: grpc or http.
	Server string
	Logger *slog.Logger
	// Metrics is shared by all listeners of a process. nil counts nothing.
	Metrics *Metrics
}

const (
	defaultMax          = 1024
	defaultMaxPerClient = 256
	defaultWriteTimeout = time.Minute
	defaultReadBytes    = 16 << 20
	// hangUpsAtOnce is how often connections of a client may be closed because of its behaviour
	// before its new connections are refused; hangUpsPerSecond is the rate after that. They are
	// refused because accepting a connection and its requests costs more than opening it.
	hangUpsAtOnce    = 8
	hangUpsPerSecond = 0.5
	// rememberedClients bounds the clients without connections that are remembered for their
	// behaviour.
	rememberedClients = 4096
	// maxStalled is the maximum number of stalled streams on all connections of a listener. Beyond
	// it, the connection of the oldest is closed, because grpc keeps up to 1 MiB and 64 KiB of
	// each.
	maxStalled = 32
)

// Metrics counts connections of listeners.
type Metrics struct {
	open    *prometheus.GaugeVec
	refused *prometheus.CounterVec
	hungUp  *prometheus.CounterVec
}

// NewMetrics registers the metrics; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "larder_connections", Help: "Open connections from clients.",
		}, []string{"server"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_connections_refused_total",
			Help: "Connections that were closed at once, by the bound that they exceeded: " +
				"connections in total (all), connections of the client (client), " +
				"or earlier closures of the client's connections (hung_up).",
		}, []string{"server", "bound"}),
		hungUp: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_connections_hung_up_total",
			Help: "Connections that larder closed because of the behaviour of their client, by reason.",
		}, []string{"server", "reason"}),
	}
	if reg != nil {
		reg.MustRegister(m.open, m.refused, m.hungUp)
	}
	return m
}

// Listener accepts connections within bounds. It is a net.Listener; its connections are *Conn.
type Listener struct {
	net.Listener
	opts Options

	told rate.Sometimes // limits log lines about closed connections

	mu      sync.Mutex // guards what follows
	total   int
	sources map[netip.Prefix]*source
	stalled []*Conn // oldest first; a connection is listed once for each stream
}

// source is a client with connections.
type source struct {
	connections int     // guarded by Listener.mu
	newest      []*Conn // guarded by Listener.mu; the newest last
	shares      int
	hangUps     *rate.Limiter // a token for each connection that may be closed
	limiter     *rate.Limiter // of bytes read; nil for none
}

// blameless reports whether no connection of the client was closed recently because of its
// behaviour.
func (s *source) blameless() bool { return s.hangUps.Tokens() >= float64(s.hangUps.Burst()) }

// forget removes clients without connections: the blameless ones, or all if there are none.
func (l *Listener) forget() {
	n := len(l.sources)
	for _, all := range []bool{false, true} {
		for network, s := range l.sources {
			if s.connections == 0 && (all || s.blameless()) {
				delete(l.sources, network)
			}
		}
		if len(l.sources) < n {
			return
		}
	}
}

// New bounds the connections of l.
func New(l net.Listener, opts Options) *Listener {
	if opts.Max == 0 {
		opts.Max = defaultMax
	}
	if opts.MaxPerClient == 0 {
		opts.MaxPerClient = defaultMaxPerClient
	}
	if opts.WriteTimeout == 0 {
		opts.WriteTimeout = defaultWriteTimeout
	}
	if opts.ReadBytes == 0 {
		opts.ReadBytes = defaultReadBytes
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Metrics == nil {
		opts.Metrics = NewMetrics(nil)
	}
	opts.Metrics.open.WithLabelValues(opts.Server)
	for _, bound := range []string{boundAll, boundClient, boundHungUp} {
		opts.Metrics.refused.WithLabelValues(opts.Server, bound)
	}
	for _, why := range reasons {
		opts.Metrics.hungUp.WithLabelValues(opts.Server, why)
	}
	return &Listener{
		Listener: l, opts: opts, sources: map[netip.Prefix]*source{},
		told: rate.Sometimes{First: 10, Interval: time.Second},
	}
}

// The reasons for refusing or closing a connection, as labels of metrics.
const (
	boundAll    = "all"
	boundClient = "client"
	boundHungUp = "hung_up"

	writeStalled    = "write_stalled"
	streamsStalled  = "streams_stalled"
	tooManyRequests = "too_many_requests"
	notReceived     = "not_received"
	halfReceived    = "half_received"
	requestsDropped = "requests_dropped"
	answersUnread   = "answers_unread"
	crowded         = "crowded"
)

var reasons = []string{
	writeStalled, streamsStalled, tooManyRequests, notReceived, halfReceived, requestsDropped,
	answersUnread, crowded,
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		conn := &Conn{
			Conn:     c,
			listener: l,
			client:   clientOf(c.RemoteAddr()),
			done:     make(chan struct{}),
		}
		conn.addr = &Addr{Addr: c.RemoteAddr(), conn: conn}
		bound, loser := l.enter(conn)
		if loser != nil {
			loser.hangUp(crowded, false)
		}
		if bound == "" {
			return conn, nil
		}
		l.opts.Metrics.refused.WithLabelValues(l.opts.Server, bound).Inc()
		l.opts.Logger.Debug("connection refused, there are too many",
			"server", l.opts.Server, "client", c.RemoteAddr(), "bound", bound)
		_ = c.Close() // nothing was sent
	}
}

// enter admits a connection, or returns the bound that it exceeds. loser is a connection that the
// caller must close, nil for none.
func (l *Listener) enter(c *Conn) (bound string, loser *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	src := l.sources[c.client]
	if src == nil {
		if len(l.sources) >= rememberedClients {
			l.forget()
		}
		shares := l.opts.Shares.Of(c.client)
		src = &source{
			shares: shares,
			hangUps: rate.NewLimiter(
				rate.Limit(hangUpsPerSecond*float64(shares)), hangUpsAtOnce*shares),
		}
		if n := l.opts.ReadBytes; n > 0 {
			src.limiter = rate.NewLimiter(rate.Limit(n*src.shares), 2*n*src.shares)
		}
		l.sources[c.client] = src
	}
	if l.opts.MaxPerClient > 0 && src.connections >= l.opts.MaxPerClient*src.shares {
		return boundClient, nil
	}
	if src.hangUps.Tokens() < 1 {
		return boundHungUp, nil
	}
	if l.opts.Max > 0 && l.total >= l.opts.Max {
		if loser = l.crowding(src); loser == nil {
			return boundAll, nil
		}
	}
	src.connections++
	src.newest = append(src.newest, c)
	c.source = src
	l.total++
	l.opts.Metrics.open.WithLabelValues(l.opts.Server).Inc()
	return "", loser
}

// crowding returns the newest connection of the client with most connections for its shares, if
// that is more than src would have with one more.
func (l *Listener) crowding(src *source) *Conn {
	var worst *source
	most := float64(src.connections+1) / float64(src.shares)
	for _, s := range l.sources {
		if load := float64(s.connections) / float64(s.shares); load > most {
			worst, most = s, load
		}
	}
	if worst == nil {
		return nil
	}
	return worst.newest[len(worst.newest)-1]
}

func (l *Listener) leave(c *Conn) {
	if l.opts.Requests != nil {
		l.opts.Requests.closed(c)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	c.source.newest = slices.DeleteFunc(c.source.newest, func(o *Conn) bool { return o == c })
	if c.source.connections--; c.source.connections == 0 && c.source.blameless() {
		delete(l.sources, c.client)
	}
	l.stalled = slices.DeleteFunc(l.stalled, func(o *Conn) bool { return o == c })
	l.opts.Metrics.open.WithLabelValues(l.opts.Server).Dec()
}

// clientOf returns the network that counts as one client: an address, or for IPv6 its /64, which is
// assigned as a whole.
func clientOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return networkOf(tcp.AddrPort().Addr())
}

func networkOf(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap()
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // not an address
	}
	return p
}
