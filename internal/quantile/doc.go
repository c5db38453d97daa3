// Package quantile estimates a quantile of durations as they come, of late
// rather than of all time.
//
// A Decaying owns a fixed table of counters and nothing else. Observing is a few
// atomic operations; whoever gets Decaying.learning without waiting works the
// quantile out anew, under that lock alone.
package quantile
