package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"larder/internal/localfs"
)

// lockName is the file whose lock reserves a directory for one process.
const lockName = "lock"

// lockAttempts bounds how often a lock file is locked that is removed meanwhile.
const lockAttempts = 3

// ErrInUse is in the chain of the error for a directory that another process has locked.
var ErrInUse = errors.New("in use by another process")

// Dir is a directory. Its methods may be called from any goroutine.
type Dir struct {
	at localfs.Dir

	usable atomic.Bool // err was nil when mu was last released

	mu       sync.Mutex   // guards following
	log      *slog.Logger // nil before Report
	lockFile *os.File     // nil while this process does not have the lock
	err      error        // of the last attempt to lock
	logged   string       // the last error that was logged, "" if the directory was usable
	closed   bool
}

// Open creates the directory if it is missing and locks it. It returns ErrInUse if another process
// has the lock. After any other failure it returns a Dir that is not usable yet; Lock tries again.
// It logs nothing, see Report.
func Open(at localfs.Dir) (*Dir, error) {
	d := &Dir{at: at}
	if d.err = d.acquire(); errors.Is(d.err, ErrInUse) {
		return nil, d.err
	}
	d.usable.Store(d.err == nil)
	return d, nil
}

// At returns where the directory is.
func (d *Dir) At() localfs.Dir { return d.at }

// Report logs now whether the directory is unusable, and from now on every change of that.
func (d *Dir) Report(log *slog.Logger) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = log
	d.logChange()
}

// Usable reports whether the last attempt to lock the directory succeeded. It does not access the
// disk and never waits for it.
func (d *Dir) Usable() bool { return d.usable.Load() }

// Lock ensures that the directory exists and that this process has its lock. Call it before every
// write into the directory. A write can still fail after it.
func (d *Dir) Lock() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fs.ErrClosed
	}
	d.err = d.ensureLocked()
	d.usable.Store(d.err == nil)
	d.logChange()
	return d.err
}

// ensureLocked acquires the lock unless this process has it. mu must be held.
func (d *Dir) ensureLocked() error {
	if d.lockFile != nil {
		there, err := d.inPlace()
		if there || err != nil {
			return err
		}
		_ = d.lockFile.Close() // of a file that was removed
		d.lockFile = nil
	}
	return d.acquire()
}

// logChange logs the state of the directory if it differs from the last one logged. mu must be
// held.
func (d *Dir) logChange() {
	text := ""
	if d.err != nil {
		text = d.err.Error()
	}
	switch {
	case text == d.logged || d.log == nil:
		return
	case text == "":
		d.log.Info("data directory is usable again", "dir", d.at.String())
	default:
		d.log.Warn("data directory is not usable, writing nothing to disk until it is",
			"dir", d.at.String(), "err", d.err)
	}
	d.logged = text
}

// inPlace reports whether the lock file is still the one that other processes would open.
func (d *Dir) inPlace() (bool, error) {
	own, err := d.lockFile.Stat()
	if err != nil {
		return false, err
	}
	found, err := d.at.Lstat(lockName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	return err == nil && os.SameFile(own, found), err
}

// acquire creates the directory and locks it. mu must be held, unless no other goroutine has d yet.
func (d *Dir) acquire() error {
	for range lockAttempts {
		file, err := openLock(d.at)
		if err != nil {
			return err
		}
		if err := flock(file); err != nil {
			_ = file.Close() // nothing was written
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return fmt.Errorf("%w (%s is locked)", ErrInUse, file.Name())
			}
			return fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		d.lockFile = file
		// If the file was removed before it was locked, the next process would lock another one.
		if there, err := d.inPlace(); there && err == nil {
			return nil
		}
		_ = file.Close() // nothing was written
		d.lockFile = nil
	}
	return fmt.Errorf("lock %s: another process keeps removing it", d.at.Path(lockName))
}

// openLock creates the directory durably and opens its lock file.
func openLock(dir localfs.Dir) (*os.File, error) {
	if err := dir.Make(); err != nil {
		return nil, err
	}
	lock, err := dir.OpenOrCreate(lockName)
	if err != nil {
		// A disk that became read-only still has the file, and locking it works.
		if old, readErr := dir.Open(lockName); readErr == nil {
			return old, nil
		}
	}
	return lock, err
}

// flock locks an open file without waiting. It repeats calls that a signal of the Go runtime
// interrupted, which happens on slow disks.
func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// Close releases the lock. Later calls of Lock fail.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.lockFile == nil {
		return nil
	}
	err := d.lockFile.Close()
	d.lockFile = nil
	return err
}
