// Package telemetry makes the three things a process is watched by: a logger, a metrics registry
// and a tracer provider.
//
// Nothing here is kept in package variables: cmd/larder makes each of them once and passes it down.
// The package owns no cached bytes and holds no locks; what it returns is safe for concurrent use.
//
// The log's keys (ts, level, msg, err) are Thanos's, so that the same log pipeline reads both.
package telemetry
