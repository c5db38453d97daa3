package config

import (
	"fmt"
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

// given returns an amount that a flag has set.
func given(from string, bytes int64) Amount { return Amount{bytes, true, from} }

// TestMemoryFit compares what Fit gives to caches and requests, in MiB, with what it should give.
func TestMemoryFit(t *testing.T) {
	f := func(
		m Memory, limit int64, pages, postings, sets, chunks, headers, requests int64, scaled bool,
	) {
		t.Helper()
		before := fmt.Sprintf("%+v", m)
		got, err := m.Fit(limit)
		if err != nil {
			t.Errorf("%s, limit %d MiB: %v", before, limit/mib, err)
			return
		}
		want := [...]int64{pages, postings, sets, chunks, headers, requests}
		is := [...]int64{
			m.CacheBytes[IndexPages] / mib, m.CacheBytes[ExpandedPostings] / mib,
			m.CacheBytes[SeriesSets] / mib, m.CacheBytes[ChunkPages] / mib,
			m.CacheBytes[HeaderBlocks] / mib, m.Requests.Bytes / mib,
		}
		if is != want || got != scaled {
			t.Errorf("%s, limit %d MiB:\n"+
				"got pages, postings, sets, chunks, headers, requests %v, scaled %v\nwant %v, %v",
				before, limit/mib, is, got, want, scaled)
		}
	}
	// Nothing but defaults, without and with limits.
	f(Memory{}, 0, 150, 25, 75, 512, 64, 1024, false)
	f(Memory{}, 4*gib, 150, 25, 75, 819, 64, 1024, false)
	f(Memory{}, math.MaxInt64, 150, 25, 75, math.MaxInt64/5/mib, 64, math.MaxInt64/4/mib, false)
	// 250, 80, 12.5 and 100 MiB do not fit into three quarters of 400 less 12.5 for documents: each
	// gets 287.5/442.5 of it.
	f(Memory{}, 400*mib, 97, 16, 48, 51, 8, 64, true)
	// Nothing but defaults always fits: requests first get what they need. What is left is too
	// little for all kinds.
	f(Memory{}, 128*mib, 40, 6, 20, 6, 1, 16, true)
	f(Memory{}, 32*mib, 8, 1, 4, 0, 0, 8, true)

	// What the user gave stays, and is divided.
	f(Memory{Index: given("", 100*mib)}, 200*mib, 60, 10, 30, 18, 2, 22, true)
	f(Memory{Index: given("", 100*gib)}, 0, 60*1024, 10*1024, 30*1024, 512, 64, 1024, false)
	f(Memory{Index: given("", 0)}, 0, 0, 0, 0, 512, 64, 1024, false)
	f(Memory{Index: given("", math.MaxInt64), Chunks: given("", math.MaxInt64)}, 0,
		math.MaxInt64/100*60/mib, math.MaxInt64/100*10/mib, math.MaxInt64/100*30/mib,
		math.MaxInt64/mib, 64, 1024, false)
	// Small wholes are some kinds that work: below 10 MiB postings would have less than one,
	// below 3 MiB sets too.
	f(Memory{Index: given("", 10*mib)}, 0, 6, 1, 3, 512, 64, 1024, false)
	f(Memory{Index: given("", 9*mib)}, 0, 6, 0, 3, 512, 64, 1024, false)
	f(Memory{Index: given("", 3*mib)}, 0, 2, 0, 1, 512, 64, 1024, false)
	f(Memory{Index: given("", 3*mib-3)}, 0, 2, 0, 0, 512, 64, 1024, false)

	// Amounts of single caches are part of the whole; the others share the rest.
	f(Memory{Postings: given("", 0)}, 0, 166, 0, 83, 512, 64, 1024, false)
	f(Memory{Postings: given("", 0), Series: given("", 0)}, 0, 250, 0, 0, 512, 64, 1024, false)
	f(Memory{Postings: given("", 20*mib), Series: given("", 30*mib)}, 0, 200, 20, 30, 512, 64, 1024,
		false)
	f(Memory{Series: given("", 100*mib), Index: given("", 200*mib)}, 0, 85, 14, 100, 512, 64, 1024,
		false)
	// They stay while the others shrink: 100 of 150 are given, requests get 16, and 150, 40 and 6.2
	// share the rest.
	f(Memory{Series: given("", 100*mib)}, 200*mib, 18, 3, 100, 5, 0, 16, true)

	// Documents take nothing that requests need.
	f(Memory{Index: given("", 134*mib)}, 200*mib, 80, 13, 40, 0, 0, 16, true)

	// One total for all kinds.
	f(Memory{Total: given("", 1000*mib)}, 0, 180, 30, 90, 620, 80, 1024, false)
	f(Memory{Total: given("", 3*tib)}, 0, 3*tib/mib*18/100, 3*tib*3/100/mib, 3*tib*9/100/mib,
		3*tib/mib*62/100, 3*tib*8/100/mib, 1024, false)
	f(Memory{Total: given("", 1000*mib)}, 2*gib, 180, 30, 90, 620, 80, 472, true)
	f(Memory{Total: given("", 1000*mib), Index: given("", 300*mib)}, 0, 180, 30, 90, 620, 80, 1024,
		false)
	f(Memory{Total: given("", 1000*mib), Chunks: given("", 100*mib), Series: given("", 0)}, 0, 558,
		93, 0, 100, 248, 1024, false)
	f(Memory{Total: given("", 1000*mib), Index: given("", 900*mib), Chunks: given("", 100*mib)}, 0,
		540, 90, 270, 100, 0, 1024, false)
	f(Memory{Total: given("", 4*mib)}, 0, 0, 0, 0, 3, 0, 1024, false)
	f(Memory{Total: given("", 0)}, 0, 0, 0, 0, 0, 0, 1024, false)

	// Kinds that are kept elsewhere, or nowhere, leave their part to the others; sets that are
	// alone have a default of their own.
	remote := Memory{Off: [Kinds]bool{IndexPages: true, ExpandedPostings: true, ChunkPages: true},
		IndexWrites: &Amount{}, ChunkWrites: &Amount{}}
	f(remote, 0, 0, 0, 75, 0, 64, 1024, false)
	f(Memory{Off: remote.Off, Series: given("", 500*mib)}, 0, 0, 0, 500, 0, 64, 1024, false)
	f(Memory{Off: remote.Off, Total: given("", 230*mib)}, 0, 0, 0, 121, 0, 108, 1024, false)
	f(Memory{Off: [Kinds]bool{SeriesSets: true}}, 0, 214, 35, 0, 512, 64, 1024, false)
	// 75, 4, 4, 4 and 32 do not fit into 92.
	f(Memory{Off: remote.Off, IndexWrites: &Amount{}, ChunkWrites: &Amount{}}, 128*mib, 0, 0,
		57, 0, 3, 24, true)
}

func TestMemoryRefusals(t *testing.T) {
	f := func(m Memory, limit int64, want string) {
		t.Helper()
		if _, err := m.Fit(limit); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want a refusal with %q", m, err, want)
		}
	}
	index := func(bytes int64) Amount { return given("--index-cache-size", bytes) }
	f(Memory{Index: index(2 * gib)}, gib, "--index-cache-size 2GiB, at least 16MiB for requests;")
	f(Memory{Requests: given("--store.request-bytes", 900*mib)}, gib,
		"free: --store.request-bytes 900MiB;")
	// This leaves requests too little to work with.
	f(Memory{Index: index(760 * mib)}, gib,
		"--index-cache-size 760MiB, at least 16MiB for requests;")
	// What is part of something else is not named twice.
	total, series := given("--cache-size", gib), given("--index-cache.series-size", 300*mib)
	f(Memory{Total: total, Index: index(500 * mib), Series: series}, gib,
		"free: --cache-size 1GiB, at least")
	f(Memory{Index: index(gib), Series: series}, gib, "free: --index-cache-size 1GiB, at least")
	f(Memory{Series: given("--index-cache.series-size", 200*mib),
		Chunks: given("--chunk-cache-size", gib)}, gib,
		"free: --index-cache.series-size 200MiB, --chunk-cache-size 1GiB, at least")
	f(Memory{Index: index(math.MaxInt64), Chunks: given("--chunk-cache-size", math.MaxInt64)}, gib,
		"--index-cache-size 8191PiB")
	writes := given("--index-cache.config max_async_buffer_bytes", gib)
	f(Memory{IndexWrites: &writes}, gib,
		"free: --index-cache.config max_async_buffer_bytes 1GiB, at least")

	// Parts that are more than their whole, with or without a limit.
	f(Memory{Index: Amount{From: "--index-cache-size"}, Series: series}, 0,
		"--index-cache.series-size 300MiB is more than the whole, "+
			"--index-cache-size 250MiB, its default")
	f(Memory{Index: index(400 * mib), Series: series,
		Postings: given("--index-cache.postings-size", 200*mib)}, 0,
		"--index-cache.postings-size 200MiB and --index-cache.series-size 300MiB "+
			"are more than the whole, --index-cache-size 400MiB")
	f(Memory{Total: total, Index: index(2 * gib)}, 0,
		"--index-cache-size 2GiB is more than the whole, --cache-size 1GiB")
	f(Memory{Total: total, Series: series, Chunks: given("--chunk-cache-size", 900*mib)}, 0,
		"--index-cache.series-size 300MiB and --chunk-cache-size 900MiB "+
			"are more than the whole, --cache-size 1GiB")
}

