// Package telemetrytest receives what the code under test tells: Buffer its log, Collector its
// traces.
//
// Buffer.mu guards the text, Collector.mu the spans. The collector runs a gRPC server until the end
// of its test.
package telemetrytest
