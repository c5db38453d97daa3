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

// lack skips the test, or fails it where nothing may be lacking.
func lack(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("LARDER_REQUIRE") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Tmpfs returns the root of a file system of its own that takes so many bytes. It
// is unmounted with the test, whoever still uses it.
func Tmpfs(t testing.TB, bytes int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		lack(t, "mounting a file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("larder-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		lack(t, "mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		for { // with what ReadOnly has put on it
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

// Vanish takes a file system away from under those who use it. What is at its
// root then is the empty folder that it was mounted on.
func Vanish(t testing.TB, root string) {
	t.Helper()
	if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
		t.Fatalf("unmount %s: %v", root, err)
	}
}

// ReadOnly makes a file system of Tmpfs read-only for all who open something in
// it from now on. It can be written again after writable.
func ReadOnly(t testing.TB, root string) (writable func()) {
	t.Helper()
	// A second mount on top: the first cannot be changed while files are open for writing.
	if err := syscall.Mount(root, root, "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s on itself: %v", root, err)
	}
	if err := syscall.Mount("", root, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatalf("remount %s: %v", root, err)
	}
	return func() { Vanish(t, root) }
}

// Fill leaves no room in a file system of Tmpfs. free gives back what it took.
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

// Inject has a command, which was not started, run under strace with faults: each
// an argument of its -e inject=. The process that starts is the command's own.
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
