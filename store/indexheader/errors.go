package indexheader

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/oklog/ulid/v2"
)

// Errors of Manager.Acquire, and of a look-up that had to rebuild its header.
var (
	// ErrNotFound is returned if the bucket does not have the block's index.
	ErrNotFound = errors.New("the bucket has no such index")
	// ErrReplaced is returned for a block whose contents have been replaced since.
	ErrReplaced = errors.New("the block was replaced by another of its name")
	// ErrClosed is returned after Manager.Close.
	ErrClosed = errors.New("the index headers are closed")
)

// errStale is returned by open for a complete file that is another header than the requested one:
// of another format version, another block, other contents, or an index of another size. It is
// rebuilt.
var errStale = errors.New("not the requested header")

// damageError says that a header has other bytes than were written. It is not returned to callers
// while the bucket can be read: the header is rebuilt and the look-up continues.
type damageError struct {
	r    *reader // nil while opening
	id   ulid.ULID
	what string
	off  int64
	err  error
}

func (e *damageError) Error() string {
	return fmt.Sprintf("index header of block %s: %s at byte %d: %v", e.id, e.what, e.off, e.err)
}

func (e *damageError) Unwrap() error { return e.err }

// unread reports whether the bytes could not be read.
func (e *damageError) unread() bool {
	var p *fs.PathError
	return errors.As(e.err, &p)
}

// localError is a failure of the local disk while a header is written: full, read-only, removed. It
// does not fail a query, because the header is built in memory instead.
type localError struct{ err error }

func (e *localError) Error() string { return "write index header: " + e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

var (
	errChecksum = errors.New("checksum mismatch")
	errCorrupt  = errors.New("impossible content")
)
