package main

import (
	"context"
	"errors"
	"fmt"
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
	"time"

	"github.com/oklog/ulid/v2"

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

// pipe creates a named pipe with the path of an object.
func pipe(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
		syscall.Mkfifo(path, 0o666)); err != nil {
		t.Fatal(err)
	}
}

// opens counts goroutines that are blocked in opening a file.
func opens() int {
	buf := make([]byte, 16<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "\nsyscall.openat(")
}

// TestNothingButFilesIsOpened checks that pipes, sockets and devices count as missing objects under
// every name, and do not affect other blocks.
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

	b := openStack(t, folder(dir))
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

// TestPipesTakeNoThreads has many blocks whose meta.json is a pipe. The process is ready, serves
// the other blocks and has the usual number of threads.
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
