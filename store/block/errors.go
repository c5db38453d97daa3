package block

import (
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"

	"larder/internal/bucket/retry"
	"larder/internal/pagecache"
	"larder/internal/tsdbfmt"
)

// Error names the block of an error. Every error of the package about a block's data is or wraps
// one.
type Error struct {
	ID      ulid.ULID
	Content uint64 // version of the block's contents
	Err     error
}

func (e *Error) Error() string { return fmt.Sprintf("block %s: %v", e.ID, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Fault marks an error of the bucket. A gRPC status in such an error comes from the client of the
// object store, and is not the outcome of the request.
type Fault struct{ Err error }

func (e *Fault) Error() string { return e.Err.Error() }

func (e *Fault) Unwrap() error { return e.Err }

func fault(err error) error {
	if err == nil {
		return nil
	}
	return &Fault{Err: err}
}

// corrupt reports whether err says that bytes of a block do not verify.
func corrupt(err error) bool {
	return errors.Is(err, tsdbfmt.ErrChecksum) || errors.Is(err, tsdbfmt.ErrCorrupt)
}

// Corrupt reports whether err says that bytes of a block do not verify.
func Corrupt(err error) bool { return corrupt(err) }

// wrap names the block in err.
func (b *Block) wrap(err error) error {
	return &Error{ID: b.meta.ID, Content: b.meta.Content, Err: err}
}

// Doubtful reports whether an error may come from a file that has changed: it has another size, or
// was repaired in place.
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

// everyones reports whether all requests that read the same bytes get the same error: a fault of
// the bucket after its retries, or damaged bytes. Other errors, like limits, belong to one request.
// So does a panic, because it may not happen again.
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
