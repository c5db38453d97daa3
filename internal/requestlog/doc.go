// Package requestlog writes a line when a request begins or ends, for gRPC and HTTP, as Thanos's
// --request.logging-config says, and gives each gRPC request the id that tells its lines from those
// of others.
//
// # Whose words
//
// Keys, messages and levels are Thanos's, which are in turn those of the gRPC middleware that both
// use: pipelines that read them go on. A "started call" is written at debug; a "finished call" at
// debug if it went well or the fault is the client's, else at error, so that most lines need
// --log.level=debug. Added are tenant, and a request id for every request.
//
// # What the level of the configuration does
//
// For HTTP it holds back lines below it. For gRPC it is checked and means nothing, in Thanos and
// here: lines come at their own levels. Thanos's documentation has an example with level ERROR
// whose lines are at debug.
//
// # Who owns what
//
// A Log's configuration is an immutable Config behind an atomic pointer: Set swaps it while
// requests run, which end under the one they began with. Failures has one mutex, which is held for
// counting alone.
package requestlog
