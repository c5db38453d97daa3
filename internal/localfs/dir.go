package localfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	baseMode = 0o755
	ownMode  = 0o750
	fileMode = 0o600
	// othersMode are the permissions that other users never have on larder's own directories.
	othersMode = 0o007
)

// ErrSpecial is in the chain of the error of a name that exists but is a link or has the wrong file
// type.
var ErrSpecial = errors.New("not what larder makes")

// Dir is a directory. The zero value is no directory. Dirs are equal if their paths are.
type Dir struct {
	base string
	own  string // names below base, separated by slashes
}

// At returns the directory with the given names below base. base may be a link; own names must not
// be.
func At(base string, own ...string) Dir {
	return Dir{base: base, own: strings.Join(own, "/")}
}

// Sub returns the directory called name in d.
func (d Dir) Sub(name string) Dir {
	if d.own != "" {
		name = d.own + "/" + name
	}
	return Dir{base: d.base, own: name}
}

// IsZero reports whether d is no directory.
func (d Dir) IsZero() bool { return d == Dir{} }

// String returns the path of d.
func (d Dir) String() string { return filepath.Join(d.base, filepath.FromSlash(d.own)) }

// Path returns the path of a file in d for messages. Opening that path would follow links.
func (d Dir) Path(name string) string { return filepath.Join(d.String(), name) }

func (d Dir) names() []string {
	if d.own == "" {
		return nil
	}
	return strings.Split(d.own, "/")
}

// open opens d. The caller closes the result.
func (d Dir) open() (*os.Root, error) {
	at, err := os.OpenRoot(d.base)
	for _, name := range d.names() {
		if err != nil {
			return nil, err
		}
		at, err = enter(at, name)
	}
	return at, err
}

// enter opens the directory called name in parent, which it closes.
func enter(parent *os.Root, name string) (_ *os.Root, err error) {
	defer func() { err = errors.Join(err, parent.Close()) }()
	path := filepath.Join(parent.Name(), name)
	// This detects a pipe. Opening a pipe would wait for its other end.
	named, err := parent.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !named.IsDir() {
		return nil, special(path, "directory", named)
	}
	sub, err := parent.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	opened, err := sub.Stat(".")
	if err == nil && !os.SameFile(named, opened) {
		// OpenRoot follows links that stay inside of parent.
		err = fmt.Errorf("%s was replaced while it was opened", path)
	}
	if err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	return sub, nil
}

// special returns the error for a name with the wrong file type.
func special(path, want string, is fs.FileInfo) error {
	kind := "another kind of file"
	switch {
	case is.Mode()&fs.ModeSymlink != 0:
		kind = "a symbolic link"
	case is.Mode().IsRegular():
		kind = "a file"
	case is.IsDir():
		kind = "a directory"
	}
	const text = "%s is %s, want a %s: %w (remove it)"
	return fmt.Errorf(text, path, kind, want, ErrSpecial)
}

// in opens d, runs f in it and closes it.
func (d Dir) in(f func(*os.Root) error) error {
	at, err := d.open()
	if err != nil {
		return err
	}
	return errors.Join(f(at), at.Close())
}

// Make creates d and its missing parents durably. It removes the permissions of other users from
// own directories that exist.
func (d Dir) Make() error {
	if err := makeBase(d.base); err != nil {
		return err
	}
	at := Dir{base: d.base}
	for _, name := range d.names() {
		if err := at.in(func(r *os.Root) error { return makeIn(r, name) }); err != nil {
			return err
		}
		at = at.Sub(name)
	}
	return at.in(func(*os.Root) error { return nil })
}

// makeIn creates the directory called name in parent.
func makeIn(parent *os.Root, name string) error {
	err := parent.Mkdir(name, ownMode)
	if err == nil {
		syncDir(parent)
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	is, err := parent.Lstat(name)
	if err != nil {
		return err
	}
	// Earlier versions created directories with whatever the umask allowed. The group keeps its
	// permissions, because Kubernetes assigns volumes to a group.
	if is.IsDir() && is.Mode()&othersMode != 0 {
		mode := is.Mode() & (fs.ModePerm | fs.ModeSetgid | fs.ModeSticky) &^ othersMode
		_ = parent.Chmod(name, mode) // best effort: only the owner may
	}
	return nil
}

// makeBase is os.MkdirAll, but survives a crash of the machine.
func makeBase(dir string) error {
	st, err := os.Stat(dir)
	if err == nil {
		if !st.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeBase(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, baseMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if at, err := os.OpenRoot(parent); err == nil {
		syncDir(at)
		_ = at.Close()
	}
	return nil
}

// syncDir makes new names in a directory survive a crash of the machine. It ignores errors, because
// a lost directory costs only a cold start and not every file system can sync one.
func syncDir(at *os.Root) {
	if f, err := at.Open("."); err == nil {
		_ = f.Sync()
		_ = f.Close()
	}
}
