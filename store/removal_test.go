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

// collected is a server stream that keeps what it is sent, and calls a function before each frame.
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

// TestTheRemovalOfABlockWaitsForItsReaders holds a request in its midst, has the block leave the
// view and its header forgotten, and lets the request go on: it has the whole answer, and only then
// the header is closed.
func TestTheRemovalOfABlockWaitsForItsReaders(t *testing.T) {
	dir, metas := twoBlocks(t)
	block := metas[0].ULID
	// Nothing is cached, so that what the request reads later needs header and bucket.
	var headers string
	g := startGateway(t, dir, gatewayOptions{
		indexBytes: -1, chunkBytes: -1, setBytes: -1, postingsBytes: -1, pageSize: 1 << 10,
		headers: func(o *indexheader.Options) { o.IdleTimeout, headers = time.Millisecond, o.Dir.String() },
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
		t.Fatalf("the answer has %d frames: there is no midst of it", len(want))
	}

	midst := func(n int) {
		if n != 5 {
			return
		}
		mark := fmt.Sprintf(`{"id":%q,"version":1,"deletion_time":%d}`, block, 1_000_000_000)
		if err := os.WriteFile(filepath.Join(dir, block.String(), "deletion-mark.json"), []byte(mark), 0o600); err != nil {
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
		t.Errorf("its header is open when nobody uses it: %v", open)
	}
	if n := g.inUse(t); n != 0 {
		t.Errorf("%v bytes of the allowance are still held", n)
	}
	// The other block's is closed when it is idle.
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

// canSeeHandles tells whether the system shows which files this process has open.
func canSeeHandles(t *testing.T) bool {
	t.Helper()
	_, err := os.Stat("/proc/self/fd")
	return err == nil
}

// openFiles returns the header files of a block, or of all for the zero ID, that this process has
// open. Removed ones count.
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
			continue // closed meanwhile, or something else
		}
		if id == (ulid.ULID{}) || strings.Contains(target, id.String()) {
			open = append(open, target)
		}
	}
	return open
}
