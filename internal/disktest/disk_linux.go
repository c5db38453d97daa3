package disktest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// lack skips the test, or fails it if LARDER_REQUIRE is set.
func lack(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("LARDER_REQUIRE") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Tmpfs mounts a file system of the given size and returns its root. It is unmounted when the test
// ends, even if a process still uses it.
func Tmpfs(t testing.TB, bytes int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		lack(t, "mounting a file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("larder-test", dir, "tmpfs", 0,
		fmt.Sprintf("size=%d", bytes)); err != nil {
		lack(t, "mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		for { // repeated for the mounts of ReadOnly
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); errors.Is(err, syscall.EINVAL) {
				return
			} else if err != nil {
				t.Errorf("unmount %s: %v", dir, err)
				return
			}
		}
	})
	return dir
}

// Vanish unmounts a file system while processes use it. Its root is then the empty directory that
// it was mounted on.
func Vanish(t testing.TB, root string) {
	t.Helper()
	if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
		t.Fatalf("unmount %s: %v", root, err)
	}
}

// ReadOnly makes a file system of Tmpfs read-only for every file that is opened from now on.
// writable undoes it.
func ReadOnly(t testing.TB, root string) (writable func()) {
	t.Helper()
	// A second mount on top: the first cannot be changed while files are open for writing.
	if err := syscall.Mount(root, root, "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s on itself: %v", root, err)
	}
	if err := syscall.Mount("", root, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY,
		""); err != nil {
		t.Fatalf("remount %s: %v", root, err)
	}
	return func() { Vanish(t, root) }
}

// Fill fills a file system of Tmpfs. free removes the filling.
func Fill(t testing.TB, root string) (free func()) {
	t.Helper()
	name := filepath.Join(root, "filling")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for piece := make([]byte, 64<<10); len(piece) > 0; {
		if _, err := f.Write(piece); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			piece = piece[:len(piece)/2]
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// Inject changes a command that was not started yet to run under strace with faults, each an
// argument of -e inject=. The process that starts is the command's own.
func Inject(t testing.TB, cmd *exec.Cmd, faults ...string) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		lack(t, "strace is not installed: apt-get install strace")
	}
	args := []string{"strace", "-D", "-f", "-qq", "-o", "/dev/null"}
	for _, f := range faults {
		args = append(args, "-e", "inject="+f)
	}
	cmd.Args = append(append(args, cmd.Path), cmd.Args[1:]...)
	cmd.Path = strace
}
