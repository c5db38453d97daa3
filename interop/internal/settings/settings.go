// Package settings reads what the environment says about a run of the tests.
package settings

import (
	"os"
	"strconv"
	"testing"
)

// Full reports whether the long form of the tests is asked for.
func Full() bool { return os.Getenv("INTEROP_FULL") != "" }

// Choose returns the short form's number or the long form's.
func Choose(short, long int) int {
	if Full() {
		return long
	}
	return short
}

// Int reads a number.
func Int(t testing.TB, name string, def int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Seed is INTEROP_SEED, which decides everything random.
func Seed(t testing.TB) uint64 { return uint64(Int(t, "INTEROP_SEED", 1)) }
