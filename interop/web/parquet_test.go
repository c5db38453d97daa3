package web

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"larder/interop/internal/gateway"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/programs"
)

const (
	hour = int64(60 * 60 * 1000)
	day  = 24 * hour
	// firstDay is the day from which these tests count.
	firstDay = 20_000 * day
)

// converted is a bucket of blocks, and the bucket of their Parquet converter. The blocks have no
// index, which the list of blocks does not need.
type converted struct {
	t               *testing.T
	blocks, parquet string
	ids             map[string]string // by name
}

func newConverted(t *testing.T) *converted {
	return &converted{t: t, blocks: t.TempDir(), parquet: t.TempDir(), ids: map[string]string{}}
}

func (c *converted) write(modified time.Time, content []byte, path ...string) {
	c.t.Helper()
	file := filepath.Join(path...)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755),
		os.WriteFile(file, content, 0o644), os.Chtimes(file, modified, modified)); err != nil {
		c.t.Fatal(err)
	}
}

// put writes a block of [mint, maxt), counted from the first day.
func (c *converted) put(name, cluster string, mint, maxt int64) {
	c.t.Helper()
	id := fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G5%03d", len(c.ids))
	c.ids[name] = id
	c.write(
		time.Now(),
		fmt.Appendf(
			nil,
			`{"ulid": %q, "minTime": %d, "maxTime": %d, "version": 1, "compaction": {"level": 1, "sources": [%[1]q]},
		"thanos": {"version": 1, "labels": {"cluster": %[4]q}, "downsample": {"resolution": 0}}}`,
			id,
			firstDay+mint,
			firstDay+maxt,
			cluster,
		),
		c.blocks,
		id,
		"meta.json",
	)
}

// convert writes the meta.pb of a day as the Parquet converter does, and returns its folder.
func (c *converted) convert(hash, n int, modified time.Time, names ...string) string {
	c.t.Helper()
	from := firstDay + int64(n)*day
	b := binary.AppendUvarint([]byte{1 << 3}, uint64(from))
	b = binary.AppendUvarint(append(b, 2<<3), uint64(from+day))
	b = append(b, 3<<3, 1, 5<<3, 2) // shards, version
	for _, name := range names {
		id, ok := c.ids[name]
		if !ok {
			c.t.Fatalf("no block %s", name)
		}
		b = append(append(b, 6<<3|2, byte(len(id))), id...)
	}
	dir := filepath.Join(
		c.parquet, strconv.Itoa(hash), time.UnixMilli(from).UTC().Format(time.DateOnly),
	)
	c.write(modified, b, dir, "meta.pb")
	return dir
}

// served starts both gateways and returns the names of the blocks that each serves.
func (c *converted) served() (thanos, larder []string) {
	c.t.Helper()
	ctx := c.t.Context()
	bin, err := gateway.BuildLarder(ctx, "../..")
	if err != nil {
		c.t.Fatal(err)
	}
	flag := fmt.Sprintf(
		"--objstore-parquet.config={type: FILESYSTEM, config: {directory: %q}}", c.parquet,
	)
	th, err := neighbour.StartStore(
		ctx, programs.Thanos(c.t), gateway.Bucket{Dir: c.blocks, DataDir: c.t.TempDir()}, flag,
	)
	if err != nil {
		c.t.Fatal(err)
	}
	closed(c.t, "thanos", th)
	l, err := gateway.StartLarder(
		ctx, bin, gateway.Bucket{Dir: c.blocks, DataDir: c.t.TempDir()}, flag,
	)
	if err != nil {
		c.t.Fatal(err)
	}
	closed(c.t, "larder", l)
	names := func(address string) (names []string) {
		c.t.Helper()
		loaded, _ := data(c.t, "http://"+address, "/api/v1/blocks?view=loaded")["blocks"].([]any)
		for _, b := range loaded {
			id := b.(map[string]any)["ulid"].(string)
			for _, name := range slices.Sorted(maps.Keys(c.ids)) {
				if c.ids[name] == id {
					names = append(names, name)
				}
			}
		}
		slices.Sort(names)
		return names
	}
	return names(th.HTTPAddr), names(l.HTTPAddr)
}

// TestConvertedBlocks: if the converter is up to date, both gateways serve the same blocks.
func TestConvertedBlocks(t *testing.T) {
	c, old := newConverted(t), time.Now().Add(-time.Hour)
	var days [4][]string
	for n := range days {
		for third := range 3 {
			name := fmt.Sprintf("day %d, %d", n, third)
			from, to := int64(n)*day+int64(third)*8*hour, int64(n)*day+int64(third+1)*8*hour
			if n == 2 && third == 2 {
				to += hour
			}
			c.put(name, "a", from, to)
			days[n] = append(days[n], name)
		}
	}
	for n := range 3 {
		c.convert(17, n, old, days[n]...)
	}
	c.put("late", "a", day+hour, day+3*hour)
	c.put("other", "b", 0, day)

	thanos, larder := c.served()
	// The last block of day 2 reaches into day 3.
	want := append([]string{"day 2, 2", "late", "other"}, days[3]...)
	slices.Sort(want)
	if diff := cmp.Diff(want, larder); diff != "" {
		t.Errorf("larder (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(want, thanos); diff != "" {
		t.Errorf("thanos (-want +got)\n%s", diff)
	}
	t.Logf(
		"proved: of %d blocks, %d of them converted, thanos and larder serve the same %d",
		len(c.ids), 9, len(larder),
	)
}

// TestConvertedBlocksDiffer: where larder's rule differs from Thanos's, as docs/compatibility.md
// says.
func TestConvertedBlocksDiffer(t *testing.T) {
	c, old := newConverted(t), time.Now().Add(-time.Hour)

	c.put("of four days, one converted", "b", 10*day, 14*day)
	c.convert(42, 11, old, "of four days, one converted")

	c.put("into the next day, which another set has converted", "a", 20*day, 21*day+hour)
	c.convert(17, 20, old, "into the next day, which another set has converted")
	c.put("of the other set", "b", 21*day, 22*day)
	c.convert(42, 21, old, "of the other set")

	c.put("converted just now", "a", 30*day, 31*day)
	c.convert(17, 30, time.Now(), "converted just now")

	c.put("its day is being deleted", "a", 40*day, 41*day)
	c.write(old, nil, c.convert(17, 40, old, "its day is being deleted"), "deletion-marker.pb")

	c.put("the first, from noon on", "a", 50*day+12*hour, 51*day)
	c.convert(17, 50, old, "the first, from noon on")

	thanos, larder := c.served()
	if diff := cmp.Diff([]string{"the first, from noon on"}, thanos); diff != "" {
		t.Errorf("thanos (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"converted just now",
		"into the next day, which another set has converted",
		"its day is being deleted",
		"of four days, one converted",
	}, larder); diff != "" {
		t.Errorf("larder (-want +got)\n%s", diff)
	}
	t.Logf(
		"proved: larder serves four blocks that thanos does not serve, because the Parquet gateway does not have all of them",
	)
}
