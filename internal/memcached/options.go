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

// Defaults of Options.
const (
	// DefaultMaxItemSize is the default of memcached's own -I, in bytes.
	DefaultMaxItemSize = 1 << 20
	// DefaultMaxAsyncBufferBytes is 2,000 pages of the usual size.
	DefaultMaxAsyncBufferBytes = 16 << 20
	// DefaultTimeout is the default of Options.Timeout.
	DefaultTimeout = 500 * time.Millisecond
)

// Upper limits of Options. Larger values are reduced to them.
const (
	// LargestBatch is the maximum number of keys in one request.
	LargestBatch = 10_000
	// LargestItem is the maximum of memcached's own -I, in bytes.
	LargestItem = 1 << 30
	// LongestTTL is within the range of memcached's clock.
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
	// memcached reads a larger TTL as a point in time.
	maxTTLRelative = 30 * 24 * time.Hour
	idleTime       = time.Minute
	lookupTimeout  = 10 * time.Second
	retryUnknown   = time.Second
	closeDrain     = time.Second
	// handOverTime is the longest that a busy machine needs to hand over a value that arrived in
	// time.
	handOverTime           = 100 * time.Millisecond
	maxWriteBufferRetained = 64 << 10
)

// Options configure a Client. Addresses are required; every other field has a useful zero value.
type Options struct {
	// Name identifies the client in metrics and logs; "memcached" by default. Two clients with one
	// Registerer need different names.
	Name string
	// Addresses of the servers: host:port, the path of a Unix socket, or a name that DNS resolves
	// every DNSInterval: dns+host:port (AAAA records, or A records if there are none),
	// dnsdualstack+host:port (both), dnssrv+name (SRV records and the addresses of their targets,
	// resolved as with dns), dnssrvnoa+name (SRV records, with their targets unresolved).
	Addresses []string
	// Resolver resolves names; net.DefaultResolver by default.
	Resolver Resolver
	// DNSInterval is the time between look-ups of the names in Addresses, 10 s by default. A
	// shorter interval finds new servers sooner and sends more queries to the name server.
	DNSInterval time.Duration
	// Namespace is the prefix of every key, "larder:" by default. Deployments that share a
	// memcached but must not share values need different namespaces. Blanks and control characters
	// are not allowed.
	Namespace string

	// Timeout of one operation, dial included, 500 ms by default. It is the time limit of a write,
	// and of a read unless FirstByte shortens it.
	Timeout time.Duration
	// MinReadTimeout is the shortest read deadline that FirstByte can set, 10 ms by default. A
	// shorter one gives up on servers that only wait for a garbage collection or for their
	// processor.
	MinReadTimeout time.Duration
	// FirstByte returns the time that the bucket takes to answer. It is called for every look-up,
	// from many goroutines. Waiting longer for the cache than for the bucket is useless. If
	// FirstByte is nil or returns 0, reads use Timeout.
	FirstByte func() time.Duration

	// MaxIdleConnections is the number of idle connections kept per server for reads,
	// MaxGetMultiConcurrency by default. With fewer, connections are closed after a burst and
	// dialed again. Connections that were idle for a minute are closed.
	MaxIdleConnections int
	// MaxGetMultiConcurrency is the maximum number of batches that run in parallel, 100 by default.
	// The deadline includes the time that a batch waits for its turn.
	MaxGetMultiConcurrency int
	// MaxGetMultiBatchSize is the maximum number of keys in one request, 100 by default and
	// LargestBatch at most. Smaller batches use more connections; larger ones make fewer round
	// trips.
	MaxGetMultiBatchSize int

	// MaxAsyncConcurrency is the maximum number of writes that run in parallel, 20 by default.
	MaxAsyncConcurrency int
	// MaxAsyncBufferSize is the maximum number of values that wait to be written, 10,000 by
	// default.
	MaxAsyncBufferSize int
	// MaxAsyncBufferBytes is the maximum size of the values that wait to be written, 16 MiB by
	// default: the largest first window of chunk pages of a request. No cache accounts for this
	// memory. The queue is full if the bucket returns values faster than the servers accept them. A
	// longer queue only bridges longer bursts.
	MaxAsyncBufferBytes int64
	// MaxItemSize is the size in bytes of the largest value that is written, or accepted in a
	// reply; 1 MiB by default, the same as memcached's -I. memcached counts its own header and the
	// key too, and therefore refuses values of exactly its limit.
	MaxItemSize int64
	// TTL is the time after which memcached expires a value, 24 h by default. It limits how long
	// values of deleted blocks stay. Correctness does not depend on it.
	TTL time.Duration

	// TLS configures the connections; nil disables TLS. If ServerName is empty, the certificate
	// must be valid for the host of the configured address, or for dnssrv the target of the record.
	TLS *tls.Config
	// Breaker configures the circuit breaker of writes. Its OpenDuration applies to reads too.
	Breaker BreakerOptions

	// Logger logs servers that stop answering and that answer again. Nil: no logs.
	Logger *slog.Logger
	// Registerer registers the metrics. Nil: no metrics.
	Registerer prometheus.Registerer
}

// BreakerOptions are named after Thanos's set_async_circuit_breaker_config. Each server has its own
// breaker.
type BreakerOptions struct {
	// Disabled turns the breaker off: every write is tried.
	Disabled bool
	// HalfOpenMaxRequests is the number of writes that are tried after OpenDuration, the first of
	// them alone. All must succeed for the breaker to close; 10 by default.
	HalfOpenMaxRequests int
	// OpenDuration is the time for which no write is tried, 5 s by default. Reads are not tried for
	// 250 ms at first; the period doubles with each failed probe, up to OpenDuration.
	OpenDuration time.Duration
	// MinRequests is the number of writes within ten seconds before the breaker may open, 50 by
	// default.
	MinRequests int
	// ConsecutiveFailures is the number of failed writes in a row that opens the breaker, 5 by
	// default. A share FailurePercent of the writes opens it too, 0.05 by default (of 1).
	// ConsecutiveFailures timeouts in a row open it before MinRequests is reached, because with a
	// long Timeout fewer writes complete.
	ConsecutiveFailures int
	FailurePercent      float64
}

// Resolver resolves names. *net.Resolver implements it.
type Resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// positive returns v if it is positive, otherwise def.
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

// validate returns an error for options that cannot work. Call it after withDefaults.
func (o Options) validate() error {
	if len(o.Addresses) == 0 {
		return errors.New(
			"memcached: no addresses: name at least one server, as host:port, dns+host:port, " +
				"dnssrv+name or dnssrvnoa+name",
		)
	}
	bad := func(r rune) bool { return r <= ' ' || r == 0x7f }
	if i := strings.IndexFunc(o.Namespace, bad); i >= 0 {
		return fmt.Errorf(
			"memcached: namespace %q has a blank or control character at %d, "+
				"which memcached's keys must not contain",
			o.Namespace, i,
		)
	}
	if n := len(o.Namespace) + keyBytes; n > maxKeyBytes {
		return fmt.Errorf("memcached: namespace %q makes keys of %d bytes: memcached's limit is %d",
			o.Namespace, n, maxKeyBytes)
	}
	if o.Breaker.FailurePercent > 1 {
		return fmt.Errorf(
			"memcached: breaker: failure percent %g: want a share above 0 and at most 1",
			o.Breaker.FailurePercent)
	}
	return nil
}
