package config

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/alecthomas/units"

	"larder/internal/clienttls"
	"larder/internal/memcached"
)

// Memcached is the configuration of a client of memcached.
type Memcached struct {
	// place is where the configuration is in its document, for errors.
	place string
	// Options holds what the document gives. Other options are zero, except MaxItemSize.
	Options memcached.Options
	// tls is nil for plain text.
	tls *clienttls.Config
	// Certificate is the client certificate, nil for none.
	Certificate *clienttls.Certificate
	// writes bounds the values that wait to be written.
	writes Amount
}

// itemOverhead bounds the bytes of an item beyond its page: the key, larder's header and
// memcached's.
const itemOverhead = 400

// memcachedDoc is the config of type MEMCACHED: Thanos's keys, then larder's own. A key is a
// pointer if zero and absence differ in meaning.
type memcachedDoc struct {
	Addresses                 []string       `yaml:"addresses"`
	Timeout                   time.Duration  `yaml:"timeout"`
	MaxIdleConnections        *int           `yaml:"max_idle_connections"`
	MaxAsyncConcurrency       *int           `yaml:"max_async_concurrency"`
	MaxAsyncBufferSize        *int           `yaml:"max_async_buffer_size"`
	MaxGetMultiConcurrency    *int           `yaml:"max_get_multi_concurrency"`
	MaxGetMultiBatchSize      *int           `yaml:"max_get_multi_batch_size"`
	MaxItemSize               *string        `yaml:"max_item_size"`
	DNSProviderUpdateInterval *time.Duration `yaml:"dns_provider_update_interval"`
	AutoDiscovery             bool           `yaml:"auto_discovery"`
	SetAsyncCircuitBreaker    breakerDoc     `yaml:"set_async_circuit_breaker_config"`

	MinTimeout          time.Duration     `yaml:"min_timeout"`
	MaxAsyncBufferBytes *string           `yaml:"max_async_buffer_bytes"`
	Namespace           string            `yaml:"namespace"`
	TLSEnabled          *bool             `yaml:"tls_enabled"`
	TLSConfig           *clienttls.Config `yaml:"tls_config"`
}

type breakerDoc struct {
	Enabled             *bool          `yaml:"enabled"`
	HalfOpenMaxRequests *uint32        `yaml:"half_open_max_requests"`
	OpenDuration        *time.Duration `yaml:"open_duration"`
	MinRequests         *uint32        `yaml:"min_requests"`
	ConsecutiveFailures *uint32        `yaml:"consecutive_failures"`
	FailurePercent      *float64       `yaml:"failure_percent"`
}

// memcached applies the config of a memcached. place is where it is in the document, and prefix
// precedes its keys in notes.
func (s *cacheSettings) memcached(flag, place, prefix string, config any) error {
	var doc memcachedDoc
	if err := nested(place, config, &doc); err != nil {
		return err
	}
	s.remote = &Memcached{
		place:  place,
		writes: Amount{From: flag + " " + prefix + "max_async_buffer_bytes"},
	}
	err := s.remote.read(&doc, func(key, why string) {
		s.notes = append(s.notes, Note{Adjusted, flag, prefix + key, why})
	})
	if err != nil {
		return s.remote.Wrap(err)
	}
	s.ignore(flag, prefix+"tls_config", doc.TLSConfig != nil && s.remote.tls == nil,
		"tls_enabled is false")
	return nil
}

// Wrap adds the place in the document to err, which must not be nil.
func (c *Memcached) Wrap(err error) error { return fmt.Errorf("%s: %w", c.place, err) }

// WrapTLS adds the place of tls_config to an error about its files. It returns nil for nil.
func (c *Memcached) WrapTLS(err error) error {
	if err == nil {
		return nil
	}
	return c.Wrap(fmt.Errorf("tls_config: %w", err))
}

