// Package quantile estimates a quantile of recent durations.
//
// A Decaying counts durations in a fixed table of buckets and forgets old ones by halving the
// counts. Observe adds a duration and Value returns the estimate. Both are a few atomic operations.
//
// A Decaying owns its table of counters and nothing else. Every 32nd Observe computes the quantile
// under Decaying.learning. If another goroutine holds that lock, it returns without computing.
package quantile
