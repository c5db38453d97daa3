// Package settings reads the settings of a test run from the environment.
package settings

import (
	"os"
	"strconv"
	"testing"
)

// Full reports whether the long form of the tests is requested.
func Full() bool { return os.Getenv("INTEROP_FULL") != "" }

// Choose returns the number for the short form or for the long form.
func Choose(short, long int) int {
	if Full() {
		return long
	}
	return short
}

// Int reads a number from an environment variable.
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

// Seed returns INTEROP_SEED, which determines everything random.
func Seed(t testing.TB) uint64 { return uint64(Int(t, "INTEROP_SEED", 1)) }
