//go:build race

package indexheader

const raceEnabled = true
