package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"larder/internal/bucket/slots"
	"larder/store/catalog"
)

// putMeta writes the meta.json of a block of a folder.
func putMeta(t *testing.T, dir string, id ulid.ULID) {
	t.Helper()
	text := `{"ulid": "` + id.String() + `", "version": 1, "minTime": 0, "maxTime": 10}`
	path := filepath.Join(dir, id.String(), "meta.json")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
		os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// pipe puts a named pipe into the place of an object.
func pipe(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
		syscall.Mkfifo(path, 0o666)); err != nil {
		t.Fatal(err)
	}
}

// opens counts goroutines that stand in the open of a file.
func opens() int {
	buf := make([]byte, 16<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "\nsyscall.openat(")
}

// TestNothingButFilesIsOpened: pipes, sockets and devices in the places of objects are missing
// objects, by whatever name they are met, and harm no other block.
func TestNothingButFilesIsOpened(t *testing.T) {
	dir := t.TempDir()
	id := func(n int) ulid.ULID { return ulid.MustNew(uint64(n), nil) }
	const bad = 40 // more than the catalog reads at once
	for i := range bad {
		pipe(t, filepath.Join(dir, id(i).String(), "meta.json"))
	}
	good := id(100)
	putMeta(t, dir, good)
	in := func(name string) string { return filepath.Join(dir, good.String(), name) }
	for _, name := range []string{"index", "chunks/000001", "deletion-mark.json",
		"no-compact-mark.json"} {
		pipe(t, in(name))
	}
	pipe(t, filepath.Join(dir, id(101).String())) // in the place of a block
	if err := errors.Join(os.Symlink("/dev/zero", in("device")),
		os.Symlink(in("index"), in("linked")), os.Symlink("loop", in("loop"))); err != nil {
		t.Fatal(err)
	}
	putMeta(t, dir, id(102))
	if err := os.Rename(filepath.Join(dir, id(102).String(), "meta.json"), in("file")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(in("file"), filepath.Join(dir, id(102).String(), "link")); err != nil {
		t.Fatal(err)
	}
	// The path of a socket must be short.
	t.Chdir(filepath.Dir(in("file")))
	socket, err := net.Listen("unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()

	conf, err := parseBucket([]byte(folder(dir)))
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	client, err := newBucketClient(conf, logger)
	if err != nil {
		t.Fatal(err)
	}
	b := openBucket(client, conf.Hedging, slots.New(slots.Options{}), 1<<20, logger,
		prometheus.NewRegistry())
	for _, d := range []catalog.Discovery{catalog.Concurrent, catalog.Recursive} {
		c, err := catalog.New(catalog.Options{Bucket: b, Discovery: d, RequestTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Sync(t.Context()); err != nil {
			t.Errorf("%s: %v", d, err)
		}
		if blocks := c.View().Blocks; len(blocks) != 1 || blocks[0].ID != good {
			t.Errorf("%s: serving %d blocks", d, len(blocks))
		}
		// The block without a meta.json counts too.
		if broken := c.Status().Broken; d == catalog.Concurrent && len(broken) != bad+1 {
			t.Errorf("%s: %d broken blocks", d, len(broken))
		} else if d == catalog.Concurrent {
			want := regexp.MustCompile(broken[0].ID.String() +
				`/meta\.json: a named pipe is in its place`)
			if broken[0].State != "no-meta-json" || !want.MatchString(broken[0].Err.Error()) {
				t.Errorf("%s: broken is %+v", d, broken[0])
			}
		}
	}

	for name, kind := range map[string]string{
		"index": "named pipe", "chunks/000001": "named pipe", "deletion-mark.json": "named pipe",
		"linked": "named pipe", "device": "device", "socket": "socket",
	} {
		name = good.String() + "/" + name
		_, getErr := b.Get(t.Context(), name)
		_, rangeErr := b.GetRange(t.Context(), name, 0, 1)
		_, attrErr := b.Attributes(t.Context(), name)
		for _, err := range []error{getErr, rangeErr, attrErr} {
			if !b.IsObjNotFoundErr(err) || !strings.Contains(err.Error(), name+": a "+kind) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if there, err := b.Exists(t.Context(), name); there || err != nil {
			t.Errorf("%s exists: %v, %v", name, there, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, name := range []string{"deletion-mark.json", "linked", "loop"} {
		if err := b.Upload(ctx, good.String()+"/"+name, strings.NewReader("x")); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	for _, name := range allNames(t, b) {
		if want := []string{good.String() + "/file", good.String() + "/meta.json",
			id(102).String() + "/link"}; !slices.Contains(want, name) {
			t.Errorf("%s is listed", name)
		}
	}
	if body, err := b.Get(t.Context(), id(102).String()+"/link"); err != nil {
		t.Errorf("a link to a file: %v", err)
	} else if err := body.Close(); err != nil {
		t.Error(err)
	}
	if n := opens(); n > 0 {
		t.Errorf("%d opens have not returned", n)
	}
}

// TestAPipeThatTakesAFilesPlace: one that is put there after larder has looked is not waited for.
func TestAPipeThatTakesAFilesPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	pipe(t, path)
	if _, _, err := openRegular("b/index", path); !errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "b/index: a named pipe") {
		t.Errorf("file: got %v", err)
	}
	if _, err := openFolder(path); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("folder: got %v", err)
	}
}

// TestFileCallsThatHangAreBounded: calls that do not return keep their places, and no more than
// that. What comes after them is refused by name.
func TestFileCallsThatHangAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 3
		p := newFilePlaces("/mnt/bucket", places)
		hang := make(chan struct{})
		returned := make(chan error, places)
		for range places {
			go func() {
				returned <- p.do(t.Context(), "read", "a", func() error { <-hang; return nil })
			}()
		}
		synctest.Wait()
		refused := make(chan error, 100)
		for i := range cap(refused) {
			go func() {
				refused <- p.do(t.Context(), "read", fmt.Sprintf("object-%d", i), func() error {
					t.Error("it was called")
					return nil
				})
			}()
		}
		want := regexp.MustCompile(`read object-\d+: .* 3 calls for objects below /mnt/bucket`)
		for range cap(refused) {
			err := <-refused
			if !errors.Is(err, errFilesHang) || !want.MatchString(err.Error()) {
				t.Errorf("got %v", err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { refused <- p.do(ctx, "read", "b", func() error { return nil }) }()
		synctest.Wait()
		cancel()
		if err := <-refused; !errors.Is(err, context.Canceled) {
			t.Errorf("a read that was given up: %v", err)
		}
		close(hang)
		for range places {
			if err := <-returned; err != nil {
				t.Error(err)
			}
		}
		if err := p.do(t.Context(), "read", "c", func() error { return nil }); err != nil {
			t.Errorf("after they returned: %v", err)
		}
	})
}

// TestAnObjectThatHangsLeavesPlaces: calls for one object that hang are a few at most. Others are
// read meanwhile, and it is too when the file system answers again.
func TestAnObjectThatHangsLeavesPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFilePlaces("/mnt/bucket", maxFileCalls)
		hang, returned := make(chan struct{}), make(chan error, maxHanging)
		for range maxHanging {
			go func() {
				returned <- p.do(t.Context(), "read", "a/index",
					func() error { <-hang; return nil })
			}()
		}
		time.Sleep(hangsAfter)
		for range 10 {
			err := p.do(t.Context(), "read", "a/index",
				func() error { t.Error("it was called"); return nil })
			if !errors.Is(err, errFilesHang) || !strings.Contains(err.Error(), "read a/index: ") {
				t.Errorf("got %v", err)
			}
		}
		read := func(object string) {
			t.Helper()
			if err := p.do(t.Context(), "read", object, func() error { return nil }); err != nil {
				t.Errorf("%s: %v", object, err)
			}
		}
		read("b/index")
		close(hang)
		for range maxHanging {
			if err := <-returned; err != nil {
				t.Error(err)
			}
		}
		read("a/index")
		if len(p.running) != 0 {
			t.Errorf("%v are counted as running", p.running)
		}
	})
}

// TestABodyEndsWithItsRead: what reads a body of a file after its caller gave up does not wait for
// the disk again.
func TestABodyEndsWithItsRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "o"), []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &fileBucket{root: dir, places: newFilePlaces(dir, 1)}
	for _, r := range []struct {
		off, length int64
		want        string
		size        int64
	}{{0, -1, "0123456789", 10}, {3, 4, "3456", 4}, {8, 10, "89", 2}, {20, 5, "", 0},
		{20, -1, "", 0}} {
		body, err := b.GetRange(t.Context(), "o", r.off, r.length)
		if err != nil {
			t.Fatal(err)
		}
		size, err := objstore.TryToGetSize(body)
		if err != nil || size != r.size {
			t.Errorf("%+v: size %d, %v", r, size, err)
		}
		got := new(strings.Builder)
		buf := make([]byte, 3)
		for n := 0; err == nil; {
			n, err = body.Read(buf)
			got.Write(buf[:n])
		}
		if got.String() != r.want || body.Close() != nil {
			t.Errorf("%+v: got %q, %v", r, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	body, err := b.Get(ctx, "o")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := body.Read(make([]byte, 5)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
}

// TestLargeFoldersAreListedInParts: of a folder with very many entries a part is held at a time, and
// all are listed once.
func TestLargeFoldersAreListedInParts(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "block", "file")
	err := errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	const n = maxEntries + 100
	want := map[string]bool{"block/file": true}
	for i := range n {
		name := fmt.Sprintf("block/%d", i)
		if err := os.Link(file, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		want[name] = true
	}
	b := &fileBucket{root: dir, places: newFilePlaces(dir, 1)}
	folder, err := b.openDir("block")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []int{maxEntries, 101} {
		entries, more, err := b.entries(folder, "block", objstore.IterParams{})
		if len(entries) != part || more != (part == maxEntries) || err != nil {
			t.Errorf("a part has %d entries, want %d; more %v, %v", len(entries), part, more, err)
		}
	}
	if err := folder.Close(); err != nil {
		t.Error(err)
	}
	err = b.Iter(t.Context(), "", func(name string) error {
		if !want[name] {
			t.Errorf("%s is listed, or twice", name)
		}
		delete(want, name)
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil || len(want) != 0 {
		t.Errorf("%d are not listed, %v", len(want), err)
	}
}

// TestPipesTakeNoThreads: a process over a bucket with a pipe for the meta.json of each of many
// blocks is ready, serves the others, and has the threads of any other.
func TestPipesTakeNoThreads(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		pipe(t, filepath.Join(dir, ulid.MustNew(uint64(i+1), nil).String(), "meta.json"))
	}
	putMeta(t, dir, ulid.MustNew(1000, nil))
	p := startProcess(t, folder(dir))
	p.await("blocks changed.*blocks=1")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`Threads:\s+(\d+)`).FindStringSubmatch(string(status))[1]
	threads, err := strconv.Atoi(text)
	if err != nil || threads > 50 {
		t.Errorf("%d threads, %v", threads, err)
	}
}
