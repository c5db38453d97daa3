package memcached

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What counts where Options do not say.
const (
	// DefaultMaxItemSize is memcached's own: its -I.
	DefaultMaxItemSize = 1 << 20
	// DefaultMaxAsyncBufferBytes is 2,000 pages of the usual size.
	DefaultMaxAsyncBufferBytes = 16 << 20
	// DefaultTimeout of an operation.
	DefaultTimeout = 500 * time.Millisecond
)

// What Options may say at most; more is taken for that.
const (
	// LargestBatch bounds what one reply may hold.
	LargestBatch = 10_000
	// LargestItem is memcached's own limit of its -I.
	LargestItem = 1 << 30
	// LongestTTL ends within what memcached's clock can say.
	LongestTTL = 10 * 365 * 24 * time.Hour
)

const (
	defaultNamespace      = "larder:"
	defaultMinReadTimeout = 10 * time.Millisecond
	defaultAsync          = 20
	defaultAsyncItems     = 10_000
	defaultGetMulti       = 100
	defaultBatch          = 100
	defaultDNSInterval    = 10 * time.Second
	defaultTTL            = 24 * time.Hour
	defaultOpenDuration   = 5 * time.Second
	defaultMinRequests    = 50
	defaultConsecutive    = 5
	defaultFailurePercent = 0.05
	defaultHalfOpenMax    = 10
	maxKeyBytes           = 250 // memcached's limit
	maxDeletes            = 64 << 10
	// above that memcached takes a TTL for a point in time
	maxTTLRelative = 30 * 24 * time.Hour
	idleTime       = time.Minute
	lookupTimeout  = 10 * time.Second
	retryUnknown   = time.Second
	closeDrain     = time.Second
	// most that a busy machine takes to hand over what came in time
	handOverTime           = 100 * time.Millisecond
	maxWriteBufferRetained = 64 << 10
)

// Options of a Client. Addresses are needed; every other field works as its zero value.
type Options struct {
	// Name tells clients apart in metrics and logs; "memcached" by default. Two clients of one
	// Registerer need two names.
	Name string
	// Addresses of the servers: host:port (or the path of a Unix socket), and names that DNS
	// resolves again every DNSInterval: dns+host:port (AAAA records, A records where there are
	// none), dnsdualstack+host:port (both), dnssrv+name (SRV records and the addresses of their
	// targets, as of dns), dnssrvnoa+name (SRV records, their targets as they are).
	Addresses []string
	// Resolver looks names up; net.DefaultResolver by default.
	Resolver Resolver
	// DNSInterval is the time between look-ups of the names among Addresses, 10 s by default. A
	// shorter one notices new servers sooner and asks the name server more often.
	DNSInterval time.Duration
	// Namespace precedes every key, "larder:" by default: deployments that must not share values on
	// one memcached need different ones. No blanks or control characters.
	Namespace string

	// Timeout of one operation, dial included, 500 ms by default: the longest that a read may take
	// when nothing shortens it, and what a write may take.
	Timeout time.Duration
	// MinReadTimeout is the shortest read deadline that FirstByte can bring about, 10 ms by
	// default. Less gives up on servers that only have a garbage collection, or a neighbour, to
	// wait for.
	MinReadTimeout time.Duration
	// FirstByte tells how long the bucket would take to answer, asked at every call, from many
	// goroutines: waiting longer for a cache than for what it saves makes no sense. Nil, or a
	// result of 0: unknown, Timeout holds.
	FirstByte func() time.Duration

	// MaxIdleConnections are kept open per server for reads, MaxGetMultiConcurrency by default.
	// Fewer than that means connections that are closed after a burst and dialed again. Those that
	// nobody used for a minute are closed.
	MaxIdleConnections int
	// MaxGetMultiConcurrency bounds the batches that run at once, 100 by default. Waiting for a
	// turn counts in the deadline.
	MaxGetMultiConcurrency int
	// MaxGetMultiBatchSize is the number of keys in one request, 100 by default and LargestBatch at
	// most. Smaller ones spread over more connections; larger ones make fewer round trips.
	MaxGetMultiBatchSize int

	// MaxAsyncConcurrency is the number of writes that run at once, 20 by default.
	MaxAsyncConcurrency int
	// MaxAsyncBufferSize is the number of values that may wait to be written, 10,000 by default.
	MaxAsyncBufferSize int
	// MaxAsyncBufferBytes is how many bytes they may have, 16 MiB by default: the largest window of
	// chunk pages that a request begins with. What waits is memory that no cache counts. A queue
	// that is full means that the bucket yields values faster than the servers take them: a longer
	// one bridges longer bursts, and nothing else.
	MaxAsyncBufferBytes int64
	// MaxItemSize is the largest value, in bytes, that is written, or accepted in a reply; 1 MiB by
	// default, as memcached's -I. memcached counts its own header and the key too: it refuses
	// values of exactly its limit.
	MaxItemSize int64
	// TTL after which memcached forgets a value, 24 h by default. It bounds how long values of
	// deleted blocks stay; truth needs none.
	TTL time.Duration

	// TLS of the connections. Nil: none. Where ServerName is empty, the host of the configured
	// address is expected in the certificate, and for dnssrv the target of the record.
	TLS *tls.Config
	// Breaker is the circuit breaker of writes. Its OpenDuration holds for reads too.
	Breaker BreakerOptions

	// Logger hears about servers that stop answering, and answer again. Nil: nobody.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil: none.
	Registerer prometheus.Registerer
}

