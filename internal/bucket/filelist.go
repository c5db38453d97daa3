package bucket

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/thanos-io/objstore"
)

// Iter calls f with each name in a folder of the bucket.
func (b *fileBucket) Iter(ctx context.Context, dir string, f func(string) error,
	options ...objstore.IterOption) error {
	p := objstore.IterParams{Recursive: objstore.ApplyIterOptions(options...).Recursive}
	return b.list(ctx, dir, p, func(o objstore.IterObjectAttributes) error { return f(o.Name) })
}

// IterWithAttributes calls f with each entry of a folder of the bucket.
func (b *fileBucket) IterWithAttributes(ctx context.Context, dir string,
	f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	if err := objstore.ValidateIterOptions(b.SupportedIterOptions(), options...); err != nil {
		return err
	}
	return b.list(ctx, dir, objstore.ApplyIterOptions(options...), f)
}

// maxEntries is the number of entries of a folder that are read at a time, about 4 MiB of them. A
// page of an object store's listing has 1000.
const maxEntries = 16384

// listed is an entry of a folder that a listing shows.
type listed struct {
	objstore.IterObjectAttributes
	folder bool
}

// list lists a folder, and with Recursive all folders below it. Entries are sorted by name, in a
// folder of more than maxEntries only within each part of maxEntries. Empty folders are left out,
// same as Thanos, and so are entries that are neither files nor folders. f may wait, because no
// place is held while it runs.
func (b *fileBucket) list(ctx context.Context, dir string, p objstore.IterParams,
	f func(objstore.IterObjectAttributes) error) error {
	var rest *os.File // the folder while there is more to read, else nil
	defer func() {
		if rest != nil {
			_ = rest.Close() // nothing was written
		}
	}()
	for begun := false; !begun || rest != nil; begun = true {
		var entries []listed
		err := b.places.do(ctx, "list", dir, func() (err error) {
			if !begun {
				if rest, err = b.openDir(dir); rest == nil {
					return err
				}
			}
			var more bool
			if entries, more, err = b.entries(rest, dir, p); err == nil && !more {
				err = rest.Close()
				rest = nil
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.folder && p.Recursive {
				err = b.list(ctx, e.Name, p, f)
			} else {
				err = f(e.IterObjectAttributes)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// openDir opens a folder of the bucket. It returns nil if there is none.
func (b *fileBucket) openDir(dir string) (*os.File, error) {
	info, err := os.Stat(b.path(dir))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return openFolder(b.path(dir))
}

// entries reads the next entries of a folder, and reports whether there may be more.
func (b *fileBucket) entries(folder *os.File, dir string, p objstore.IterParams) (
	entries []listed, more bool, err error,
) {
	names, err := folder.ReadDir(maxEntries)
	if err != nil && err != io.EOF {
		return nil, false, err
	}
	slices.SortFunc(names, func(a, b fs.DirEntry) int {
		return strings.Compare(a.Name(), b.Name())
	})
	top := strings.Trim(dir, objstore.DirDelim) == ""
	for _, n := range names {
		e, ok, err := b.entry(filepath.ToSlash(filepath.Join(dir, n.Name())), n, top, p)
		if err != nil {
			return nil, false, err
		}
		if ok {
			entries = append(entries, e)
		}
	}
	return entries, len(names) == maxEntries, nil
}

// entry returns an entry of a folder as a listing shows it. ok is false if the listing does not.
func (b *fileBucket) entry(
	name string, n fs.DirEntry, top bool, p objstore.IterParams,
) (e listed, ok bool, err error) {
	path := b.path(name)
	mode := n.Type()
	var info fs.FileInfo
	if mode&fs.ModeSymlink != 0 || p.LastModified && !n.IsDir() {
		if info, err = os.Stat(path); leadsNowhere(err) {
			return e, false, nil
		} else if err != nil {
			return e, false, err
		}
		mode = info.Mode()
	}
	e.Name = name
	switch {
	case mode.IsDir() && (top || n.IsDir()):
		if n.IsDir() {
			if empty, err := isEmpty(path); empty || err != nil {
				return e, false, err
			}
		}
		e.Name += objstore.DirDelim
		if e.folder = true; p.LastModified && !p.Recursive {
			if info, err = os.Stat(path); leadsNowhere(err) {
				return e, false, nil
			} else if err != nil {
				return e, false, err
			}
		}
	case mode.IsDir(): // a link deeper down is no folder, same as Thanos
	case !mode.IsRegular():
		return e, false, nil
	}
	if p.LastModified && info != nil {
		e.SetLastModified(info.ModTime())
	}
	return e, true, nil
}

// leadsNowhere reports whether a name has been deleted since, or is a link that cannot be followed:
// to nothing, to itself, through a file or to a place without permission. One such link must not
// fail the listing.
func leadsNowhere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) ||
		errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR)
}

// isEmpty reports whether a folder has no entry. A deleted folder has none.
func isEmpty(path string) (bool, error) {
	folder, err := openFolder(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	_, err = folder.Readdirnames(1)
	_ = folder.Close() // it was read
	if err == io.EOF || errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}

// openFolder opens a folder and nothing else: it fails at once if a pipe has taken its place.
func openFolder(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_DIRECTORY, 0)
}
