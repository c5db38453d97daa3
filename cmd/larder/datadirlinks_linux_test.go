package main

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// startWide starts a process with umask 0 and waits until it is ready.
func (d *disk) startWide(data string) *process {
	d.t.Helper()
	p := launch(d.t, func(ctx context.Context) *exec.Cmd {
		own := larder(ctx, nil, "store", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
			"--objstore.config="+folder(d.bucket), "--data-dir="+data,
			"--drain-delay=0s", "--sync-block-duration=100ms")
		wide := append([]string{"-c", `umask 0; exec "$@"`, "sh"}, own.Args...)
		cmd := exec.CommandContext(ctx, "/bin/sh", wide...)
		cmd.Env = own.Env
		return cmd
	})
	p.listens()
	p.await("readiness changed.*ready=true")
	p.next = 0
	return p
}

// link creates links in the larder folder of a data directory, and returns the folder that they
// lead to. Names that end in a slash are links to folders.
func link(t *testing.T, data string, names ...string) (outside string) {
	t.Helper()
	outside = t.TempDir()
	for _, name := range names {
		name, isDir := strings.CutSuffix(name, "/")
		target := filepath.Join(outside, filepath.Base(name))
		if isDir {
			if err := os.Mkdir(target, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		at := filepath.Join(data, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, at); err != nil {
			t.Fatal(err)
		}
	}
	return outside
}

// wantUntouched checks that nothing was written behind links to folders.
func wantUntouched(t *testing.T, outside string, folders int) {
	t.Helper()
	if files := filesUnder(t, outside); len(files) != folders+1 {
		t.Errorf("behind the links are %d files, want %d empty folders", len(files)-1, folders)
	}
}

// TestLinksInTheDataDirectory replaces files and folders of larder by links. Nothing is written
// through them, the log names the link, and answers are right.
func TestLinksInTheDataDirectory(t *testing.T) {
	d := newDisk(t)
	t.Run("folders and files", func(t *testing.T) {
		data := t.TempDir()
		outside := link(t, data, "larder/headers/", "larder/meta/", "larder/extents/",
			"larder/catalog.json", "larder/warm.snapshot", "larder/irregular.blocks")
		p := d.startWide(data)
		p.same(d.want)
		p.stop()
		wantUntouched(t, outside, 3)
		for _, name := range []string{"headers", "meta", "extents"} {
			want := "larder/" + name + " is a symbolic link"
			if !strings.Contains(strings.Join(p.seen, "\n"), want) {
				t.Errorf("the log does not say %q", want)
			}
		}
		// A link to a file is replaced when the file is written.
		is, err := os.Lstat(filepath.Join(data, "larder", "warm.snapshot"))
		if err != nil || !is.Mode().IsRegular() {
			t.Errorf("warm.snapshot: %v, %v, want a file", is, err)
		}
	})
	for name, own := range map[string]string{"lock": "larder/lock", "larder": "larder/"} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			outside := link(t, data, own)
			p := d.startWide(data)
			if p.counter("larder_data_dir_usable") != 0 {
				t.Fatal("larder_data_dir_usable is not 0")
			}
			p.await("data directory is not usable.*" + name + " is a symbolic link")
			p.same(d.want)
			wantUntouched(t, outside, strings.Count(own, "/")-strings.Count(own, "/lock"))
			if err := os.Remove(filepath.Join(data, strings.TrimSuffix(own, "/"))); err != nil {
				t.Fatal(err)
			}
			p.await("data directory is usable again")
			d.awaitHeaders(data)
			p.stop()
			d.wantWhole(data)
		})
	}
}

// TestDataDirectoryIsPrivate checks that other users can neither list nor read larder's files,
// whatever the umask. --data-dir itself may be a link.
func TestDataDirectoryIsPrivate(t *testing.T) {
	d := newDisk(t)
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Symlink(t.TempDir(), data); err != nil {
		t.Fatal(err)
	}
	p := d.startWide(data)
	d.awaitHeaders(data)
	p.same(d.want)
	p.stop()
	d.wantWhole(data)
	root := filepath.Join(data, "larder")
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		is, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o750
		}
		if is.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v", name, is.Mode(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
