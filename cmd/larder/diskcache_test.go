package main

import (
	"strings"
	"testing"
)

// TestDiskCacheFlags: flags that contradict each other are refused, and writes have a limit.
func TestDiskCacheFlags(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		_, err := loadedFlags(t, args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", args, err, want)
		}
	}
	f("--disk-cache-size needs the data directory: remove --no-cache-index-header",
		"--disk-cache-size=1GB", "--no-cache-index-header")
	f("--disk-cache.index-size is a part of --disk-cache-size, which is 0",
		"--disk-cache.index-size=1GB")
	f("--disk-cache.prefetch-bytes needs --disk-cache-size, which is 0",
		"--disk-cache.prefetch-bytes=1GB")
	for _, flag := range []string{
		"--disk-cache.write-rate", "--disk-cache.writes-per-day", "--disk-cache.prefetch-min-rate",
	} {
		f(flag+" needs --disk-cache-size, which is 0", flag+"=64MB")
	}
	f("--disk-cache.prefetch-min-rate has no effect with --disk-cache.prefetch-bytes=0",
		"--disk-cache-size=1GB", "--disk-cache.prefetch-bytes=0",
		"--disk-cache.prefetch-min-rate=1MB")
	f("--disk-cache.writes-per-day 1KiB is too little to write anything: "+
		"set at least 4MiB, or 0 for no limit",
		"--disk-cache-size=1GB", "--disk-cache.writes-per-day=1KB")
	perDay := func(want int64, args ...string) {
		t.Helper()
		c, err := loadedFlags(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.caches.disk.writesPerDay.Bytes; got != want {
			t.Errorf("%q: %d bytes a day, want %d", args, got, want)
		}
	}
	perDay(3<<30, "--disk-cache-size=1GB")
	perDay(0, "--disk-cache-size=1GB", "--disk-cache.writes-per-day=0")
	perDay(4<<20, "--disk-cache-size=1GB", "--disk-cache.writes-per-day=4MB")
	perDay(5<<20, "--disk-cache-size=1GB", "--disk-cache.writes-per-day=5MB")
}
