package catalog

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"larder/internal/localfs"
)

// sizedMeta returns the meta.json of a block that states the sizes of its files.
func sizedMeta(id ulid.ULID, index, chunks int) string {
	return strings.Replace(
		smallMeta(id),
		`"compaction"`,
		fmt.Sprintf(
			`"thanos": {"files": [{"rel_path": "index", "size_bytes": %d}, {"rel_path": "chunks/000001", "size_bytes": %d}]}, "compaction"`,
			index, chunks,
		),
		1,
	)
}

// putFiles writes the files of a block.
func putFiles(b *testBucket, id ulid.ULID, sizes map[string]int) {
	for name, n := range sizes {
		b.put(id.String()+"/"+name, strings.Repeat("x", n))
	}
}

// sizesOf formats the sizes of a block's files.
func sizesOf(b *Block) string {
	return strings.TrimSpace(fmt.Sprint("index:", b.IndexSize, " ", chunkSizes(b.ChunkFiles)))
}

// TestMeasure follows one block through several measurements.
func TestMeasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := newTestBucket()
		b.modified.Store(1)
		id := testID(1)
		b.put(id.String()+"/"+metaFile, sizedMeta(id, 523, 100))
		putFiles(b, id, map[string]int{"index": 519, "chunks/000001": 698})
		changes := 0
		c := newCatalog(
			t, Options{Bucket: b, Dir: localfs.At(dir), OnChange: func(_, _ *View) { changes++ }},
		)
		mustSync(t, c)
		stated := c.View().ByID(id)
		if got := sizesOf(stated); got != "index:523 000001:100" || b.sizeRequests() != 0 {
			t.Fatalf("meta.json states %s, %d requests", got, b.sizeRequests())
		}
		step := func(
			what string, of *Block, doubt Doubt, want Verdict, sizes string, requests int64,
		) *Block {
			t.Helper()
			before := b.sizeRequests()
			got, err := c.Measure(t.Context(), id, of.Content, doubt)
			cur := c.View().ByID(id)
			if err != nil || got != want || sizesOf(cur) != sizes ||
				b.sizeRequests()-before != requests {
				t.Errorf(
					"%s: %v, %v, %s by %d requests; want %v, %s by %d", what, got, err,
					sizesOf(cur), b.sizeRequests()-before, want, sizes, requests,
				)
			}
			if changed := cur.Content != of.Content ||
				cur.Number != of.Number; changed != (want == Changed) {
				t.Errorf("%s: new identity %v", what, changed)
			}
			return cur
		}
		// Concurrent calls share one measurement.
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if v, err := c.Measure(t.Context(), id, stated.Content, SizeDoubt); v != Changed ||
					err != nil {
					t.Errorf("got %v, %v", v, err)
				}
			})
		}
		wg.Wait()
		real := c.View().ByID(id)
		if n := b.sizeRequests(); n != 2 || sizesOf(real) != "index:519 000001:698" ||
			real.Content == stated.Content ||
			changes != 2 {
			t.Errorf("%d requests, %s, %d changes of the view", n, sizesOf(real), changes)
		}
		step("a caller with the former block", stated, SizeDoubt, Changed, "index:519 000001:698",
			0)
		step("nothing new", real, SizeDoubt, Confirmed, "index:519 000001:698", 2)
		step("and again", real, SizeDoubt, Unmeasured, "index:519 000001:698", 0)
		time.Sleep(2 * time.Second)
		step("later", real, SizeDoubt, Confirmed, "index:519 000001:698", 2)

		// Neither a sync, which knows only the meta.json, nor a restart changes anything.
		mustSync(t, c)
		if c.View().ByID(id) != real {
			t.Error("a sync replaced the block")
		}
		c.Close()
		before := b.sizeRequests()
		c = newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)})
		mustSync(t, c)
		if cur := c.View().ByID(id); cur.Content != real.Content || sizesOf(cur) != sizesOf(real) ||
			b.sizeRequests() != before {
			t.Errorf("after a restart: %+v", cur)
		}
		// A process without the data directory measures the same.
		other := newCatalog(t, Options{Bucket: b})
		mustSync(t, other)
		if v, err := other.Measure(t.Context(), id, stated.Content, SizeDoubt); v != Changed ||
			err != nil ||
			other.View().ByID(id).Content != real.Content {
			t.Errorf("another process: %v, %v", v, err)
		}

		real = c.View().ByID(id)
		putFiles(b, id, map[string]int{"index": 600})
		real = step("grown", real, SizeDoubt, Changed, "index:600 000001:698", 2)
		b.modified.Store(2)
		real = step("repaired at its size", real, BytesDoubt, Changed, "index:600 000001:698", 2)
		putFiles(b, id, map[string]int{"chunks/000002": 7})
		real = step(
			"one more file, which is not measured", real, SizeDoubt, Confirmed,
			"index:600 000001:698", 2,
		)
		real = step("a file more", real, NameDoubt, Changed, "index:600 000001:698 000002:7", 3)
		for v := int64(3); v < 10; v++ { // a gateway that makes up its own ETags
			b.modified.Store(v)
			time.Sleep(time.Hour)
			if _, err := c.Measure(t.Context(), id, c.View().ByID(id).Content,
				SizeDoubt); err != nil {
				t.Error(err)
			}
		}
		real = c.View().ByID(id)
		b.modified.Store(20)
		time.Sleep(time.Hour)
		step(
			"versions that are no longer believed", real, SizeDoubt, Confirmed,
			"index:600 000001:698 000002:7", 3,
		)

		// The extents of a block are removed with it.
		path := filepath.Join(dir, "extents", id.String()+".json")
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		// Another block stays, because a listing without any known block is in doubt.
		b.put(testID(2).String()+"/"+metaFile, sizedMeta(testID(2), 1, 1))
		mustSync(t, c)
		b.deleteBlock(id.String())
		mustSync(t, c)
		if _, err := os.Stat(path); err == nil {
			t.Error("the extents of a removed block are still on disk")
		}
	})
}

// TestMeasureDamagedFile: a saved file that does not verify counts as absent.
func TestMeasureDamagedFile(t *testing.T) {
	dir := t.TempDir()
	b := newTestBucket()
	id := testID(1)
	b.put(id.String()+"/"+metaFile, sizedMeta(id, 523, 100))
	putFiles(b, id, map[string]int{"index": 519, "chunks/000001": 698})
	c := newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)})
	mustSync(t, c)
	if v, err := c.Measure(t.Context(), id, c.View().ByID(id).Content, SizeDoubt); v != Changed ||
		err != nil {
		t.Fatal(v, err)
	}
	c.Close()
	path := filepath.Join(dir, "extents", id.String()+".json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"empty": nil, "cut": data[:len(data)-3],
		"changed": slices.Concat(data[:len(data)-3], []byte("7}}"))} {
		if err := os.WriteFile(path, bad, 0o666); err != nil {
			t.Fatal(err)
		}
		c := newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)})
		mustSync(t, c)
		if diff := cmp.Diff("index:523 000001:100", sizesOf(c.View().ByID(id))); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
		c.Close()
	}
}
