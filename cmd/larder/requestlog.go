package main

import (
	"log/slog"
	"time"

	"larder/internal/requestlog"
	"larder/store/admission"
)

// requestLogConfig has the flags of the request log.
type requestLogConfig struct {
	yaml content
	slow time.Duration // 0: only requests over their budget

	parsed *requestlog.Config // set by load
}

func (c *requestLogConfig) flags(f flagger) {
	contentFlags(f, &c.yaml, "request.logging-config",
		"the request logging configuration in Thanos's format: "+
			"which gRPC and HTTP requests are logged.")
	flag(f, "store.log-requests-longer-than", "10s", &c.slow, goDuration,
		"Log a request for data as slow if it takes at least this time. The line says who sent "+
			"it, what it asked for and where its time went. "+
			"0 = only requests that exceed --latency-budgets.")
}

// options returns the options of all loggers of requests.
func (c *requestLogConfig) options(logger *slog.Logger) requestlog.Options {
	return requestlog.Options{Logger: logger, Tenant: admission.TenantOf, Slow: c.slow}
}

func (c *requestLogConfig) load() error {
	b, err := c.yaml.read()
	if err != nil {
		return err
	}
	c.parsed, err = requestlog.Parse(b)
	return c.yaml.wrap(err)
}
