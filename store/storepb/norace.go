//go:build !race

package storepb

// raceEnabled says that the race detector is on.
const raceEnabled = false
