package block

import (
	"fmt"

	"github.com/oklog/ulid/v2"
)

// Error says which block an error is about. Every error that the package returns about a block's data is one, or wraps one.
type Error struct {
	ID  ulid.ULID
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("block %s: %v", e.ID, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// wrap names the block in err.
func (b *Block) wrap(err error) error { return &Error{ID: b.meta.ID, Err: err} }
