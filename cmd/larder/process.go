package main

import (
	"larder/internal/telemetry"
)

// processConfig holds the flags that Thanos has for all its commands: the log, tracing, GOMEMLIMIT.
type processConfig struct {
	logLevel, logFormat string
	debugName           string // added to every line of the log
	autoMemLimit        bool
	autoMemLimitRatio   float64
	tracingYAML         content
	tracing             []byte // the document of tracingYAML, set by load
}

func (c *processConfig) flags(f flagger) {
	flag(
		f, "log.level", "Log from this level on: error, warn, info or debug.", "info", &c.logLevel,
		oneOf(telemetry.LogLevels()...),
	)
	flag(
		f, "log.format", "Log format: logfmt, json or journald (the systemd journal).", "logfmt",
		&c.logFormat, oneOf(telemetry.LogFormats()...),
	)
	flag(
		f, "debug.name", "A name that every line of the log carries.", "", &c.debugName, text,
	).Hidden()
	contentFlags(
		f, &c.tracingYAML, "tracing.config",
		"configures tracing, as Thanos has it; type OTLP. Without it the OTEL_* environment counts.",
	)
	boolFlag(
		f, "enable-auto-gomemlimit",
		"Set GOMEMLIMIT from the container's memory limit, unless the environment sets it. No effect without such a limit.",
		"true", &c.autoMemLimit,
	)
	flag(
		f, "auto-gomemlimit.ratio",
		"The part of the container's memory limit that GOMEMLIMIT is set to.", "0.9",
		&c.autoMemLimitRatio, ratio,
	)
}

func (c *processConfig) load() (err error) {
	c.tracing, err = c.tracingYAML.read()
	return err
}
