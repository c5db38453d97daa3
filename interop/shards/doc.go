// Package shards tests shards that grow and shrink: processes in two zones behind a real Querier
// with one endpoint group for each ordinal. Queries run all the time and must find every sample
// while the count goes from 3 to 5 and back to 3, and after one zone was killed. It also compares
// the bytes that the Querier receives, and counts the pages that new owners find in their caches.
//
// Other tests break single members behind a Querier with groups and one with strict groups, and
// move from shards by hashmod to these.
//
// The members of a group share a port and differ in their loopback address. The Querier resolves
// the name of a group from a file of hosts that only its own mount namespace has, which needs root.
package shards
