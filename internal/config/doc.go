// Package config decides what a gateway caches and how it divides its memory.
//
// Memory.Fit divides a memory limit among caches, requests and everything else that holds bytes.
// Caches applies Thanos's documents of the caches, --index-cache.config and
// --store.caching-bucket.config, to what flags say. Flags, or a test, fill the Amounts, and the
// caller opens the caches with the result. Each error names the flag or the key to change. The
// package registers no flags and opens no cache, so that every command can assemble a gateway in
// the same way.
//
// The limits of tenants are not here. Their document extends store/admission.LimitOptions, and
// internal packages do not import store. cmd/larder parses it.
//
// # How memory is divided
//
// An amount is either given by the user or a default. With a memory limit, some defaults are parts
// of it, and Fit scales defaults down until a quarter of the limit stays free. Fit never changes an
// amount that the user gave: if those amounts do not fit, the start fails. kinds.go has the weights
// by which caches share one amount. docs/memory.md shows the result for some limits, and a
// test compares it with Fit.
//
// # What it owns
//
// The package allocates none of the memory that it divides. A Memcached owns the certificate that
// check has read for it; the caller reloads it. Caches and Memory are filled at the start by one
// goroutine and are read-only afterwards.
//
// # Locks
//
// None.
//
// # Accepted risks
//
// MemoryLimit sets the memory limit of the Go runtime, which belongs to the process, because the
// runtime has no other way to follow a container's limit. Call it once.
//
// Without a memory limit the amounts may exceed the memory of the machine. Log lines warn of it,
// but the start succeeds, because the amounts are upper bounds that a process may never reach.
package config
