// Package memcached is the client of a set of memcached servers. What it promises: a look-up never fails and never takes longer than its
// deadline; a value is what was stored under its ID, or not there.
package memcached
