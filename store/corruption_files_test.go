package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/thanos-io/objstore"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// copyTree copies the folder of a bucket.
func copyTree(t testing.TB, from string) (to string) {
	t.Helper()
	to = t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// editMeta changes the meta.json of a block.
func editMeta(t testing.TB, dir string, m *dataset.Meta, edit func(meta map[string]any)) {
	t.Helper()
	path := filepath.Join(dir, m.ULID.String(), "meta.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var meta map[string]any
	if err := json.Unmarshal(b, &meta); err != nil {
		t.Fatal(err)
	}
	edit(meta)
	if b, err = json.Marshal(meta); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFilesOfAnotherLength truncates and extends the files of a block, with and without sizes in
// meta.json. Each answer must be right, or an error that names object and offset. Once the file is
// restored, all answers must be right.
func TestFilesOfAnotherLength(t *testing.T) {
	whole, metas := smallBlocks(t)
	want := startGateway(t, whole, gatewayOptions{}).ask(t)
	bad := metas[0].ULID.String()
	for _, lengths := range []bool{true, false} {
		for _, file := range []string{"index", "chunks/000001"} {
			for name, change := range map[string]func(b []byte) []byte{
				"a byte less": func(b []byte) []byte { return b[:len(b)-1] },
				"cut in half": func(b []byte) []byte { return b[:len(b)/2] },
				"a few bytes": func(b []byte) []byte { return b[:7] },
				"empty":       func([]byte) []byte { return nil },
				"a byte more": func(b []byte) []byte { return append(b, 0) },
				"garbage behind it": func(b []byte) []byte {
					return append(b, bytes.Repeat([]byte{0xa5}, 5000)...)
				},
				"twice": func(b []byte) []byte { return append(b, b...) },
				"zeros": func(b []byte) []byte { return make([]byte, len(b)) },
			} {
				if os.Getenv("LARDER_FULL") == "" && name != "empty" && name != "cut in half" &&
					name != "twice" {
					continue
				}
				t.Run(fmt.Sprintf("%s %s, lengths %v", file, name, lengths), func(t *testing.T) {
					dir := copyTree(t, whole)
					if !lengths {
						editMeta(t, dir, metas[0], func(m map[string]any) {
							delete(m["thanos"].(map[string]any), "files")
						})
					}
					path := filepath.Join(dir, bad, file)
					var was []byte
					damage(t, path, func(b []byte) []byte {
						was = bytes.Clone(b)
						return change(b)
					})
					g := startGateway(t, dir, smallGateway())
					for range 2 {
						g.ask(t).compare(t, want, bad+"/"+file)
					}
					damage(t, path, func([]byte) []byte { return was })
					g.ask(t).compare(t, want, "")
				})
			}
		}
	}
}

// TestAnIndexInThePlaceOfAnother serves a block with the index of another block, whose size differs
// from meta.json. The size alone is no error. A reference that does not fit the block's chunk files
// must be an error that names both.
func TestAnIndexInThePlaceOfAnother(t *testing.T) {
	whole, metas := smallBlocks(t)
	bad := metas[0].ULID.String()
	dir := copyTree(t, whole)
	other, err := os.ReadFile(filepath.Join(whole, metas[1].ULID.String(), "index"))
	if err != nil {
		t.Fatal(err)
	}
	damage(t, filepath.Join(dir, bad, "index"), func([]byte) []byte { return other })
	want := startGateway(t, whole, gatewayOptions{}).ask(t)
	g := startGateway(t, dir, smallGateway())
	for _, question := range []string{"series", "some"} {
		if got := g.ask(t)[question]; got == want[question] || !strings.HasPrefix(got, fails) ||
			!strings.Contains(got, bad+"/chunks/000001") {
			t.Errorf("%s: got %.300s", question, got)
		}
	}
}

// TestAbsurdMetas serves blocks whose meta.json has impossible figures. Each answer must be right
// or an error, and the figures must not cause allocations.
func TestAbsurdMetas(t *testing.T) {
	if testing.Short() {
		t.Skip("requests one by one: the race detector finds more in others")
	}
	whole, metas := smallBlocks(t)
	want := startGateway(t, whole, gatewayOptions{}).ask(t)
	bad := metas[0].ULID.String()
	thanos := func(m map[string]any) map[string]any { return m["thanos"].(map[string]any) }
	file := func(m map[string]any, rel string, size int64) {
		for _, f := range thanos(m)["files"].([]any) {
			if f := f.(map[string]any); f["rel_path"] == rel {
				f["size_bytes"] = size
			}
		}
	}
	sources := make([]string, 100_000)
	for i := range sources {
		id := metas[1].ULID
		id[15], id[14], id[13] = byte(i), byte(i>>8), byte(i>>16)
		sources[i] = id.String()
	}
	for name, tc := range map[string]struct {
		edit    func(m map[string]any)
		hides   bool // the block is not served, and it is counted
		refused bool // the block exceeds a bound, but is not damaged
	}{
		"series without end": {edit: func(m map[string]any) {
			m["stats"].(map[string]any)["numSeries"] = uint64(1 << 63)
		}},
		"one series": {edit: func(m map[string]any) {
			m["stats"].(map[string]any)["numSeries"] = 1
		}},
		"chunks without end": {edit: func(m map[string]any) {
			m["stats"].(map[string]any)["numChunks"] = uint64(1 << 63)
		}},
		"huge series": {edit: func(m map[string]any) {
			thanos(m)["index_stats"] = map[string]any{"series_max_size": int64(1 << 62),
				"chunk_max_size": int64(1 << 62)}
		}},
		"tiny series": {edit: func(m map[string]any) {
			thanos(m)["index_stats"] = map[string]any{"series_max_size": 1, "chunk_max_size": 1}
		}},
		"all time": {edit: func(m map[string]any) {
			m["minTime"], m["maxTime"] = int64(-1<<63), int64(1<<63-1)
		}},
		"an index of 8 EiB":    {edit: func(m map[string]any) { file(m, "index", 1<<63-1) }},
		"an index of 60 bytes": {edit: func(m map[string]any) { file(m, "index", 60) }},
		"chunks of 8 EiB": {edit: func(m map[string]any) {
			file(m, "chunks/000001", 1<<63-1)
		}},
		"chunks of 10 bytes": {edit: func(m map[string]any) {
			file(m, "chunks/000001", 10)
		}},
		"a million sources": {edit: func(m map[string]any) {
			m["compaction"].(map[string]any)["sources"] = sources
		}},
		"one instant": {edit: func(m map[string]any) {
			m["minTime"], m["maxTime"] = 5, 5
		}},
		"no time": {edit: func(m map[string]any) {
			delete(m, "maxTime")
		}, hides: true},
		"time backwards": {edit: func(m map[string]any) {
			m["minTime"], m["maxTime"] = 1<<50, -1<<50
		}, hides: true},
		"the name of another": {edit: func(m map[string]any) {
			m["ulid"] = metas[1].ULID.String()
		}, hides: true},
		"another version": {edit: func(m map[string]any) {
			m["version"] = 2
		}, hides: true},
		"an index of negative size": {edit: func(m map[string]any) { file(m, "index", -1) }},
		"chunks of negative size": {edit: func(m map[string]any) {
			file(m, "chunks/000001", -1)
		}},
		"a strange resolution": {edit: func(m map[string]any) {
			thanos(m)["downsample"] = map[string]any{"resolution": 7}
		}, hides: true},
		"more than larder reads": {edit: func(m map[string]any) {
			m["padding"] = strings.Repeat("x", 17<<20)
		}, hides: true, refused: true},
		"labels without end": {edit: func(m map[string]any) {
			for i := range 1_000_000 {
				thanos(m)["labels"].(map[string]any)[fmt.Sprintf("label_%d", i)] = ""
			}
		}, hides: true, refused: true},
		"files without end": {edit: func(m map[string]any) {
			thanos(m)["files"] = make([]struct{},
				5_000_000)
		}, hides: true, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyTree(t, whole)
			editMeta(t, dir, metas[0], tc.edit)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			g := startGateway(t, dir, smallGateway())
			got := g.ask(t)
			runtime.ReadMemStats(&after)
			if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 256 {
				t.Errorf("the answers allocated %d MiB", n)
			}
			if !tc.hides {
				got.compare(t, want, bad)
				return
			}
			states := values(t, g.reg, "thanos_blocks_meta_synced")
			if states["thanos_blocks_meta_synced corrupted-meta-json"] != 1 {
				t.Errorf("states of blocks: %v", states)
			}
			if _, failed := g.corruptions(t); (failed == 0) != tc.refused {
				t.Errorf("%v are counted as damaged", failed)
			}
			info, err := g.info.Info(context.Background(), &storepb.InfoRequest{})
			if err != nil || len(info.LabelSets) != 1 {
				t.Errorf("advertised are %v, %v", info.GetLabelSets(), err)
			}
			// The next sync finds the restored meta.json and serves the block.
			was, err := os.ReadFile(filepath.Join(whole, bad, "meta.json"))
			if err != nil {
				t.Fatal(err)
			}
			damage(t, filepath.Join(dir, bad, "meta.json"), func([]byte) []byte { return was })
			if err := g.Catalog.Sync(context.Background()); err != nil {
				t.Fatal(err)
			}
			g.ask(t).compare(t, want, "")
		})
	}
}

// TestEveryByteOfAMeta changes one byte of a meta.json. Many changes describe another valid block
// and cannot be detected. But the answers of other blocks must stay the same, and rejected blocks
// must be counted. If only one read is damaged, an invalid meta.json is read again and the block is
// served.
func TestEveryByteOfAMeta(t *testing.T) {
	dir, metas := smallBlocks(t)
	name := metas[0].ULID.String() + "/meta.json"
	whole, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	beside := func(t *testing.T, g *gateway) []string {
		req := &storepb.SeriesRequest{
			MaxTime: 1 << 50, MaxResolutionWindow: 300_000, Hints: onlyBlock(t, metas[1].ULID),
			Aggregates: []storepb.Aggr{storepb.Aggr_SUM},
			Matchers: []*storepb.LabelMatcher{
				{Type: storepb.LabelMatcher_RE, Name: "__name__", Value: ".+"},
			},
		}
		a, err := g.query(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		return a.texts()
	}
	first := startGateway(t, dir, smallGateway())
	all, want := first.ask(t), beside(t, first)
	rnd := rand.New(rand.NewPCG(4, 5))
	refused := 0
	for _, off := range positions(rnd, len(whole), 60) {
		ok := t.Run(fmt.Sprint("byte ", off), func(t *testing.T) {
			flip := byte(1) << rnd.IntN(8)
			start := func(times int) *gateway {
				lying := &lyingBucket{}
				opts := smallGateway()
				opts.wrap = func(b objstore.Bucket) objstore.Bucket {
					lying.Bucket = b
					return lying
				}
				lying.lie(name, int64(off), flip, times)
				return startGateway(t, dir, opts)
			}
			g := start(-1)
			if diff := cmp.Diff(want, beside(t, g)); diff != "" {
				t.Errorf("the other block (-undamaged +got):\n%s", diff)
			}
			_, failed := g.corruptions(t)
			served := g.Catalog.View().ByID(metas[0].ULID) != nil
			if served != (failed == 0) {
				t.Errorf("served: %v, counted as failed: %v", served, failed)
			}
			if served {
				return
			}
			refused++
			g = start(1)
			g.ask(t).compare(t, all, "")
			if mended, failed := g.corruptions(t); mended != 1 || failed != 0 {
				t.Errorf("%v were mended, %v not", mended, failed)
			}
		})
		if !ok {
			return
		}
	}
	if refused == 0 {
		t.Error("no meta.json was rejected")
	}
}
