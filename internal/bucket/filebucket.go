package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/thanos-io/objstore"
)

// fileBucket is a bucket of type FILESYSTEM. It differs from the client of that type in four ways.
//
// A folder of the bucket may be a symbolic link, which the client takes for a file; Thanos serves
// blocks that are. Links are followed at the top only. A link deeper down may lead back up, without
// end.
//
// A folder in the place of an object is a missing object, as it is in every other type of bucket.
//
// Nothing but regular files, and links to them, are objects. INVARIANT: no named pipe, socket or
// device is ever opened such that the call could wait. The open of a pipe waits for a writer and
// keeps a thread of the process until one comes, although its caller has given up.
//
// Every call that may wait for the disk has one of a number of places, see filePlaces.
type fileBucket struct {
	objstore.Bucket
	root   string // the folder that holds the blocks, prefix included
	places *filePlaces
}

// withFiles wraps the client of a FILESYSTEM bucket. It returns clients of other types unchanged.
func withFiles(b objstore.Bucket, conf *Config) objstore.Bucket {
	inner, ok := conf.Config.(map[any]any)
	if !ok || !strings.EqualFold(string(conf.Type), string(objstore.FILESYSTEM)) {
		return b
	}
	dir, ok := inner["directory"].(string)
	if !ok {
		return b
	}
	root := filepath.Join(dir, filepath.FromSlash(conf.Prefix))
	return &fileBucket{Bucket: b, root: root, places: newFilePlaces(root, maxFileCalls)}
}

func (b *fileBucket) path(name string) string {
	return filepath.Join(b.root, filepath.FromSlash(name))
}

// kindOf names what is in the place of an object: "" for a regular file.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return ""
	case mode.IsDir():
		return "folder"
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// noFile returns the error of an object that is no regular file. It is that of a missing object,
// because only files are objects.
func noFile(name string, mode fs.FileMode) error {
	return fmt.Errorf(
		"read %s: a %s is in its place, which is no object (remove it from the bucket): %w",
		name, kindOf(mode), fs.ErrNotExist)
}

// IsObjNotFoundErr reports whether an error says that there is no such object.
func (b *fileBucket) IsObjNotFoundErr(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// stat returns what is known of the file of an object.
func (b *fileBucket) stat(name string) (fs.FileInfo, error) {
	info, err := os.Stat(b.path(name))
	switch {
	case errors.Is(err, syscall.ENOTDIR): // a file is in the place of one of its folders
		return nil, &fs.PathError{Op: "read object", Path: b.path(name), Err: fs.ErrNotExist}
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, noFile(name, info.Mode())
	}
	return info, nil
}

// open opens the file of an object for reading.
func (b *fileBucket) open(name string) (*os.File, fs.FileInfo, error) {
	// Some devices do something when they are opened. So what is known to be one is not.
	if _, err := b.stat(name); err != nil {
		return nil, nil, err
	}
	return openRegular(name, b.path(name))
}

// openRegular opens a regular file. It does not wait if there is a pipe in its place by now, and
// reads nothing but the regular file that it has opened.
func openRegular(name, path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = noFile(name, info.Mode())
	default:
		err = waitInReads(f)
	}
	if err != nil {
		_ = f.Close() // nothing was read or written
		return nil, nil, err
	}
	return f, info, nil
}

// waitInReads ends the effect that not waiting in the open has on reads. It has none on local file
// systems; what others make of it is not defined.
func waitInReads(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = conn.Control(func(fd uintptr) { set = syscall.SetNonblock(int(fd), false) })
	return errors.Join(err, set)
}

// Get reads an object. The body must be closed.
func (b *fileBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.GetRange(ctx, name, 0, -1)
}

// GetRange reads a range, length -1 being all that follows off. The body must be closed.
func (b *fileBucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	body := &fileBody{ctx: ctx, name: name, places: b.places}
	size := int64(0)
	err := b.places.do(ctx, "read", name, func() error {
		f, info, err := b.open(name)
		if err != nil {
			return err
		}
		if off > 0 {
			if _, err := f.Seek(off, io.SeekStart); err != nil {
				return errors.Join(err, f.Close())
			}
		}
		body.f, size = f, max(info.Size()-max(off, 0), 0)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if length < 0 {
		length = math.MaxInt64
	}
	body.r = io.LimitReader(body.f, length)
	return objstore.ObjectSizerReadCloser{
		ReadCloser: body,
		Size:       func() (int64, error) { return min(length, size), nil },
	}, nil
}

// fileBody is a range of a file. It belongs to one goroutine.
type fileBody struct {
	ctx    context.Context // of the read: as with other buckets, a body ends with it
	name   string
	places *filePlaces
	f      *os.File
	r      io.Reader
}

func (b *fileBody) Read(p []byte) (n int, err error) {
	err = b.places.do(b.ctx, "read", b.name, func() (err error) {
		n, err = b.r.Read(p)
		return err
	})
	return n, err
}

func (b *fileBody) Close() error { return b.f.Close() }

// Attributes returns an object's size and time.
func (b *fileBucket) Attributes(
	ctx context.Context, name string,
) (a objstore.ObjectAttributes, err error) {
	err = b.places.do(ctx, "look at", name, func() error {
		info, err := b.stat(name)
		if err == nil {
			a = objstore.ObjectAttributes{Size: info.Size(), LastModified: info.ModTime()}
		}
		return err
	})
	return a, err
}

// Exists reports whether there is such an object.
func (b *fileBucket) Exists(ctx context.Context, name string) (bool, error) {
	_, err := b.Attributes(ctx, name)
	if b.IsObjNotFoundErr(err) {
		return false, nil
	}
	return err == nil, err
}

// Upload writes an object. It writes into a regular file or makes one, and follows no link that has
// the object's name: it could lead out of the bucket.
func (b *fileBucket) Upload(ctx context.Context, name string, r io.Reader,
	_ ...objstore.ObjectUploadOption) error {
	return b.places.do(ctx, "write", name, func() (err error) {
		path := b.path(name)
		if err := os.MkdirAll(filepath.Dir(path), os.ModePerm); err != nil {
			return err
		}
		flags := os.O_WRONLY | os.O_CREATE | syscall.O_NONBLOCK | syscall.O_NOFOLLOW
		f, err := os.OpenFile(path, flags, 0o666)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if kind := kindOf(info.Mode()); kind != "" {
			return fmt.Errorf("write %s: a %s is in its place (remove it from the bucket)",
				name, kind)
		}
		if err := f.Truncate(0); err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return err
	})
}
