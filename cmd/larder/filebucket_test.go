package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"larder/internal/bucket"
	"larder/internal/bucket/slots"
	"larder/store/catalog"
)

// openStack opens the stack of a bucket in the same way as the gateway.
func openStack(t *testing.T, yaml string) *bucket.Stack {
	t.Helper()
	conf, err := bucket.Parse([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bucket.Open(conf, bucket.Options{
		Limiter: slots.New(slots.Options{}), WholeBytes: 1 << 20,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFoldersThatAreLinks checks that block folders that are symbolic links are served, and that a
// folder named meta.json does not affect other blocks.
func TestFoldersThatAreLinks(t *testing.T) {
	top, elsewhere := t.TempDir(), t.TempDir()
	dir := filepath.Join(top, "eu")
	meta := func(dir string, id ulid.ULID) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := `{"ulid": "` + id.String() + `", "version": 1, "minTime": 0, "maxTime": 10}`
		if err := os.WriteFile(filepath.Join(dir, "meta.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ids := make([]ulid.ULID, 6)
	for i := range ids {
		ids[i] = ulid.MustNew(uint64(i+1), nil)
	}
	at := func(i int) string { return filepath.Join(dir, ids[i].String()) }
	link := func(from, to string) {
		t.Helper()
		if err := os.Symlink(from, to); err != nil {
			t.Fatal(err)
		}
	}
	meta(at(0), ids[0])
	meta(filepath.Join(elsewhere, "b"), ids[1])
	link(filepath.Join(elsewhere, "b"), at(1))
	meta(at(2), ids[2])
	link(dir, filepath.Join(at(2), "up")) // a circle
	if err := os.MkdirAll(filepath.Join(at(3), "meta.json", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	link(filepath.Join(elsewhere, "nowhere"), at(4))
	if err := os.WriteFile(at(5), []byte("a file with a block's name"), 0o600); err != nil {
		t.Fatal(err)
	}

	b := openStack(t, "{type: FILESYSTEM, prefix: eu, config: {directory: "+top+"}}")
	for _, d := range []catalog.Discovery{catalog.Concurrent, catalog.Recursive} {
		c, err := catalog.New(catalog.Options{Bucket: b, Discovery: d})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Sync(t.Context()); err != nil {
			t.Errorf("%s: %v", d, err)
		}
		var got []ulid.ULID
		for _, blk := range c.View().Blocks {
			got = append(got, blk.ID)
		}
		if !slices.Equal(got, ids[:3]) {
			t.Errorf("%s: serving %v, want %v", d, got, ids[:3])
		}
		for _, broken := range c.Status().Broken {
			if broken.ID != ids[3] || broken.State != "no-meta-json" {
				t.Errorf("%s: broken %+v", d, broken)
			}
		}
	}

	var names []string
	if err := b.Iter(t.Context(), ids[1].String(), func(name string) error {
		names = append(names, name)
		return nil
	}); err != nil ||
		!slices.Equal(names, []string{ids[1].String() + "/meta.json"}) {
		t.Errorf("the linked folder lists %v, %v", names, err)
	}
	for _, name := range []string{ids[3].String() + "/meta.json", ids[5].String() + "/meta.json",
		ids[4].String() + "/meta.json"} {
		_, err := b.Get(context.Background(), name)
		if err == nil || !b.IsObjNotFoundErr(err) {
			t.Errorf("%s: got %v, want that it is missing", name, err)
		}
	}
	if _, err := b.GetRange(t.Context(), ids[3].String()+"/meta.json", 0, 1); !b.IsObjNotFoundErr(
		err,
	) {
		t.Errorf("range: got %v", err)
	}
	if _, err := b.Attributes(t.Context(), ids[3].String()+"/meta.json"); !b.IsObjNotFoundErr(err) {
		t.Errorf("attributes: got %v", err)
	}
	if names := allNames(t, b); !slices.ContainsFunc(
		names, func(n string) bool { return strings.HasPrefix(n, ids[1].String()+"/") },
	) {
		t.Errorf("all names: %v", names)
	}
}

func allNames(t *testing.T, b objstore.Bucket) (names []string) {
	t.Helper()
	if err := b.Iter(t.Context(), "", func(name string) error {
		names = append(names, name)
		return nil
	}, objstore.WithRecursiveIter()); err != nil {
		t.Fatal(err)
	}
	return names
}
