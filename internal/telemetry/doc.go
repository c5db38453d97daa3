// Package telemetry builds the logger, the metrics registry and the tracer provider of a process.
//
// cmd/larder calls NewLogger, NewRegistry and NewTracing once and passes the results down; nothing
// is kept in package variables. The package also has the counter of corrupt data, which several
// packages share, and adapters for the loggers of libraries. The keys of the log (ts, level, msg,
// err) are Thanos's, so that one log pipeline reads both. All results are safe for concurrent use.
//
// # What it owns
//
// The tracer provider queues spans until they are sent; Tracing.Shutdown flushes them. Nothing else
// is kept.
//
// # Locks
//
// None.
package telemetry
