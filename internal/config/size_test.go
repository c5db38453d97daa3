package config

import "testing"

// TestSizeText: sizes in errors have one unit, and are rounded down.
func TestSizeText(t *testing.T) {
	f := func(n int64, want string) {
		t.Helper()
		if got := sizeText(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
		if back, err := ParseSize(sizeText(n)); err != nil || back > n {
			t.Errorf("%d: parsed as %d, %v", n, back, err)
		}
	}
	f(0, "0B")
	f(1000, "1000B")
	f(419_430, "409KiB")
	f(1500<<20, "1500MiB")
	f(100<<30, "100GiB")
	f(6<<40/5, "1228GiB")
	f(2<<40, "2TiB")
	f(1<<63-1, "8191PiB")
}
