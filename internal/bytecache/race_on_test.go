//go:build race

package bytecache

// raceEnabled is true: under the race detector sync.Pool drops items at random, and with them
// ristretto's half-filled batches of look-ups.
const raceEnabled = true