// BreakerOptions are named after Thanos's set_async_circuit_breaker_config. There is one breaker
// per server.
type BreakerOptions struct {
	// Disabled lets every write try its server.
	Disabled bool
	// HalfOpenMaxRequests is how many writes are tried after OpenDuration, the first of them alone,
	// and must succeed for the breaker to close; 10 by default.
	HalfOpenMaxRequests int
	// OpenDuration is for how long no write is tried, 5 s by default. Reads are not tried for 250
	// ms first, and at most for this long when a probe failed again and again.
	OpenDuration time.Duration
	// MinRequests in ten seconds before the breaker may open, 50 by default.
	MinRequests int
	// ConsecutiveFailures open it, 5 by default; so does a share FailurePercent of the writes, 0.05
	// by default (of 1). That many writes in a row that took as long as Timeout open it without
	// MinRequests: so few may come together where Timeout is long.
	ConsecutiveFailures int
	FailurePercent      float64
}

// Resolver looks up names. A *net.Resolver is one.
type Resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// positive returns v, or def where v is not positive.
func positive[T int | int64 | float64 | time.Duration](v, def T) T {
	if v > 0 {
		return v
	}
	return def
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "memcached"
	}
	if o.Namespace == "" {
		o.Namespace = defaultNamespace
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Timeout = positive(o.Timeout, DefaultTimeout)
	o.MinReadTimeout = min(positive(o.MinReadTimeout, defaultMinReadTimeout), o.Timeout)
	o.DNSInterval = positive(o.DNSInterval, defaultDNSInterval)
	o.MaxAsyncConcurrency = positive(o.MaxAsyncConcurrency, defaultAsync)
	o.MaxAsyncBufferSize = positive(o.MaxAsyncBufferSize, defaultAsyncItems)
	o.MaxAsyncBufferBytes = positive(o.MaxAsyncBufferBytes, DefaultMaxAsyncBufferBytes)
	o.MaxGetMultiConcurrency = positive(o.MaxGetMultiConcurrency, defaultGetMulti)
	o.MaxIdleConnections = positive(o.MaxIdleConnections, o.MaxGetMultiConcurrency)
	o.MaxGetMultiBatchSize = min(positive(o.MaxGetMultiBatchSize, defaultBatch), LargestBatch)
	o.MaxItemSize = min(positive(o.MaxItemSize, DefaultMaxItemSize), LargestItem)
	o.TTL = min(positive(o.TTL, defaultTTL), LongestTTL)
	b := &o.Breaker
	b.OpenDuration = positive(b.OpenDuration, defaultOpenDuration)
	b.HalfOpenMaxRequests = positive(b.HalfOpenMaxRequests, defaultHalfOpenMax)
	b.MinRequests = positive(b.MinRequests, defaultMinRequests)
	b.ConsecutiveFailures = positive(b.ConsecutiveFailures, defaultConsecutive)
	b.FailurePercent = positive(b.FailurePercent, defaultFailurePercent)
	return o
}

// validate refuses what cannot work. Options have their defaults.
func (o Options) validate() error {
	if len(o.Addresses) == 0 {
		return errors.New(
			"memcached: no addresses: name at least one server, as host:port, dns+host:port, dnssrv+name or dnssrvnoa+name",
		)
	}
	if i := strings.IndexFunc(o.Namespace, func(r rune) bool { return r <= ' ' || r == 0x7f }); i >= 0 {
		return fmt.Errorf(
			"memcached: namespace %q has a blank or control character at %d: memcached's keys may have none",
			o.Namespace, i,
		)
	}
	if n := len(o.Namespace) + keyBytes; n > maxKeyBytes {
		return fmt.Errorf("memcached: namespace %q makes keys of %d bytes: memcached takes %d",
			o.Namespace, n, maxKeyBytes)
	}
	if o.Breaker.FailurePercent > 1 {
		return fmt.Errorf(
			"memcached: breaker: failure percent %g: it is a share, above 0 and at most 1",
			o.Breaker.FailurePercent)
	}
	return nil
}
