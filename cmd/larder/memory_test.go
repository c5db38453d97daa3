package main

import (
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"

	"larder/internal/bytecache"
)

const (
	mib = int64(1 << 20)
	gib = int64(1 << 30)
	tib = int64(1 << 40)
)

// given is what a flag sets.
func given(from string, bytes int64) amount { return amount{bytes, true, from} }

// TestMemoryFit: what the kinds and requests get for a limit, in MiB.
func TestMemoryFit(t *testing.T) {
	f := func(m memoryConfig, limit int64, pages, postings, sets, chunks, headers, requests int64, scaled bool) {
		t.Helper()
		before := fmt.Sprintf("%+v", m)
		got, err := m.fit(limit)
		if err != nil {
			t.Errorf("%s, limit %d MiB: %v", before, limit/mib, err)
			return
		}
		want := [...]int64{pages, postings, sets, chunks, headers, requests}
		is := [...]int64{m.kept[indexPages] / mib, m.kept[expandedPostings] / mib, m.kept[seriesSets] / mib, m.kept[chunkPages] / mib,
			m.kept[headerBlocks] / mib, m.requests.bytes / mib}
		if is != want || got != scaled {
			t.Errorf("%s, limit %d MiB:\ngot pages, postings, sets, chunks, headers, requests %v, scaled %v\nwant %v, %v", before, limit/mib, is, got, want, scaled)
		}
	}
	// Nothing but defaults, without and with limits.
	f(memoryConfig{}, 0, 150, 25, 75, 512, 64, 1024, false)
	f(memoryConfig{}, 4*gib, 150, 25, 75, 819, 64, 1024, false)
	f(memoryConfig{}, math.MaxInt64, 150, 25, 75, math.MaxInt64/5/mib, 64, math.MaxInt64/4/mib, false)
	// 250, 80, 12.5 and 100 MiB do not fit into three quarters of 400 less 12.5 for documents: each
	// gets 287.5/442.5 of it.
	f(memoryConfig{}, 400*mib, 97, 16, 48, 51, 8, 64, true)
	// Nothing but defaults always fits: requests first get what they need. What is left is too little for all kinds.
	f(memoryConfig{}, 128*mib, 40, 6, 20, 6, 1, 16, true)
	f(memoryConfig{}, 32*mib, 8, 1, 4, 0, 0, 8, true)

	// What the user gave stays, and is divided.
	f(memoryConfig{index: given("", 100*mib)}, 200*mib, 60, 10, 30, 18, 2, 22, true)
	f(memoryConfig{index: given("", 100*gib)}, 0, 60*1024, 10*1024, 30*1024, 512, 64, 1024, false)
	f(memoryConfig{index: given("", 0)}, 0, 0, 0, 0, 512, 64, 1024, false)
	f(memoryConfig{index: given("", math.MaxInt64), chunks: given("", math.MaxInt64)}, 0,
		math.MaxInt64/100*60/mib, math.MaxInt64/100*10/mib, math.MaxInt64/100*30/mib, math.MaxInt64/mib, 64, 1024, false)
	// Small wholes are some kinds that work: below 10 MiB postings would have less than one, below 3 MiB sets too.
	f(memoryConfig{index: given("", 10*mib)}, 0, 6, 1, 3, 512, 64, 1024, false)
	f(memoryConfig{index: given("", 9*mib)}, 0, 6, 0, 3, 512, 64, 1024, false)
	f(memoryConfig{index: given("", 3*mib)}, 0, 2, 0, 1, 512, 64, 1024, false)
	f(memoryConfig{index: given("", 3*mib-3)}, 0, 2, 0, 0, 512, 64, 1024, false)

	// Figures of their own are taken from the whole; the others share the rest.
	f(memoryConfig{postings: given("", 0)}, 0, 166, 0, 83, 512, 64, 1024, false)
	f(memoryConfig{postings: given("", 0), series: given("", 0)}, 0, 250, 0, 0, 512, 64, 1024, false)
	f(memoryConfig{postings: given("", 20*mib), series: given("", 30*mib)}, 0, 200, 20, 30, 512, 64, 1024, false)
	f(memoryConfig{series: given("", 100*mib), index: given("", 200*mib)}, 0, 85, 14, 100, 512, 64, 1024, false)
	// They stay where the rest gives way: 100 of 150 are taken, requests get 16, and 150, 40 and 6.2 share the rest.
	f(memoryConfig{series: given("", 100*mib)}, 200*mib, 18, 3, 100, 5, 0, 16, true)

	// Documents take nothing that requests need.
	f(memoryConfig{index: given("", 134*mib)}, 200*mib, 80, 13, 40, 0, 0, 16, true)

	// One total for all kinds.
	f(memoryConfig{total: given("", 1000*mib)}, 0, 180, 30, 90, 620, 80, 1024, false)
	f(memoryConfig{total: given("", 3*tib)}, 0, 3*tib/mib*18/100, 3*tib*3/100/mib, 3*tib*9/100/mib, 3*tib/mib*62/100, 3*tib*8/100/mib, 1024, false)
	f(memoryConfig{total: given("", 1000*mib)}, 2*gib, 180, 30, 90, 620, 80, 472, true)
	f(memoryConfig{total: given("", 1000*mib), index: given("", 300*mib)}, 0, 180, 30, 90, 620, 80, 1024, false)
	f(memoryConfig{total: given("", 1000*mib), chunks: given("", 100*mib), series: given("", 0)}, 0, 558, 93, 0, 100, 248, 1024, false)
	f(memoryConfig{total: given("", 1000*mib), index: given("", 900*mib), chunks: given("", 100*mib)}, 0, 540, 90, 270, 100, 0, 1024, false)
	f(memoryConfig{total: given("", 4*mib)}, 0, 0, 0, 0, 3, 0, 1024, false)
	f(memoryConfig{total: given("", 0)}, 0, 0, 0, 0, 0, 0, 1024, false)

	// Kinds that are kept elsewhere, or nowhere, leave their part to the others; sets that are alone have a default of their own.
	remote := memoryConfig{off: [kinds]bool{indexPages: true, expandedPostings: true, chunkPages: true}, indexWrites: &amount{}, chunkWrites: &amount{}}
	f(remote, 0, 0, 0, 75, 0, 64, 1024, false)
	f(memoryConfig{off: remote.off, series: given("", 500*mib)}, 0, 0, 0, 500, 0, 64, 1024, false)
	f(memoryConfig{off: remote.off, total: given("", 230*mib)}, 0, 0, 0, 121, 0, 108, 1024, false)
	f(memoryConfig{off: [kinds]bool{seriesSets: true}}, 0, 214, 35, 0, 512, 64, 1024, false)
	// 75, 4, 4, 4 and 32 do not fit into 92.
	f(memoryConfig{off: remote.off, indexWrites: &amount{}, chunkWrites: &amount{}}, 128*mib, 0, 0,
		57, 0, 3, 24, true)
}

