// Package shard decides which shard serves a block, and when a shard may stop serving one.
//
// Shards are numbered by ordinals, as the pods of a StatefulSet are. Every zone has the same
// ordinals, and an ordinal owns the same blocks in every zone. One endpoint group of the Querier
// has the members of one ordinal in all zones. The Querier asks one member of each group, in turns.
//
// # Ownership
//
// Owner is rendezvous hashing: the owner of a block is the ordinal with the highest score.
//
//	mix(x)     = the finaliser of splitmix64
//	high, low  = the halves of the ULID, big-endian
//	key(b)     = mix(mix(low) xor high)
//	score(b,i) = mix(key(b) + (i+1) * 0x9e3779b97f4a7c15)
//	Owner(b,n) = the lowest i in [0, n) with the highest score(b,i)
//
// Scores of ordinals below n do not depend on n. A block therefore moves on growth from n to n+1
// only if the new ordinal has its highest score, which has the probability 1/(n+1), and it moves to
// the new ordinal. On a shrink only blocks of the removed ordinals move. From n to m shards the
// moved share is |m-n|/max(m,n) in the mean.
//
// No assignment is computed from a listing, because processes list the bucket at different times.
//
// # Bytes and locks
//
// The package owns no bytes, has no locks and starts no goroutines.
package shard
