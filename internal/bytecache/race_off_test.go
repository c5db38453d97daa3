//go:build !race

package bytecache

const raceEnabled = false
