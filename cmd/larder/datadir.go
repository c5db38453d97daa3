package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// dataDir is the part of --data-dir that is larder's: <data-dir>/larder, held by one process at a time. (Thanos removes block
// folders that it does not know, so nothing is put next to them.)
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir makes the directory and takes its lock. The lock ends with the process, however that ends; its file stays.
func openDataDir(dir string) (*dataDir, error) {
	d := &dataDir{path: filepath.Join(dir, "larder")}
	if err := os.MkdirAll(d.path, 0o755); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	name := filepath.Join(d.path, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("--data-dir %s is in use by another larder process (%s is locked)", dir, name)
		}
		return nil, fmt.Errorf("--data-dir: lock %s: %w", name, err)
	}
	d.lock = f
	return d, nil
}

// Close lets another process have the directory.
func (d *dataDir) Close() error { return d.lock.Close() }
