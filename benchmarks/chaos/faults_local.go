package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// localFaults are faults of the data directory. No request may fail because of them, because it is
// a cache.
func localFaults() []fault {
	return []fault{
		{name: "headers-damaged", run: damage(headerSuffix)},
		{name: "disk-cache-damaged", run: damage(segmentSuffix)},
		{name: "data-dir-removed", run: func(ctx context.Context, w *world, r *rand.Rand) (int,
			error) {
			return repeat(ctx, r, 2*time.Second, func() error { return removeAll(w.dataDir) })
		}},
		{name: "data-dir-read-only", missing: mounts, run: func(ctx context.Context, w *world,
			r *rand.Rand) (int, error) {
			return repeat(ctx, r, 3*time.Second, func() error { return w.readOnly(ctx, r) })
		}},
		{name: "data-dir-full", missing: mounts, run: func(ctx context.Context, w *world,
			r *rand.Rand) (int, error) {
			return repeat(ctx, r, 3*time.Second, func() error { return w.full(ctx, r) })
		}},
	}
}

// removals is how often a folder is removed before its writer is considered faster.
const removals = 20

// removeAll removes a folder while a process writes into it. New files need another round.
func removeAll(dir string) (err error) {
	for range removals {
		if err = os.RemoveAll(dir); !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
	}
	return err
}

// damage flips bits in the files whose names have a suffix.
func damage(suffix string) func(context.Context, *world, *rand.Rand) (int, error) {
	return func(ctx context.Context, w *world, r *rand.Rand) (int, error) {
		damaged := 0
		_, err := repeat(ctx, r, 100*time.Millisecond, func() error {
			return filepath.WalkDir(w.dataDir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, suffix) {
					return ignoreMissing(err)
				}
				if err := flipBit(path, r); err != nil {
					return ignoreMissing(err)
				}
				damaged++
				return nil
			})
		})
		return damaged, err
	}
}

// The suffixes of the names of index headers, and of files of the disk cache.
const (
	headerSuffix  = ".header"
	segmentSuffix = ".segment"
)

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	}
	return err
}

func flipBit(path string, r *rand.Rand) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	var b [1]byte
	at := r.Int64N(info.Size())
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 1 << r.IntN(8)
	_, err = f.WriteAt(b[:], at)
	return err
}

// mounts returns why mounting is impossible on this machine; "" if it is possible.
func mounts(w *world) string {
	if os.Getuid() != 0 {
		return "needs root, to mount"
	}
	probe := filepath.Join(w.dir, "mount")
	if err := os.MkdirAll(probe, 0o700); err != nil {
		return err.Error()
	}
	if err := syscall.Mount("larder-chaos", probe, "tmpfs", 0, "size=64k"); err != nil {
		return fmt.Sprintf("needs permission to mount: %v", err)
	}
	if err := syscall.Unmount(probe, syscall.MNT_DETACH); err != nil {
		return err.Error()
	}
	return ""
}

// readOnly mounts the data directory, read-only, over itself for a while.
func (w *world) readOnly(ctx context.Context, r *rand.Rand) error {
	if err := os.MkdirAll(w.dataDir, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(w.dataDir, w.dataDir, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	defer w.unmount()
	const readOnly = syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY
	if err := syscall.Mount("", w.dataDir, "", readOnly, ""); err != nil {
		return err
	}
	pause(ctx, time.Second+time.Duration(r.Int64N(int64(3*time.Second))))
	return nil
}

// full mounts a copy of the data directory, on a disk that is almost full, over it for a while.
func (w *world) full(ctx context.Context, r *rand.Rand) error {
	if err := os.MkdirAll(w.dataDir, 0o755); err != nil {
		return err
	}
	keep := filepath.Join(w.dir, "kept")
	defer os.RemoveAll(keep)
	if err := copyTree(w.dataDir, keep); err != nil {
		return err
	}
	if err := syscall.Mount("larder-chaos", w.dataDir, "tmpfs", 0, "size=64m"); err != nil {
		return err
	}
	defer w.unmount()
	if err := copyTree(keep, w.dataDir); err != nil {
		return err
	}
	filler, err := os.Create(filepath.Join(w.dataDir, "filler"))
	if err != nil {
		return err
	}
	defer filler.Close()
	for zeros := make([]byte, 64<<10); ; {
		if _, err := filler.Write(zeros); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			return err
		}
	}
	pause(ctx, time.Second+time.Duration(r.Int64N(int64(3*time.Second))))
	return nil
}

// unmount removes the mount over the data directory.
func (w *world) unmount() { w.problem("unmount", syscall.Unmount(w.dataDir, syscall.MNT_DETACH)) }

// copyTree copies files, without those that are removed meanwhile.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err)
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return ignoreMissing(err)
		}
		return os.WriteFile(target, text, 0o644)
	})
}