func TestMemoryRefusals(t *testing.T) {
	f := func(m memoryConfig, limit int64, want string) {
		t.Helper()
		if _, err := m.fit(limit); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want a refusal with %q", m, err, want)
		}
	}
	index := func(bytes int64) amount { return given("--index-cache-size", bytes) }
	f(memoryConfig{index: index(2 * gib)}, gib, "--index-cache-size 2GiB, at least 16MiB for requests;")
	f(memoryConfig{requests: given("--store.request-bytes", 900*mib)}, gib, "free: --store.request-bytes 900MiB;")
	// This leaves requests too little to work with.
	f(memoryConfig{index: index(760 * mib)}, gib, "--index-cache-size 760MiB, at least 16MiB for requests;")
	// What is part of something else is not named twice.
	total, series := given("--cache-size", gib), given("--index-cache.series-size", 300*mib)
	f(memoryConfig{total: total, index: index(500 * mib), series: series}, gib, "free: --cache-size 1GiB, at least")
	f(memoryConfig{index: index(gib), series: series}, gib, "free: --index-cache-size 1GiB, at least")
	f(memoryConfig{series: given("--index-cache.series-size", 200*mib), chunks: given("--chunk-cache-size", gib)}, gib,
		"free: --index-cache.series-size 200MiB, --chunk-cache-size 1GiB, at least")
	f(memoryConfig{index: index(math.MaxInt64), chunks: given("--chunk-cache-size", math.MaxInt64)}, gib, "--index-cache-size 7EiB")
	writes := given("--index-cache.config max_async_buffer_bytes", gib)
	f(memoryConfig{indexWrites: &writes}, gib, "free: --index-cache.config max_async_buffer_bytes 1GiB, at least")

	// Parts that are more than their whole, with or without a limit.
	f(memoryConfig{index: amount{from: "--index-cache-size"}, series: series}, 0, "--index-cache.series-size 300MiB is more than the whole, --index-cache-size 250MiB, its default")
	f(memoryConfig{index: index(400 * mib), series: series, postings: given("--index-cache.postings-size", 200*mib)}, 0,
		"--index-cache.postings-size 200MiB and --index-cache.series-size 300MiB are more than the whole, --index-cache-size 400MiB")
	f(memoryConfig{total: total, index: index(2 * gib)}, 0, "--index-cache-size 2GiB is more than the whole, --cache-size 1GiB")
	f(memoryConfig{total: total, series: series, chunks: given("--chunk-cache-size", 900*mib)}, 0,
		"--index-cache.series-size 300MiB and --chunk-cache-size 900MiB are more than the whole, --cache-size 1GiB")
}