// TestMemoryDividesAll divides many sizes among all sets of kinds. The kinds get all of it, except
// for rounding, and no more.
func TestMemoryDividesAll(t *testing.T) {
	for bytes := int64(1); bytes < math.MaxInt64/5; bytes = bytes*5/4 + 1 {
		for set := range 1 << Kinds {
			var d division
			for k := range Kinds {
				if set>>k&1 == 1 {
					d.to = append(d.to, k)
				}
			}
			if len(d.to) == 0 {
				continue
			}
			d.of = &Amount{Bytes: bytes}
			var kept [Kinds]int64
			d.divide(Kind.minBytes, &kept)
			left, some := bytes, 0
			for k, n := range kept {
				if left -= n; n < 0 || n > 0 && set>>k&1 == 0 {
					t.Fatalf("%d bytes among %v: %v", bytes, d.to, kept)
				}
				if n > 0 {
					some++
				}
				if n > 0 && n < Kind(k).minBytes() && bytes >= 1<<20 {
					t.Errorf("%d bytes among %v: %v: too little for %s", bytes, d.to, kept, Kind(k))
				}
			}
			if left < 0 || left >= int64(Kinds) || some == 0 {
				t.Fatalf("%d bytes among %v: %v, %d are left", bytes, d.to, kept, left)
			}
		}
	}
}

// TestLeastPagesAreKept fills a cache of the minimum size with pages. It must hold half of
// minPages.
func TestLeastPagesAreKept(t *testing.T) {
	for bytes := int64(minPageSize); bytes <= maxPageSize; bytes *= 2 {
		var m Memory
		m.Page[ChunkPages].Bytes = bytes
		c := bytecache.NewMemory(bytecache.Options{
			MaxBytes: m.minBytes(ChunkPages), MaxValueBytes: bytes, ExpectedValueBytes: bytes,
		})
		for n := range uint64(1000) {
			c.Set(bytecache.Key{Local: n}, make([]byte, bytes))
		}
		if st := c.Stats(); st.Items < minPages/2 {
			t.Errorf("pages of %d: %d of them are kept in %d", bytes, st.Items, st.MaxBytes)
		}
		c.Close()
	}
}
