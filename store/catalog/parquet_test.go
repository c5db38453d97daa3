package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/faultstore"

	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/encoding/protowire"
)

// encodeParquetMeta encodes a meta.pb with all fields of the converter's current version.
func encodeParquetMeta(m parquetMeta) []byte {
	var b []byte
	number := func(field protowire.Number, v int64) {
		if v != 0 { // as proto3 has it
			b = protowire.AppendVarint(
				protowire.AppendTag(b, field, protowire.VarintType), uint64(v),
			)
		}
	}
	number(parquetMinTime, m.minTime)
	number(parquetMaxTime, m.maxTime)
	number(3, 1) // shards
	b = protowire.AppendString(protowire.AppendTag(b, 4, protowire.BytesType), "\x0a\x01a")
	number(5, 2) // version
	for _, id := range m.blocks {
		b = protowire.AppendString(
			protowire.AppendTag(b, parquetBlocks, protowire.BytesType), id.String(),
		)
	}
	return b
}

func TestParseParquetMeta(t *testing.T) {
	want := parquetMeta{86_400_000, 172_800_000, []ulid.ULID{testID(1), testID(2)}}
	whole := encodeParquetMeta(want)
	got, err := parseParquetMeta(whole)
	if err != nil || got.minTime != want.minTime || got.maxTime != want.maxTime ||
		!slices.Equal(got.blocks, want.blocks) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	// Times before 1970, and times that are omitted because they are 0.
	for _, want := range []parquetMeta{{-86_400_000, 0, []ulid.ULID{testID(1)}},
		{0, 86_400_000, []ulid.ULID{testID(1)}}, {}} {
		got, err := parseParquetMeta(encodeParquetMeta(want))
		if err != nil || got.minTime != want.minTime || got.maxTime != want.maxTime ||
			!slices.Equal(got.blocks, want.blocks) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}

	f := func(data, want string) {
		t.Helper()
		if _, err := parseParquetMeta([]byte(data)); !errors.Is(err, errBroken) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", data, err, want)
		}
	}
	f(string(whole[:len(whole)-1]), "field 6 is not a string")
	f(string(whole[:3]), "field 1 is not a time")
	f("\x0a\x01a", "field 1 is not a time")
	f("\x30\x01", "field 6 is not a string")
	f("\x32\x01a", `"a" is not a block ID`)
	f("\x32\x1a01arz3ndektsv4rrffq69g5fav", "is not a block ID")
	f("\x32\x1a"+testID(1).String(), "mint 0 is not before maxt 0")
	f("<html>busy</html>", "field")
	f(strings.Repeat("x", maxMetaSize+1), "larger than 16777216 bytes")
}

func FuzzParseParquetMeta(f *testing.F) {
	f.Add(
		encodeParquetMeta(parquetMeta{86_400_000, 172_800_000, []ulid.ULID{testID(1), testID(2)}}),
	)
	f.Add(encodeParquetMeta(parquetMeta{-1, 1, []ulid.ULID{testID(3)}}))
	f.Add([]byte("\x32\x01a"))
	f.Add([]byte("\x0b\x0b\x0c\x0c"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseParquetMeta(data)
		if err != nil {
			if !errors.Is(err, errBroken) {
				t.Fatalf("%v: not errBroken", err)
			}
			return
		}
		if len(m.blocks) > 0 && m.minTime >= m.maxTime {
			t.Fatalf("%v covers nothing", m)
		}
		again, err := parseParquetMeta(encodeParquetMeta(m))
		if err != nil || again.minTime != m.minTime || again.maxTime != m.maxTime ||
			!slices.Equal(again.blocks, m.blocks) {
			t.Fatalf("%v encoded and parsed: got %v, %v", m, again, err)
		}
	})
}

func TestCovers(t *testing.T) {
	f := func(want bool, from, to int64, periods ...period) {
		t.Helper()
		if got := covers(periods, from, to); got != want {
			t.Errorf("[%d,%d) by %v: got %t", from, to, periods, got)
		}
	}
	f(false, 0, 10)
	f(false, 5, 5) // one instant, that no day names
	f(true, 5, 5, period{0, 10})
	f(false, 10, 10, period{0, 10})
	f(true, 0, 10, period{0, 10})
	f(true, 2, 8, period{0, 10})
	f(false, 0, 11, period{0, 10})
	f(false, -1, 10, period{0, 10})
	f(true, 5, 25, period{20, 30}, period{0, 10}, period{10, 20})
	f(false, 5, 25, period{20, 30}, period{0, 10})
	f(false, 5, 25, period{10, 20})
	f(true, 5, 25, period{0, 12}, period{0, 10}, period{11, 30})
	f(true, 0, 10, period{0, 10}, period{0, 10})
}

// TestParquetBucketHangs: it delays a sync for at most the stall timeout, and delays neither a
// refresh nor queries.
func TestParquetBucketHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parquet := newTestBucket(), newTestBucket()
		first := putBlock(b, 1)
		for n := range 1000 {
			parquet.put(
				fmt.Sprintf("%d/%s", n, parquetMetaFile),
				string(encodeParquetMeta(parquetMeta{0, 1 << 60, []ulid.ULID{first}})),
			)
		}
		parquet.faults.Set(failGets(faultstore.Timeout, "*/"+parquetMetaFile))
		c := newCatalog(t, Options{Bucket: b, Parquet: parquet, Concurrency: 2})
		start := time.Now()
		synced := make(chan error)
		go func() { synced <- c.Sync(t.Context()) }()
		synctest.Wait()
		if err := c.Refresh(t.Context()); err != nil {
			t.Errorf("Refresh: %v", err)
		}
		if took := time.Since(start); took != 0 || c.View().ByID(first) == nil {
			t.Errorf("a refresh took %v, the view has %d blocks", took, len(c.View().Blocks))
		}
		if err := <-synced; !errors.Is(err, errStalled) || errors.Is(err, ErrIncomplete) {
			t.Errorf("Sync: %v", err)
		}
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("the sync took %v", took)
		}
		if c.View().ByID(first) == nil {
			t.Error("the block is not served")
		}
		if err := c.Status().Err; !errors.Is(err, errStalled) {
			t.Errorf("status: %v", err)
		}
	})
}
