package block

import (
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"

	"larder/internal/bucket/retry"
	"larder/internal/pagecache"
	"larder/internal/tsdbfmt"
)

// Error says which block an error is about. Every error that the package returns about a block's
// data is one, or wraps one.
type Error struct {
	ID      ulid.ULID
	Content uint64 // of the block that was read
	Err     error
}

func (e *Error) Error() string { return fmt.Sprintf("block %s: %v", e.ID, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Fault marks an error of the bucket. Whatever status such an error carries is the bucket's (a
// client of an object store may speak gRPC itself), not the outcome of the request.
type Fault struct{ Err error }

func (e *Fault) Error() string { return e.Err.Error() }

func (e *Fault) Unwrap() error { return e.Err }

func fault(err error) error {
	if err == nil {
		return nil
	}
	return &Fault{Err: err}
}

// corrupt reports whether err says that bytes of a block are not what they should be.
func corrupt(err error) bool {
	return errors.Is(err, tsdbfmt.ErrChecksum) || errors.Is(err, tsdbfmt.ErrCorrupt)
}

// Corrupt reports whether err says that bytes of a block do not verify.
func Corrupt(err error) bool { return corrupt(err) }

// wrap names the block in err.
func (b *Block) wrap(err error) error {
	return &Error{ID: b.meta.ID, Content: b.meta.Content, Err: err}
}

// Doubtful reports whether an error about a block's data may come from a file that is not what it
// was known to be: of another size, or repaired in place.
func Doubtful(err error) bool {
	var (
		short   *pagecache.ShortObjectError
		long    *pagecache.LongBodyError
		changed *pagecache.ChangedError
		span    *pagecache.SpanError
	)
	return corrupt(err) || errors.As(err, &short) || errors.As(err, &long) ||
		errors.As(err, &changed) ||
		errors.As(err, &span) ||
		retry.Unsatisfiable(err)
}

// everyones reports whether whoever reads the same of a block meets the same error: a fault of the
// bucket, which was asked again where that helps, or bytes that are damaged there. What is left is
// the request's own, as a limit is; so is a panic, which need not strike twice.
func everyones(err error) bool {
	var (
		bucket *Fault
		read   *pagecache.ReadError
		short  *pagecache.ShortObjectError
		long   *pagecache.LongBodyError
	)
	return errors.As(err, &bucket) || errors.As(err, &read) || errors.As(err, &short) ||
		errors.As(err, &long) ||
		corrupt(err)
}
