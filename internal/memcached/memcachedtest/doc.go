// Package memcachedtest runs real memcached servers for tests, on free ports of the loopback
// interface, and Liar, which stands in for one and changes what it sends.
//
// A test that needs memcached where it is not installed skips with the reason, and fails where
// LARDER_REQUIRE is set, as `make test` does: a run that counts must not pass by leaving something
// out.
package memcachedtest
