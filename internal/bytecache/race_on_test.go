//go:build race

package bytecache

// raceEnabled: under the race detector sync.Pool drops things at random, and
// ristretto's half-filled batches of look-ups with them.
const raceEnabled = true
