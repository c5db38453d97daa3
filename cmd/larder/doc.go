// Command larder is the binary: `larder store` runs the gateway, `larder demo` shows it, and
// `larder bench` measures it.
//
// The package has flags, their checks and wiring. The packages that it configures do the work.
// Flags keep Thanos's names, defaults and syntax, so that the arguments of `thanos store` start
// larder unchanged. A flag that has no meaning in larder is accepted and logged once, at the start;
// an unknown flag is an error. Errors in flags, documents, files, the data directory and ports are
// found before the first request, and are one line on stderr that names the flag.
//
// # Where things are
//
// Each concern has a file with its flags, its checks and what it opens: bucket.go, datadir.go,
// headers.go, blocks.go, caches.go, warm.go, requests.go, httpserver.go, grpc.go, web.go. flags.go
// joins them as storeConfig. backend.go opens everything behind the servers, gateway.go the
// servers. reload.go lists the files that are read again while the process runs.
//
// # Locks
//
// certificates.mu is held while TLS files are read, so that concurrent handshakes read them once.
package main