// TestMemoryDividesAll: whatever the sizes, the kinds get no more than there is, and no less than that but for rounding.
func TestMemoryDividesAll(t *testing.T) {
	for bytes := int64(1); bytes < math.MaxInt64/5; bytes = bytes*5/4 + 1 {
		for set := range 1 << kinds {
			var d division
			for k := range kinds {
				if set>>k&1 == 1 {
					d.to = append(d.to, k)
				}
			}
			if len(d.to) == 0 {
				continue
			}
			d.of = &amount{bytes: bytes}
			var kept [kinds]int64
			d.divide(kind.least, &kept)
			left, some := bytes, 0
			for k, n := range kept {
				if left -= n; n < 0 || n > 0 && set>>k&1 == 0 {
					t.Fatalf("%d bytes among %v: %v", bytes, d.to, kept)
				}
				if n > 0 {
					some++
				}
				if n > 0 && n < kind(k).least() && bytes >= 1<<20 {
					t.Errorf("%d bytes among %v: %v: too little for kind %s", bytes, d.to, kept, kind(k))
				}
			}
			if left < 0 || left >= int64(kinds) || some == 0 {
				t.Fatalf("%d bytes among %v: %v, %d are left", bytes, d.to, kept, left)
			}
		}
	}
}

// TestLeastPagesAreKept: what has the least that a kind of pages needs keeps most of that many pages, of whatever size.
func TestLeastPagesAreKept(t *testing.T) {
	for bytes := int64(minPageSize); bytes <= maxPageSize; bytes *= 2 {
		var m memoryConfig
		m.page[chunkPages].bytes = bytes
		c := bytecache.NewMemory(bytecache.Options{MaxBytes: m.least(chunkPages), MaxValueBytes: bytes, ExpectedValueBytes: bytes})
		for n := range uint64(1000) {
			c.Set(bytecache.Key{Local: n}, make([]byte, bytes))
		}
		if st := c.Stats(); st.Items < leastPages/2 {
			t.Errorf("pages of %d: %d of them are kept in %d", bytes, st.Items, st.MaxBytes)
		}
		c.Close()
	}
}

// TestTooLittleForPagesIsSaid: whoever gives a cache of large pages too little room reads at the start what to change.
func TestTooLittleForPagesIsSaid(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		c, err := loadedFlags(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.memory.fit(0); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		c.memory.log(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})), 0, false)
		if want == "" && out.Len() > 0 || strings.Count(out.String(), "\n") > 1 || !strings.Contains(out.String(), want) {
			t.Errorf("%q: got %q, want a line with %q", args, out.String(), want)
		}
	}
	const document = "--store.caching-bucket.config={type: IN-MEMORY, config: {max_size: %s}, chunk_subrange_size: 1048576}"
	f(`kind=chunk_pages size=8MiB least=16MiB raise="--store.caching-bucket.config max_size" or_lower="--store.caching-bucket.config chunk_subrange_size 1MiB"`,
		fmt.Sprintf(document, "8MiB"))
	f("", fmt.Sprintf(document, "16MiB"))
	f("", fmt.Sprintf(document, "0"))
	f(`kind=chunk_pages size=3MiB least=4MiB raise=--chunk-cache-size or_lower="--chunk-cache.page-size 256KiB"`,
		"--chunk-cache-size=3MB", "--chunk-cache.page-size=256KB")
	f(`kind=index_pages size=9MiB least=16MiB raise=--index-cache-size or_lower="--index-cache.page-size 1MiB"`,
		"--index-cache-size=9MB", "--index-cache.page-size=1MB", "--index-cache.series-size=0", "--index-cache.postings-size=0")
	// Shares of one size: chunk pages would have 6 MiB of it, so others have them.
	f(`kind=chunk_pages size=0B least=16MiB raise=--cache-size or_lower="--chunk-cache.page-size 1MiB"`, "--cache-size=10MB", "--chunk-cache.page-size=1MB")
	f("", "--cache-size=0", "--chunk-cache.page-size=1MB")
	// What is too small for pages of any size is so by itself.
	f("kind=chunk_pages size=512KiB least=1MiB raise=--chunk-cache-size\n", "--chunk-cache-size=512KB")
}

// TestAllowancesAboveTheMachineAreSaid: without a limit the start tells of allowances that the
// machine cannot hold, and of no others.
func TestAllowancesAboveTheMachineAreSaid(t *testing.T) {
	f := func(limit, machine int64, want string, args ...string) {
		t.Helper()
		c, err := loadedFlags(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.memory.fit(limit); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		c.memory.warnAboveMachine(slog.New(slog.NewTextHandler(&out, nil)), limit, machine)
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
