package main

import (
	"time"

	"larder/internal/config"
	"larder/store/admission"
)

// requestsConfig holds the flags that bound requests: their size, their number, their tenants.
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
	flag(
		f, "store.limits.request-series",
		"Maximum series of a Series request; more is an error. 0 = no limit.", "0", &c.series,
		count,
	)
	flag(
		f, "store.limits.request-samples",
		"Maximum samples of a Series request, counted as 120 per chunk; more is an error. 0 = no limit.",
		"0", &c.samples, count,
	)
	flag(
		f, "store.grpc.downloaded-bytes-limit",
		"Maximum bytes that a request may read, from the bucket or a cache; more is an error. 0 = no limit.",
		"0", &c.bytes, config.ParseSize,
	)
	contentFlags(
		f, &c.tenantsYAML, "store.limits.config",
		"gives tenants limits and weights of their own: keys default and tenants.",
	)
	flag(
		f,
		"store.metrics.tenants",
		"Maximum number of tenants that metrics name, the largest of late; those in --store.limits.config come on top. "+
			"All others are counted as tenant other. 0 = none is named.",
		"3",
		&c.namedTenants,
		between(0, 1000),
	)
	flag(
		f, "store.grpc.series-max-concurrency",
		"Series requests that run at once; more wait. 0 = no limit.", "20", &c.gate.MaxConcurrent,
		integer(0),
	)
	flag(
		f, "store.grpc.series-max-waiting",
		"Series requests, and label requests, that wait for others to end; what comes on top is refused. 0 = no limit.",
		"1000", &c.gate.MaxWaiting, integer(0),
	)
	boolFlag(
		f, "store.grpc.series-fail-fast",
		"Refuse Series requests that would have to wait. For set-ups where a replica can answer instead.",
		"false", &c.gate.FailFast,
	)
	flag(
		f, "store.grpc.send-stall-timeout",
		"End a Series request with Aborted when its client leaves a frame of the answer unread for so long. 0 = never.",
		"1m", &c.sendStall, goDuration,
	)
}

// flagLimits are what the flags say of every tenant.
func (c *requestsConfig) flagLimits() admission.LimitOptions {
	return admission.LimitOptions{
		Series:  c.series,
		Samples: c.samples,
		Bytes:   uint64(c.bytes),
	}
}

func (c *requestsConfig) load() error {
	if c.gate.MaxWaiting == 0 {
		c.gate.MaxWaiting = -1 // where the flag means no limit, the option means its default
	}
	b, err := c.tenantsYAML.read()
	if err != nil {
		return err
	}
	c.limits, err = parseLimits(b, c.flagLimits())
	return c.tenantsYAML.wrap(err)
}
