package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/thanos-io/objstore"
)

// fileBucket is the client of FILESYSTEM with two differences. A folder of the bucket may be a
// symbolic link, which the client takes for a file; Thanos serves blocks that are. And a folder in
// the place of an object is a missing object, as it is in every other type of bucket: the client
// opens it, and fails when it is read.
//
// Links are followed at the top only. A link deeper down may lead back up, without end.
type fileBucket struct {
	objstore.Bucket
	root string // the folder that holds the blocks, prefix included
}

// withLinks wraps the client of FILESYSTEM, and returns any other as it is.
func withLinks(b objstore.Bucket, conf *bucketConfig) objstore.Bucket {
	inner, ok := conf.Config.(map[any]any)
	if !ok || !strings.EqualFold(string(conf.Type), string(objstore.FILESYSTEM)) {
		return b
	}
	dir, ok := inner["directory"].(string)
	if !ok {
		return b
	}
	return &fileBucket{Bucket: b, root: filepath.Join(dir, filepath.FromSlash(conf.Prefix))}
}

func (b *fileBucket) path(name string) string {
	return filepath.Join(b.root, filepath.FromSlash(name))
}

// isLinkedFolder reports whether a name without a slash at its end is a link to a folder.
func (b *fileBucket) isLinkedFolder(name string) bool {
	if strings.HasSuffix(name, objstore.DirDelim) || strings.Contains(name, objstore.DirDelim) {
		return false
	}
	if info, err := os.Lstat(b.path(name)); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return false
	}
	info, err := os.Stat(b.path(name))
	return err == nil && info.IsDir()
}

func (b *fileBucket) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	if strings.Trim(dir, objstore.DirDelim) != "" {
		return b.Bucket.Iter(ctx, dir, f, options...)
	}
	return b.top(ctx, objstore.IterParams{Recursive: objstore.ApplyIterOptions(options...).Recursive},
		func(o objstore.IterObjectAttributes) error { return f(o.Name) })
}

func (b *fileBucket) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	if strings.Trim(dir, objstore.DirDelim) != "" {
		return b.Bucket.IterWithAttributes(ctx, dir, f, options...)
	}
	if err := objstore.ValidateIterOptions(b.SupportedIterOptions(), options...); err != nil {
		return err
	}
	return b.top(ctx, objstore.ApplyIterOptions(options...), f)
}

// top lists the top of the bucket, and with Recursive what is below it.
func (b *fileBucket) top(ctx context.Context, p objstore.IterParams, f func(objstore.IterObjectAttributes) error) error {
	below := []objstore.IterOption{objstore.WithRecursiveIter()}
	if p.LastModified {
		below = append(below, objstore.WithUpdatedAt())
	}
	return b.Bucket.Iter(ctx, "", func(name string) error {
		if b.isLinkedFolder(name) {
			name += objstore.DirDelim
		}
		if p.Recursive && strings.HasSuffix(name, objstore.DirDelim) {
			return b.Bucket.IterWithAttributes(ctx, name, f, below...)
		}
		o := objstore.IterObjectAttributes{Name: name}
		if p.LastModified {
			info, err := os.Stat(b.path(name))
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a link to nothing, or deleted meanwhile
			} else if err != nil {
				return err
			}
			o.SetLastModified(info.ModTime())
		}
		return f(o)
	})
}

// noObject returns an error that IsObjNotFoundErr knows, if there is a folder in the place of the
// object, or a file in the place of one of its folders.
func (b *fileBucket) noObject(name string) error {
	info, err := os.Stat(b.path(name))
	if errors.Is(err, syscall.ENOTDIR) || err == nil && info.IsDir() {
		return &fs.PathError{Op: "read object", Path: b.path(name), Err: fs.ErrNotExist}
	}
	return nil
}

func (b *fileBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := b.noObject(name); err != nil {
		return nil, err
	}
	return b.Bucket.Get(ctx, name)
}

func (b *fileBucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if err := b.noObject(name); err != nil {
		return nil, err
	}
	return b.Bucket.GetRange(ctx, name, off, length)
}

func (b *fileBucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if err := b.noObject(name); err != nil {
		return objstore.ObjectAttributes{}, err
	}
	return b.Bucket.Attributes(ctx, name)
}
