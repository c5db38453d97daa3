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

// Iter calls f for the names in a folder of the bucket.
func (b *fileBucket) Iter(ctx context.Context, dir string, f func(string) error,
	options ...objstore.IterOption) error {
	p := objstore.IterParams{Recursive: objstore.ApplyIterOptions(options...).Recursive}
	return b.list(ctx, dir, p, func(o objstore.IterObjectAttributes) error { return f(o.Name) })
}

// IterWithAttributes calls f for what is in a folder of the bucket.
func (b *fileBucket) IterWithAttributes(ctx context.Context, dir string,
	f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	if err := objstore.ValidateIterOptions(b.SupportedIterOptions(), options...); err != nil {
		return err
	}
	return b.list(ctx, dir, objstore.ApplyIterOptions(options...), f)
}

// maxEntries is how many entries of a folder are read at a time: 4 MiB of them, about. An object
// store's page of a listing has 1000.
const maxEntries = 16384

// listed is an entry of a folder that belongs into a listing.
type listed struct {
	objstore.IterObjectAttributes
	folder bool
}

// list lists a folder, and with Recursive what is below it. Entries come in the order of their
// names, but for a folder of more than maxEntries: those of each maxEntries do. Folders without an
// entry are left out, same as Thanos, and so is what is neither a file nor a folder. f may wait: it
// has no place meanwhile.
func (b *fileBucket) list(ctx context.Context, dir string, p objstore.IterParams,
	f func(objstore.IterObjectAttributes) error) error {
	var rest *os.File // of the folder, nil once it was read
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

// openDir opens a folder of the bucket, nil for one that is not there.
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

// entry returns what a listing shows of an entry of a folder, ok false for nothing.
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

// leadsNowhere reports whether a name was deleted meanwhile, or is a link that cannot be followed:
// to nothing, to itself, through a file or to where larder may not look. One such link must not end
// the listing of all others.
func leadsNowhere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) ||
		errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR)
}

// isEmpty reports whether a folder has no entry. One that is gone has none.
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

// openFolder opens a folder, and nothing that was put into its place: it does not wait for a pipe.
func openFolder(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_DIRECTORY, 0)
}
