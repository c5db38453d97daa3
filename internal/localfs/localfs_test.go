package localfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// put writes a file through d, under a temporary name first.
func put(d Dir, name, text string) error {
	f, err := d.Create(name + ".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return d.Rename(filepath.Base(f.Name()), name)
}

func get(d Dir, name string) (string, error) {
	f, err := d.Open(name)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(f)
	return string(b), errors.Join(err, f.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestFiles writes, reads, lists and removes files below a base that is a link.
func TestFiles(t *testing.T) {
	real, link := filepath.Join(t.TempDir(), "real"), filepath.Join(t.TempDir(), "link")
	must(t, os.Mkdir(real, 0o755))
	must(t, os.Symlink(real, link))
	d := At(filepath.Join(link, "volume", "data"), "larder").Sub("headers")
	if _, err := d.Create("x*"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before Make: got %v, want ErrNotExist", err)
	}
	for range 2 {
		must(t, d.Make())
	}
	must(t, put(d, "a", "one"))
	must(t, put(d, "a", "two"))
	must(t, put(d, "b", "three"))
	if got, err := get(d, "a"); err != nil || got != "two" {
		t.Errorf("read %q, %v", got, err)
	}
	opened, err := d.OpenDir()
	must(t, err)
	f, err := opened.Open("b")
	must(t, err)
	if f.Name() != opened.Path("b") || opened.Path("b") != d.Path("b") {
		t.Errorf("got paths %s, %s and %s for one file", f.Name(), opened.Path("b"), d.Path("b"))
	}
	must(t, errors.Join(f.Close(), opened.Close()))
	names, err := d.Names()
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("names %v, %v", names, err)
	}
	must(t, d.Remove("b"))
	must(t, d.Sync())
	if _, err := d.Open("b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: got %v, want ErrNotExist", err)
	}
	if _, err := os.Stat(filepath.Join(real, "volume/data/larder/headers/a")); err != nil {
		t.Error(err)
	}
	f, err = d.OpenOrCreate("lock")
	must(t, err)
	must(t, f.Close())
	f, err = d.OpenOrCreate("lock")
	must(t, err)
	must(t, f.Close())
}

// TestLinksAreRefused replaces larder's own names by links. Nothing is written behind a link,
// whether it leaves the directory or not, and the error names it.
func TestLinksAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		link   string // in the base
		target string // from the base; a directory
		dir    bool   // the link is in the place of a directory
	}{
		"own directory, away":     {link: "larder", target: "../outside", dir: true},
		"own directory, within":   {link: "larder", target: "inside", dir: true},
		"directory in it, away":   {link: "larder/headers", target: "../outside", dir: true},
		"directory in it, within": {link: "larder/headers", target: "inside", dir: true},
		"file, away":              {link: "larder/headers/lock", target: "../outside"},
		"file, within":            {link: "larder/headers/lock", target: "inside"},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			base, outside := filepath.Join(top, "base"), filepath.Join(top, "outside")
			inside := filepath.Join(base, "inside")
			must(t, os.MkdirAll(outside, 0o755))
			must(t, os.MkdirAll(inside, 0o755))
			d := At(base, "larder").Sub("headers")
			if !tc.dir {
				must(t, d.Make())
			}
			link := filepath.Join(base, tc.link)
			must(t, os.MkdirAll(filepath.Dir(link), 0o755))
			target, err := filepath.Rel(filepath.Dir(link), filepath.Join(base, tc.target))
			must(t, err)
			if !tc.dir {
				target = filepath.Join(target, "new")
			}
			must(t, os.Symlink(target, link))

			refused := func(what string, err error) {
				t.Helper()
				named := err != nil && strings.Contains(err.Error(), link+" is a symbolic link")
				if !errors.Is(err, ErrSpecial) || !named {
					t.Errorf("%s: got %v, want ErrSpecial that names %s", what, err, link)
				}
			}
			if tc.dir {
				refused("make", d.Make())
				refused("write", put(d, "a", "text"))
				refused("remove", d.Remove("a"))
			} else {
				must(t, put(d, "a", "text"))
			}
			_, err = d.OpenOrCreate("lock")
			refused("open or create", err)
			_, err = d.Open("lock")
			refused("open", err)
			for _, dir := range []string{outside, inside} {
				if behind, err := os.ReadDir(dir); err != nil || len(behind) > 0 {
					t.Errorf("behind the link: got %v, %v, want no files", behind, err)
				}
			}
			if tc.dir {
				return
			}
			// A rename replaces the link.
			must(t, put(d, "lock", "text"))
			if got, err := get(d, "lock"); err != nil || got != "text" {
				t.Errorf("after a rename: %q, %v", got, err)
			}
		})
	}
}

// TestOtherKindsAreRefused: a pipe or directory in place of a file is an error. Opening a pipe does
// not wait for its other end.
func TestOtherKindsAreRefused(t *testing.T) {
	d := At(t.TempDir())
	must(t, syscall.Mkfifo(d.Path("pipe"), 0o600))
	must(t, os.Mkdir(d.Path("dir"), 0o700))
	for _, name := range []string{"pipe", "dir"} {
		if _, err := d.Open(name); !errors.Is(err, ErrSpecial) {
			t.Errorf("open %s: got %v, want ErrSpecial", name, err)
		}
		if _, err := d.OpenOrCreate(name); !errors.Is(err, ErrSpecial) {
			t.Errorf("open or create %s: got %v, want ErrSpecial", name, err)
		}
	}
	if err := d.Sub("pipe").Make(); !errors.Is(err, ErrSpecial) {
		t.Errorf("a pipe in place of a directory: got %v, want ErrSpecial", err)
	}
}

// umaskEnv names the directory in which the child process of TestPermissions creates files.
const umaskEnv = "LARDER_TEST_LOCALFS_UMASK"

// TestPermissions: with a umask of 0, other users have no permissions on new files and directories,
// and lose those on directories of an earlier version. A child process creates the files, because
// the umask belongs to the process.
func TestPermissions(t *testing.T) {
	if base := os.Getenv(umaskEnv); base != "" {
		syscall.Umask(0)
		d := At(base, "larder", "headers")
		must(t, d.Make())
		must(t, put(d, "file", "text"))
		_, err := d.OpenOrCreate("lock")
		must(t, err)
		return
	}
	base := filepath.Join(t.TempDir(), "data")
	old := filepath.Join(base, "larder")
	must(t, os.MkdirAll(old, 0o755))
	must(t, os.Chmod(old, 0o777|fs.ModeSetgid))
	cmd := exec.Command(os.Args[0], "-test.run=^TestPermissions$")
	cmd.Env = append(os.Environ(), umaskEnv+"="+base)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, want := range map[string]fs.FileMode{
		"larder":              fs.ModeDir | fs.ModeSetgid | 0o770,
		"larder/headers":      fs.ModeDir | fs.ModeSetgid | 0o750, // inherits the group
		"larder/headers/file": 0o600,
		"larder/headers/lock": 0o600,
	} {
		if is, err := os.Stat(filepath.Join(base, name)); err != nil || is.Mode() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, is.Mode(), err, want)
		}
	}
}
