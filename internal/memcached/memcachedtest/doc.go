// Package memcachedtest runs memcached servers for tests. Start runs a real one on a free port of
// the loopback interface. StartLiar runs Liar, a replacement in the test's process that can change
// its answers. A server ends with its test.
//
// A test that needs memcached is skipped where it is not installed, and fails if LARDER_REQUIRE is
// set, as `make test` does: a complete run must not pass with tests left out.
//
// LOCKING: Liar.mu guards the values of a Liar.
package memcachedtest
