package main

import (
	"larder/internal/requestlog"
)

// requestLogConfig has the flags of the request log.
type requestLogConfig struct {
	yaml content

	parsed *requestlog.Config // set by load
}

func (c *requestLogConfig) flags(f flagger) {
	contentFlags(f, &c.yaml, "request.logging-config",
		"the request logging configuration in Thanos's format: "+
			"which gRPC and HTTP requests are logged.")
}

func (c *requestLogConfig) load() error {
	b, err := c.yaml.read()
	if err != nil {
		return err
	}
	c.parsed, err = requestlog.Parse(b)
	return c.yaml.wrap(err)
}
