// Package bytecachetest is the conformance suite of byte caches. Run checks a cache against the
// contract of package bytecache; Traits say what differs between kinds of caches. Remote replaces a
// memcached in tests about other things.
//
// LOCKING: Remote.mu guards its values.
package bytecachetest
