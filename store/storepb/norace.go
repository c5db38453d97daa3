//go:build !race

package storepb

// raceEnabled reports whether the race detector is on.
const raceEnabled = false
