// Package bytecachetest is the conformance suite of byte caches: what every
// cache must do, whatever it is made of. Remote stands in for a memcached where
// a test is not about it; its lock guards what it keeps.
package bytecachetest
