package localfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	// createAttempts is how many names Create tries.
	createAttempts = 100
	// openAttempts bounds how often a file is opened that other calls replace meanwhile.
	openAttempts = 10
)

// Open opens a file for reading.
func (d Dir) Open(name string) (f *os.File, err error) {
	err = d.in(func(at *os.Root) error {
		f, err = openIn(at, name, os.O_RDONLY)
		return err
	})
	return closedOn(f, err)
}

// Opened is a directory that is opened once to read many files, which is cheaper than Dir.Open for
// each. It keeps reading the directory that it opened, even if another replaces that.
type Opened struct{ at *os.Root }

// OpenDir opens d. The caller closes it.
func (d Dir) OpenDir() (*Opened, error) {
	at, err := d.open()
	if err != nil {
		return nil, err
	}
	return &Opened{at}, nil
}

// Open opens a file for reading.
func (o *Opened) Open(name string) (*os.File, error) { return openIn(o.at, name, os.O_RDONLY) }

// Path returns the path of a file for messages.
func (o *Opened) Path(name string) string { return filepath.Join(o.at.Name(), name) }

// Close closes the directory, but not the files opened in it.
func (o *Opened) Close() error { return o.at.Close() }

// OpenOrCreate opens a file for reading and writing, and creates it if it is missing.
func (d Dir) OpenOrCreate(name string) (f *os.File, err error) {
	err = d.in(func(at *os.Root) error {
		for range openAttempts {
			f, err = at.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
			if !errors.Is(err, fs.ErrExist) {
				break
			}
			if f, err = openIn(at, name, os.O_RDWR); !errors.Is(err, fs.ErrNotExist) {
				break
			}
		}
		return err
	})
	return closedOn(f, err)
}

// openIn opens an existing regular file.
func openIn(at *os.Root, name string, flag int) (*os.File, error) {
	path := filepath.Join(at.Name(), name)
	for range openAttempts {
		named, err := at.Lstat(name)
		if err != nil {
			return nil, err
		}
		if !named.Mode().IsRegular() {
			return nil, special(path, "file", named)
		}
		// If a pipe has replaced the file, opening it must not wait for the other end.
		f, err := at.OpenFile(name, flag|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		opened, err := f.Stat()
		if err != nil {
			return closedOn(f, err)
		}
		// OpenFile follows links that stay inside of the directory.
		if os.SameFile(named, opened) {
			return f, nil
		}
		_ = f.Close() // another file was renamed to this name, or a link replaced it
	}
	return nil, fmt.Errorf("open %s: it keeps being replaced", path)
}

// closedOn closes f if there is an error.
func closedOn(f *os.File, err error) (*os.File, error) {
	if err != nil {
		if f != nil {
			_ = f.Close() // nothing was written
		}
		return nil, err
	}
	return f, nil
}

// Create creates a new file for reading and writing. Its name is pattern with a random number in
// place of the star.
func (d Dir) Create(pattern string) (f *os.File, err error) {
	before, after, _ := strings.Cut(pattern, "*")
	err = d.in(func(at *os.Root) error {
		for range createAttempts {
			name := before + strconv.FormatUint(rand.Uint64(), 10) + after
			// O_EXCL follows no link, not even one to nothing.
			f, err = at.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
			if !errors.Is(err, fs.ErrExist) {
				break
			}
		}
		return err
	})
	return closedOn(f, err)
}

// Rename renames a file and replaces a file or link called to.
func (d Dir) Rename(from, to string) error {
	return d.in(func(at *os.Root) error { return at.Rename(from, to) })
}

// Remove removes a file, a link or an empty directory.
func (d Dir) Remove(name string) error {
	return d.in(func(at *os.Root) error { return at.Remove(name) })
}

// Lstat describes a name in d without following a link.
func (d Dir) Lstat(name string) (is fs.FileInfo, err error) {
	err = d.in(func(at *os.Root) error {
		is, err = at.Lstat(name)
		return err
	})
	return is, err
}

// Names returns the names in d in no particular order.
func (d Dir) Names() (names []string, err error) {
	err = d.in(func(at *os.Root) error {
		f, err := at.Open(".")
		if err != nil {
			return err
		}
		names, err = f.Readdirnames(-1)
		return errors.Join(err, f.Close())
	})
	return names, err
}

// Sync makes new names in d survive a crash of the machine.
func (d Dir) Sync() error {
	return d.in(func(at *os.Root) error {
		f, err := at.Open(".")
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
