package main

import (
	"larder/internal/telemetry"
)

// processConfig has the flags that Thanos has for all commands: log, tracing, GOMEMLIMIT.
type processConfig struct {
	logLevel, logFormat string
	debugName           string // added to every line of the log
	autoMemLimit        bool
	autoMemLimitRatio   float64
	tracingYAML         content
	tracing             []byte // the document of tracingYAML, set by load
}

func (c *processConfig) flags(f flagger) {
	flag(f, "log.level", "info", &c.logLevel, oneOf(telemetry.LogLevels()...),
		"Log level: error, warn, info or debug. Less severe messages are dropped.")
	flag(f, "log.format", "logfmt", &c.logFormat, oneOf(telemetry.LogFormats()...),
		"Log format: logfmt, json or journald (the systemd journal).")
	flag(f, "debug.name", "", &c.debugName, text,
		"Name to add to every log line. Empty = none.").Hidden()
	contentFlags(f, &c.tracingYAML, "tracing.config",
		"the tracing configuration in Thanos's format, type OTLP. "+
			"Without it, the OTEL_* environment variables apply.")
	boolFlag(f, "enable-auto-gomemlimit", "true", &c.autoMemLimit,
		"Set GOMEMLIMIT to a part of the container's memory limit, see --auto-gomemlimit.ratio. "+
			"No effect if the environment sets GOMEMLIMIT or the container has no limit.")
	flag(f, "auto-gomemlimit.ratio", "0.9", &c.autoMemLimitRatio, ratio,
		"Ratio of GOMEMLIMIT to the container's memory limit, above 0 and at most 1.")
}

func (c *processConfig) load() (err error) {
	c.tracing, err = c.tracingYAML.read()
	return err
}
