// Package membership runs the shard.Member of a process: it reads and persists epochs, asks peers,
// and publishes which blocks the process owns and whether it may answer Queriers.
//
// A Driver has two goroutines. One owns the Member and handles events: a configuration, a view of
// the bucket, a call of Info, a question or a report of a peer, the time. After each event it
// writes the state that the Member wants on disk, and publishes a Snapshot behind an atomic
// pointer. Requests read the snapshot without a lock. The other goroutine resolves the addresses of
// the peers every few seconds and sends each a question over HTTP.
//
// # The catalog
//
// The catalog asks for the current ownership while it selects blocks. It calls HandleBlocks before
// it publishes a view, and Applied afterwards. Each ownership has a number. A process whose epochs
// change in any other way than by a hand-over, such as at its start, is not ready before the view
// of that number is published.
//
// # HTTP
//
// Handler serves the paths below Prefix: the questions of peers, the status, force, and the
// endpoints that Grafana's rollout-operator calls before it removes pods. Questions, reports and
// the number of remembered clients are bounded.
//
// # Bytes and locks
//
// The Driver owns the blocks that HandleBlocks passes. There are no locks: a goroutine that needs
// the Member sends a function to the goroutine that owns it.
//
// # Accepted risks
//
// If more than maxAsks addresses call Info within a Querier wait, the others are not waited for.
package membership
