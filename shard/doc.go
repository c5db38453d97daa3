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
// # The law
//
// At every instant, for every block there is an ordinal i such that every member of group i that
// answers serves the block, every Querier has group i, and each member's last Info covers the
// block. A group picks members by turns, so a block that only some zones have is lost silently.
//
// # Decisions
//
// A Member decides for one process. Its inputs are events: a configuration was read, a peer
// reported, a state is on disk, the view of the bucket changed, a client asked for Info, time
// passed, the operator forces an epoch. It has no clock, network or disk. The caller asks it what
// to persist (Persist), to serve and advertise (Serves), to answer peers (Report), to ask peers
// (Question), whether it is ready (Ready), and what force would lose (AtRisk).
//
// A configuration is an epoch. A member goes from epoch E to E+1 in these steps:
//
//  1. It reads E+1, and from then on serves own(E) and own(E+1). It persists E+1. Its reports are
//     acknowledgements.
//  2. The epoch is committed when every member of E or E+1, in each zone, has persisted it. Pods
//     that are Pending count. A peer that knows of the commit passes it on.
//  3. After the Querier wait, and once each Querier of the group has asked every group that
//     receives blocks for Info, the member takes on no new block of own(E) alone. Blocks that keep
//     coming therefore do not delay the end.
//  4. The drop follows when the new owner's member in every zone has confirmed every block that
//     leaves, or one that covers it, in each report for the Querier wait. All members of the group
//     and of the receiving groups must have reported after the wait. No process may have a
//     duplicate, and no address in the peers' DNS may be silent.
//
// The next epoch is refused until the drop. The exception is an epoch that can never be committed,
// because a member has persisted another one without it: two zones read different counts, or an
// edit was overtaken by the next. The next epoch then replaces it.
//
// A member without a record of its epochs takes them from a peer. It starts with the epoch before
// the peer's, because others may still rely on that, and is not ready below any epoch that a peer
// has persisted: an earlier process may have acknowledged it. With neither a record nor a peer it
// waits for Options.StartWait, then starts loudly. Once it reaches a peer, it takes the epoch
// before from it. If all members are blank, the cluster is new.
//
// A member with a record is not ready until a peer has reported, or StartWait has passed, and never
// below an epoch that a peer knows as committed. A peer's epoch that is not committed does not stop
// it, because then a ConfigMap that reaches the zones at different times would stop every member
// that reads it late.
//
// A member with a record that was not there when an epoch was committed keeps its blocks. It takes
// the epoch over from a peer once its own configuration is as new. A process of another cluster
// reports such epochs too, and a member must not drop blocks because of it.
//
// # Files
//
// SaveState writes shard.state in the format of package sealed: a State as JSON. A file that does
// not verify, or has another version, counts as no record.
//
// # Accepted risks
//
// A process that loses its record while it reaches no peer starts after StartWait with its
// configuration alone. Queriers that do not ask for Info once in a Querier wait are not waited for.
//
// # Bytes and locks
//
// The package owns no bytes, has no locks and starts no goroutines.
package shard
