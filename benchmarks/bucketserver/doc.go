// Command bucketserver serves a folder as an S3 bucket with the latency and the bandwidth of an
// object store, and records every request. The comparison in interop/ runs it as a process, because
// interop/ may not import this module:
//
//	go run ./benchmarks/bucketserver --dir=/tmp/bucket --first-byte=20ms --bytes-per-second=80000000
//
// It prints one line, the configuration for --objstore.config as JSON, and serves until it is told
// to stop. GET /-/requests returns the requests that ended since the last such call, as JSON, and
// forgets them.
//
// # Goroutines and locks
//
// LOCKING: recorder.mu guards the list of requests. It is held only to append to the list or to
// replace it.
package main
