package main

import (
	"time"

	"larder/internal/config"
	"larder/store/admission"
)

// requestsConfig has the flags that bound requests: size, number, limits of tenants.
type requestsConfig struct {
	series, samples uint64        // of a Series request, 0: no limit
	bytes           int64         // 0: no limit
	sendStall       time.Duration // 0: never
	gate            admission.GateOptions
	namedTenants    int
	tenantsYAML     content

	limits tenantLimits // set by load
}

func (c *requestsConfig) flags(f flagger) {
	flag(f, "store.limits.request-series", "0", &c.series, count,
		"Maximum number of series that a Series or label request may match, summed over blocks "+
			"before deduplication. Larger requests fail. 0 = no limit.")
	flag(f, "store.limits.request-samples", "0", &c.samples, count,
		"Maximum number of samples of a Series request, counted as 120 per chunk. "+
			"Larger requests fail. 0 = no limit.")
	flag(f, "store.grpc.downloaded-bytes-limit", "0", &c.bytes, config.ParseSize,
		"Maximum number of bytes that a request reads from the bucket and the caches. "+
			"Larger requests fail. 0 = no limit.")
	contentFlags(f, &c.tenantsYAML, "store.limits.config",
		"the limits and weights of tenants. Keys: default, tenants.")
	flag(f, "store.metrics.tenants", "3", &c.namedTenants, between(0, 1000),
		"Maximum number of tenants that metrics name: those with the most requests recently. "+
			"Tenants in --store.limits.config are named in addition. "+
			"All others are counted as tenant other. 0 = name none.")
	flag(f, "store.grpc.series-max-concurrency", "20", &c.gate.MaxConcurrent, integer(0),
		"Maximum number of concurrent Series requests. Further requests are queued. "+
			"0 = no limit.")
	flag(f, "store.grpc.series-max-waiting", "1000", &c.gate.MaxWaiting, integer(0),
		"Maximum number of queued Series requests, and of queued label requests. "+
			"Further requests are rejected. 0 = no limit.")
	boolFlag(f, "store.grpc.series-fail-fast", "false", &c.gate.FailFast,
		"Reject Series requests that would be queued. Use it if a replica can answer instead.")
	flag(f, "store.grpc.send-stall-timeout", "1m", &c.sendStall, goDuration,
		"Abort a Series request if its client does not read a frame within this time. 0 = never.")
}

// flagLimits returns the limits that the flags give every tenant.
func (c *requestsConfig) flagLimits() admission.LimitOptions {
	return admission.LimitOptions{
		Series:  c.series,
		Samples: c.samples,
		Bytes:   uint64(c.bytes),
	}
}

func (c *requestsConfig) load() error {
	if c.gate.MaxWaiting == 0 {
		c.gate.MaxWaiting = -1 // the option treats 0 as its default
	}
	b, err := c.tenantsYAML.read()
	if err != nil {
		return err
	}
	c.limits, err = parseLimits(b, c.flagLimits())
	return c.tenantsYAML.wrap(err)
}
