// Package clienttls builds the TLS configuration of a client from the files that a document names.
//
// Config is the tls_config of Thanos's documents; larder uses it for memcached and for the
// collector of traces. Config.Open reads the files once, at the start. The client certificate is
// read again for every connection, so that a rotated one needs no restart. CAPool and InForce check
// certificates for servers too. The package owns no bytes beyond the contents of the files.
//
// # Locks
//
// Certificate.mu guards the last usable certificate. Files are read without it.
package clienttls