// read applies the document. It calls adjusted for each key whose value it changes.
func (c *Memcached) read(doc *memcachedDoc, adjusted func(key, why string)) error {
	o := &c.Options
	o.Addresses, o.Namespace = doc.Addresses, doc.Namespace
	if len(doc.Addresses) == 0 {
		return errors.New("addresses is missing: list the servers as host:port, " +
			"or a DNS name of theirs after dns+, dnssrv+ or dnssrvnoa+")
	}
	if doc.AutoDiscovery {
		return errors.New("auto_discovery is not supported: leave it out and list the nodes in " +
			"addresses, or a DNS name of all of them as dns+host:port")
	}
	if err := c.readTimes(doc); err != nil {
		return err
	}
	if n := doc.MaxGetMultiBatchSize; n != nil && *n > memcached.LargestBatch {
		return fmt.Errorf("max_get_multi_batch_size: %d is above %d: "+
			"more keys are asked for in batches, side by side", *n, memcached.LargestBatch)
	}
	for _, n := range []struct {
		key   string
		given *int
		to    *int
		zero  string // why 0, no limit, is replaced by the default; empty if 0 is an error
	}{
		{"max_idle_connections", doc.MaxIdleConnections, &o.MaxIdleConnections,
			"0 is taken for the default"},
		{"max_async_concurrency", doc.MaxAsyncConcurrency, &o.MaxAsyncConcurrency, ""},
		{"max_async_buffer_size", doc.MaxAsyncBufferSize, &o.MaxAsyncBufferSize, ""},
		{"max_get_multi_concurrency", doc.MaxGetMultiConcurrency, &o.MaxGetMultiConcurrency,
			"what runs at once has a bound: the default"},
		{"max_get_multi_batch_size", doc.MaxGetMultiBatchSize, &o.MaxGetMultiBatchSize,
			"many keys are asked for in batches, side by side: of 100"},
	} {
		switch {
		case n.given == nil:
		case *n.given < 0, *n.given == 0 && n.zero == "":
			return fmt.Errorf("%s: %d must be above zero", n.key, *n.given)
		case *n.given == 0:
			adjusted(n.key, n.zero)
		default:
			*n.to = *n.given
		}
	}
	item, err := yamlSize("max_item_size", doc.MaxItemSize)
	if err != nil {
		return err
	}
	switch o.MaxItemSize = memcached.DefaultMaxItemSize; {
	case item == nil:
	case *item == 0:
		adjusted("max_item_size", "an item has a bound: 1MiB, as memcached's own")
	case *item > memcached.LargestItem:
		return fmt.Errorf("max_item_size: %s is above %s: memcached's -I takes no more",
			units.Base2Bytes(*item), units.Base2Bytes(memcached.LargestItem))
	default:
		o.MaxItemSize = *item
	}
	if doc.MaxAsyncBufferBytes != nil {
		if c.writes.Bytes, err = parsePositive(*doc.MaxAsyncBufferBytes); err != nil {
			return fmt.Errorf("max_async_buffer_bytes: %w", err)
		}
		c.writes.Given = true
	}
	if err := doc.SetAsyncCircuitBreaker.read(&o.Breaker); err != nil {
		return fmt.Errorf("set_async_circuit_breaker_config: %w", err)
	}
	return c.readTLS(doc)
}

func (c *Memcached) readTimes(doc *memcachedDoc) error {
	o := &c.Options
	for _, d := range []struct {
		key   string
		given time.Duration
		to    *time.Duration
	}{
		{"timeout", doc.Timeout, &o.Timeout},
		{"min_timeout", doc.MinTimeout, &o.MinReadTimeout},
	} {
		// A number without a unit is nanoseconds, which is hardly what the user meant.
		if d.given != 0 && d.given < time.Millisecond {
			return fmt.Errorf("%s: %s is less than 1ms", d.key, d.given)
		}
		*d.to = d.given
	}
	if timeout := cmp.Or(o.Timeout, memcached.DefaultTimeout); o.MinReadTimeout > timeout {
		return fmt.Errorf("min_timeout: %s is above timeout, %s", o.MinReadTimeout, timeout)
	}
	if d := doc.DNSProviderUpdateInterval; d != nil {
		if o.DNSInterval = *d; *d <= 0 {
			return fmt.Errorf("dns_provider_update_interval: %s must be above zero", *d)
		}
	}
	return nil
}

// read applies the document. The breaker is on by default. 0 means the same as in Thanos.
func (d *breakerDoc) read(o *memcached.BreakerOptions) error {
	o.Disabled = d.Enabled != nil && !*d.Enabled
	if n := d.HalfOpenMaxRequests; n != nil {
		o.HalfOpenMaxRequests = max(int(*n), 1)
	}
	if n := d.MinRequests; n != nil {
		o.MinRequests = max(int(*n), 1)
	}
	if t := d.OpenDuration; t != nil {
		if o.OpenDuration = *t; *t == 0 {
			o.OpenDuration = time.Minute
		}
		if *t < 0 {
			return fmt.Errorf("open_duration: %s is negative", *t)
		}
	}
	if o.Disabled {
		return nil // the other keys are not checked then
	}
	if n := d.ConsecutiveFailures; n != nil {
		if o.ConsecutiveFailures = int(*n); *n == 0 {
			return errors.New("consecutive_failures: 0 must be above zero")
		}
	}
	if p := d.FailurePercent; p != nil {
		if o.FailurePercent = *p; !(*p > 0 && *p <= 1) {
			return fmt.Errorf("failure_percent: %g is not a ratio above 0 and up to 1", *p)
		}
	}
	return nil
}

// readTLS applies the keys of TLS. tls_config without tls_enabled is an error, because it is more
// likely a mistake than a request for plain text.
func (c *Memcached) readTLS(doc *memcachedDoc) error {
	switch {
	case doc.TLSEnabled == nil && doc.TLSConfig != nil:
		return errors.New("tls_config is given, but not tls_enabled: set it to true or false")
	case doc.TLSEnabled == nil || !*doc.TLSEnabled:
		return nil
	case doc.TLSConfig == nil:
		c.tls = &clienttls.Config{}
	default:
		c.tls = doc.TLSConfig
	}
	return nil
}

// check checks the document against the size of the pages that memcached will hold, and reads the
// files of tls_config.
func (c *Memcached) check(page *Amount, now time.Time) (err error) {
	// Memcached would otherwise reject every page.
	if item := c.Options.MaxItemSize; page.Bytes+itemOverhead > item {
		return c.Wrap(fmt.Errorf("max_item_size: "+
			"%s do not hold a page of %s and what comes with it: "+
			"raise it, and memcached's -I, or lower %s",
			units.Base2Bytes(item), units.Base2Bytes(page.Bytes), page.From))
	}
	if c.tls == nil {
		return nil
	}
	c.Options.TLS, c.Certificate, err = c.tls.Open(now)
	return c.WrapTLS(err)
}
