package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"larder/internal/localfs"
)

// longLabels returns the meta.json of a block with so many labels of so many bytes.
func longLabels(id ulid.ULID, names, n int) string {
	var s strings.Builder
	fmt.Fprintf(&s,
		`{"ulid": %q, "version": 1, "minTime": 0, "maxTime": 10, "thanos": {"labels": {"block": %q`,
		id, id)
	for i := range names {
		fmt.Fprintf(&s, `,"l%d":%q`, i, strings.Repeat("v", n/names))
	}
	s.WriteString("}}}")
	return s.String()
}

// TestRetainedMetasAreBounded: of many blocks with long labels, as many are served as fit the
// limit. The largest are refused by name and others stay, in whatever order they are read.
func TestRetainedMetasAreBounded(t *testing.T) {
	b := newTestBucket()
	large := map[ulid.ULID]bool{}
	for i := range uint64(60) {
		// They are read before and after the others.
		for _, id := range []ulid.ULID{testID(i + 1), testID(i + 2000)} {
			b.put(id.String()+"/"+metaFile, longLabels(id, 3, 60_000))
			large[id] = true
		}
		putBlock(b, 500+i)
	}
	for i := range uint64(20) { // more than an ordinary one, and honest
		id := testID(1000 + i)
		b.put(id.String()+"/"+metaFile, longLabels(id, 3, 6_000))
	}
	dir := t.TempDir()
	check := func(c *Catalog, others int) {
		t.Helper()
		var sum int64
		for _, r := range c.records {
			if r.meta.bytes > ordinaryMeta {
				sum += r.meta.bytes
			}
		}
		if sum > c.opts.DocumentBytes || sum < c.opts.DocumentBytes/2 {
			t.Errorf("retains %d bytes, want at most %d", sum, c.opts.DocumentBytes)
		}
		for _, blk := range c.View().Blocks {
			if !large[blk.ID] {
				others--
			}
		}
		if others != 0 {
			t.Errorf("%d ordinary blocks are not served", others)
		}
		broken := c.Status().Broken
		if len(broken)+len(c.View().Blocks) != c.Status().Listed {
			t.Errorf("serving %d blocks and refusing %d", len(c.View().Blocks), len(broken))
		}
		for _, bad := range broken {
			if !large[bad.ID] || bad.State != stateCorrupted || !errors.Is(bad.Err, errRefused) ||
				!strings.Contains(bad.Err.Error(), bad.ID.String()+": refused: ") {
				t.Fatalf("broken: %+v", bad)
			}
		}
	}
	var log bytes.Buffer
	opts := Options{Bucket: b, Dir: localfs.At(dir), DocumentBytes: 4 << 20,
		Logger: slog.New(slog.NewTextHandler(&log, nil))}
	c := newCatalog(t, opts)
	mustSync(t, c)
	check(c, 80)
	v := c.View()
	said := strings.Count(log.String(), "skipping a block")
	mustSync(t, c)
	check(c, 80)
	if c.View() != v || strings.Count(log.String(), "skipping a block") != said ||
		said != len(c.Status().Broken) {
		t.Error("another sync changed the view, or logged the refused blocks again")
	}
	c.Close()

	c = newCatalog(t, opts) // from its copies
	if len(c.fallback) != len(v.Blocks) {
		t.Errorf("%d blocks were loaded at a start, want %d", len(c.fallback), len(v.Blocks))
	}
	mustSync(t, c)
	check(c, 80)
	// Smaller blocks that appear later displace larger ones.
	for i := range uint64(100) {
		id := testID(3000 + i)
		b.put(id.String()+"/"+metaFile, longLabels(id, 3, 6_000))
	}
	mustSync(t, c)
	check(c, 180)
	c.Close()

	opts.DocumentBytes = 2 << 20
	c = newCatalog(t, opts)
	mustSync(t, c)
	check(c, 180)
}
