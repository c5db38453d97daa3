package main

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestTooLittleForPagesIsSaid starts with caches that are too small for their pages. The log must
// name what to change.
func TestTooLittleForPagesIsSaid(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		c, err := loadedFlags(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.caches.Memory.Fit(0); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		warnings := &slog.HandlerOptions{Level: slog.LevelWarn}
		c.caches.Memory.Log(slog.New(slog.NewTextHandler(&out, warnings)), 0, false)
		if want == "" && out.Len() > 0 || strings.Count(out.String(), "\n") > 1 ||
			!strings.Contains(out.String(), want) {
			t.Errorf("%q: got %q, want a line with %q", args, out.String(), want)
		}
	}
	const document = "--store.caching-bucket.config={type: IN-MEMORY, config: {max_size: %s}, chunk_subrange_size: 1048576}"
	f(
		`kind=chunk_pages size=8MiB least=16MiB raise="--store.caching-bucket.config max_size" or_lower="--store.caching-bucket.config chunk_subrange_size 1MiB"`,
		fmt.Sprintf(document, "8MiB"),
	)
	f("", fmt.Sprintf(document, "16MiB"))
	f("", fmt.Sprintf(document, "0"))
	f(
		`kind=chunk_pages size=3MiB least=4MiB raise=--chunk-cache-size or_lower="--chunk-cache.page-size 256KiB"`,
		"--chunk-cache-size=3MB",
		"--chunk-cache.page-size=256KB",
	)
	f(
		`kind=index_pages size=9MiB least=16MiB raise=--index-cache-size or_lower="--index-cache.page-size 1MiB"`,
		"--index-cache-size=9MB",
		"--index-cache.page-size=1MB",
		"--index-cache.series-size=0",
		"--index-cache.postings-size=0",
	)
	// Shares of one size: chunk pages would have 6 MiB of it, so others have them.
	f(
		`kind=chunk_pages size=0B least=16MiB raise=--cache-size or_lower="--chunk-cache.page-size 1MiB"`,
		"--cache-size=10MB",
		"--chunk-cache.page-size=1MB",
	)
	f("", "--cache-size=0", "--chunk-cache.page-size=1MB")
	// What is too small for pages of any size is so by itself.
	f(
		"kind=chunk_pages size=512KiB least=1MiB raise=--chunk-cache-size\n",
		"--chunk-cache-size=512KB",
	)
}

// TestMemoryIsAlwaysLogged checks that the line "memory" has every size, whether defaults were
// scaled down or not, and that it names the limit.
func TestMemoryIsAlwaysLogged(t *testing.T) {
	for limit, want := range map[int64]string{
		0:       "level=INFO msg=memory index_pages=150MiB ",
		1 << 30: "level=WARN msg=memory index_pages=",
		2 << 30: "level=INFO msg=memory index_pages=150MiB ",
	} {
		c, err := loadedFlags(t)
		if err != nil {
			t.Fatal(err)
		}
		scaled, err := c.caches.Memory.Fit(limit)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		c.caches.Memory.Log(slog.New(slog.NewTextHandler(&out, nil)), limit, scaled)
		line, _, _ := strings.Cut(out.String(), "\n")
		for name, shown := range map[string]bool{
			want: true, " requests=": true, " limit=": limit > 0, " scaled=true": limit == 1<<30,
		} {
			if strings.Contains(line, name) != shown {
				t.Errorf("limit %d: got %s, want %q: %v", limit, line, name, shown)
			}
		}
	}
}

// TestAllowancesAboveTheMachineAreSaid checks that a start without a limit warns of limits above
// the memory of the machine.
func TestAllowancesAboveTheMachineAreSaid(t *testing.T) {
	f := func(limit, machine int64, want string, args ...string) {
		t.Helper()
		c, err := loadedFlags(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.caches.Memory.Fit(limit); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		c.caches.Memory.WarnAboveMachine(slog.New(slog.NewTextHandler(&out, nil)), limit, machine)
		if want == "" && out.Len() > 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%q on a machine of %d: got %q, want %q", args, machine, out.String(), want)
		}
	}
	const defaults = 250 + 512 + 64 + 1024 + 256 + 64 + 2*256 + 96 // MiB
	f(0, defaults<<20, "")
	f(0, (defaults-1)<<20, "allowances=2GiB730MiB machine=2GiB729MiB")
	f(0, 16<<30, "allowances=", "--chunk-cache-size=20GB")
	f(0, 16<<30, "", "--chunk-cache-size=2GB")
	f(0, 0, "", "--chunk-cache-size=20GB") // not known
	f(2<<30, 1<<30, "")                    // the limit is what was fitted to
}
