package block

import (
	"fmt"

	"github.com/oklog/ulid/v2"

	"larder/store/indexheader"
)

// Irregulars remembers irregular blocks: *irregular.Blocks.
type Irregulars interface {
	// What returns why the block with this content is irregular, and false if it is not known to
	// be.
	What(id ulid.ULID, content uint64) (string, bool)
	// Note remembers that the block with this content is irregular.
	Note(id ulid.ULID, content uint64, what string)
}

// Irregularities, which no checksum covers.
const (
	symbolsDisordered = "symbols out of order"
	labelsDisordered  = "label names out of order or repeated"
	emptyValue        = "a label without a value"
	seriesDisordered  = "series out of order or repeated"
	nameUnlisted      = "a label name without postings"
)

// IrregularError is returned by a stream that finds its block irregular. From then on the block is
// planned as irregular, therefore the same request succeeds if it is planned again. If it has sent
// segments already, it fails, because they may be out of order with the rest.
type IrregularError struct{ What string }

func (e *IrregularError) Error() string {
	return fmt.Sprintf(
		"the block is irregular: %s (repeat the request: from now on the block is sorted in memory)",
		e.What,
	)
}

// irregularBy reports whether the block is known to be irregular, or is by its header.
func (b *Block) irregularBy(h *indexheader.Header) bool {
	if !b.irregular.Load() && !h.SymbolsAscend() {
		b.noteIrregular(symbolsDisordered)
	}
	return b.irregular.Load()
}

// Reshaped returns an IrregularError if the block was found irregular after a request read its
// series in index order. The request has sent them in that order, so that series which sort before
// the last one would be missing from the answer.
func (b *Block) Reshaped() error {
	if !b.irregular.Load() {
		return nil
	}
	return b.wrap(&IrregularError{What: "its order changed while an answer was sent"})
}

// noteIrregular remembers that the block is irregular.
func (b *Block) noteIrregular(what string) {
	if !b.irregular.Swap(true) && b.deps.Irregular != nil {
		b.deps.Irregular.Note(b.meta.ID, b.meta.Content, what)
	}
}

// irregular notes that the block is irregular, because of the entry at off. It returns the error
// that ends the stream.
func (s *Stream) irregular(off int64, what string) error {
	s.plan.block.noteIrregular(what)
	return s.entryError(off, &IrregularError{What: what})
}
