// Package requestlog logs the beginning and the end of gRPC and HTTP requests.
//
// --request.logging-config, which is Thanos's, decides which requests a Log logs. Outcomes logs
// gRPC requests that failed or were slow, whatever that configuration says. IDUnary and IDStream
// give each gRPC request an id that appears in all of its lines. A handler describes its request
// with Describe: what was asked, and what it took. cmd/larder installs the interceptors and the
// HTTP middleware.
//
// # Format
//
// Keys, messages and levels are Thanos's, and therefore those of the gRPC middleware that both use,
// so that log pipelines continue to work. "started call" is logged at debug. "finished call" is
// logged at debug if the request succeeded or the client caused the failure, otherwise at error.
// Most lines therefore need --log.level=debug. larder adds the tenant, and an id for every request.
//
// # Caveats
//
// For HTTP, level in the configuration suppresses lines below it. For gRPC it is validated but has
// no effect, same as in Thanos.
//
// # Locks
//
// A Log keeps its Config, which is immutable, behind an atomic pointer. Set replaces it; running
// requests finish with the previous one. Outcomes.mu guards the counts of recent lines.
package requestlog
