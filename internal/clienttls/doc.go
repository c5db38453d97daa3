// Package clienttls makes the TLS configuration of a client from the files that a document names:
// the collector's of traces, memcached's.
//
// Certificate.mu guards the last good certificate, for the time of looking at it. The package owns
// no bytes beside what the files hold.
package clienttls
