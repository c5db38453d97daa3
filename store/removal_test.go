package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"

	"larder/store"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/storepb"
)

// collected is a server stream that stores all frames, and calls a function before each.
type collected struct {
	grpc.ServerStream
	ctx    context.Context
	before func(n int)
	frames [][]byte
}

func (c *collected) Context() context.Context           { return c.ctx }
func (c *collected) Send(*storepb.SeriesResponse) error { panic("frames only") }
func (c *collected) SendMsg(m any) error {
	c.before(len(c.frames) + 1)
	data, err := storepb.Codec().Marshal(m)
	if err != nil {
		return err
	}
	c.frames = append(c.frames, data.Materialize())
	data.Free()
	return nil
}

// TestTheRemovalOfABlockWaitsForItsReaders blocks a request while it sends, removes its block from
// the view, and lets the request continue. It must get the whole answer. The header is closed only
// afterwards.
func TestTheRemovalOfABlockWaitsForItsReaders(t *testing.T) {
	dir, metas := twoBlocks(t)
	block := metas[0].ULID
	// Nothing is cached, so that later reads of the request need the header and the bucket.
	var headers string
	g := startGateway(t, dir, gatewayOptions{
		indexBytes: -1, chunkBytes: -1, setBytes: -1, postingsBytes: -1, pageSize: 1 << 10,
		headers: func(o *indexheader.Options) {
			o.IdleTimeout, headers = time.Millisecond, o.Dir.String()
		},
		viewChanged: func(g *gateway, _, cur *catalog.View) {
			g.Headers.Keep(func(id ulid.ULID) bool { return cur.ByID(id) != nil })
		},
		server: func(o *store.Options) { o.Gate.MaxConcurrent = 2 },
	})
	req := only(t, metas[0])
	req.ResponseBatchSize = 8
	ask := func(before func(n int)) [][]byte {
		t.Helper()
		c := &collected{ctx: t.Context(), before: before}
		if err := g.Server.Series(req, c); err != nil {
			t.Fatal(err)
		}
		return c.frames
	}
	want := ask(func(int) {})
	if len(want) < 10 {
		t.Fatalf("the answer has only %d frames", len(want))
	}

	midst := func(n int) {
		if n != 5 {
			return
		}
		mark := fmt.Sprintf(`{"id":%q,"version":1,"deletion_time":%d}`, block, 1_000_000_000)
		if err := os.WriteFile(filepath.Join(dir, block.String(), "deletion-mark.json"),
			[]byte(mark), 0o600); err != nil {
			t.Fatal(err)
		}
		for g.Catalog.View().ByID(block) != nil {
			if err := g.Catalog.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if a, err := g.query(t.Context(), req); err != nil || len(a.series) > 0 {
			t.Errorf("a request that comes now: %v, %v", a, err)
		}
		if names := headerFilesOf(t, headers, block); len(names) > 0 {
			t.Errorf("files of its header: %v", names)
		}
		if open := openFiles(t, block); len(open) == 0 && canSeeHandles(t) {
			t.Error("its header is closed while a request uses it")
		}
	}
	if diff := gocmp.Diff(want, ask(midst)); diff != "" {
		t.Errorf("(-undisturbed +held in the midst):\n%s", diff)
	}
	if open := openFiles(t, block); len(open) > 0 {
		t.Errorf("its header is open after the last reader: %v", open)
	}
	if n := g.inUse(t); n != 0 {
		t.Errorf("%v bytes of the allowance are still reserved", n)
	}
	// The header of the other block is closed when it is idle.
	if _, err := g.query(t.Context(), only(t, metas[1])); err != nil {
		t.Fatal(err)
	}
	for len(openFiles(t, metas[1].ULID)) > 0 && t.Context().Err() == nil {
		runtime.Gosched()
	}
}

// headerFilesOf returns the files in a folder that belong to a block.
func headerFilesOf(t *testing.T, dir string, id ulid.ULID) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), id.String()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// canSeeHandles reports whether the system shows the open files of this process.
func canSeeHandles(t *testing.T) bool {
	t.Helper()
	_, err := os.Stat("/proc/self/fd")
	return err == nil
}

// openFiles returns the open header files of a block, with those that were removed. The zero ID
// means all blocks.
func openFiles(t *testing.T, id ulid.ULID) (open []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil && !canSeeHandles(t) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || !strings.Contains(target, ".header") {
			continue // closed meanwhile, or not a file
		}
		if id == (ulid.ULID{}) || strings.Contains(target, id.String()) {
			open = append(open, target)
		}
	}
	return open
}
