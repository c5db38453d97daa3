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

// lockName is the file whose lock holds a directory.
const lockName = "lock"

// relocks is how often Hold tries again where the lock file is removed as it is
// being taken.
const relocks = 3

// ErrInUse is in the chain of the error of a directory that another process
// holds.
var ErrInUse = errors.New("in use by another process")

// Dir is a directory. Its methods may be called from any goroutine.
type Dir struct {
	at localfs.Dir

	usable atomic.Bool // err was nil when mu was last released

	mu     sync.Mutex   // guards following
	log    *slog.Logger // nil before Report
	lock   *os.File     // nil while the directory is not held
	err    error        // of the last look
	said   string       // the text of the last error that was logged, "" if all was well
	closed bool
}

// Open returns the directory, which it makes and holds if it can. Its error is
// that another process does: ErrInUse. It logs nothing, see Report.
func Open(at localfs.Dir) (*Dir, error) {
	d := &Dir{at: at}
	if d.err = d.take(); errors.Is(d.err, ErrInUse) {
		return nil, d.err
	}
	d.usable.Store(d.err == nil)
	return d, nil
}

// At returns where the directory is.
func (d *Dir) At() localfs.Dir { return d.at }

// Report has the directory's loss and return logged from now on, and its state
// now if it is not held.
func (d *Dir) Report(log *slog.Logger) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = log
	d.say()
}

// Usable reports whether the directory was held when it was last looked at. It
// does not look, so it never waits for a disk.
func (d *Dir) Usable() bool { return d.usable.Load() }

// Hold makes sure that the directory is there and this process's. It is called
// before something is written into it; without an error that may still fail.
func (d *Dir) Hold() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fs.ErrClosed
	}
	d.err = d.hold()
	d.usable.Store(d.err == nil)
	d.say()
	return d.err
}

// hold is Hold. mu is held.
func (d *Dir) hold() error {
	if d.lock != nil {
		there, err := d.inPlace()
		if there || err != nil {
			return err
		}
		_ = d.lock.Close() // of a file that was removed
		d.lock = nil
	}
	return d.take()
}

// say logs what has changed since it last did. mu is held.
func (d *Dir) say() {
	text := ""
	if d.err != nil {
		text = d.err.Error()
	}
	switch {
	case text == d.said || d.log == nil:
		return
	case text == "":
		d.log.Info("the data directory can be used again", "dir", d.at.String())
	default:
		d.log.Warn(
			"the data directory cannot be used: nothing is kept on disk until it can", "dir",
			d.at.String(), "err", d.err,
		)
	}
	d.said = text
}

// inPlace reports whether the lock that is held is that of the file that others
// would find.
func (d *Dir) inPlace() (bool, error) {
	held, err := d.lock.Stat()
	if err != nil {
		return false, err
	}
	found, err := d.at.Lstat(lockName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	return err == nil && os.SameFile(held, found), err
}

// take makes the directory and takes its lock. mu is held, or nobody else has d.
func (d *Dir) take() error {
	for range relocks {
		lock, err := openLock(d.at)
		if err != nil {
			return err
		}
		if err := flock(lock); err != nil {
			_ = lock.Close() // nothing was written
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return fmt.Errorf("%w (%s is locked)", ErrInUse, lock.Name())
			}
			return fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
		d.lock = lock
		// It may have been removed before it was locked; then the next process would lock another.
		if there, err := d.inPlace(); there && err == nil {
			return nil
		}
		_ = lock.Close() // nothing was written
		d.lock = nil
	}
	return fmt.Errorf("%s is removed again and again", d.at.Path(lockName))
}

// openLock makes the directory, for good, and opens the file in it.
func openLock(dir localfs.Dir) (*os.File, error) {
	if err := dir.Make(); err != nil {
		return nil, err
	}
	lock, err := dir.OpenOrCreate(lockName)
	if err != nil {
		// A disk that became read-only has a file, whose lock keeps others out as well.
		if old, readErr := dir.Open(lockName); readErr == nil {
			return old, nil
		}
	}
	return lock, err
}

// flock takes the lock of an open file without waiting. A signal of the Go
// runtime may interrupt a call that a slow disk holds up.
func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// Close lets another process have the directory.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.lock == nil {
		return nil
	}
	err := d.lock.Close()
	d.lock = nil
	return err
}
