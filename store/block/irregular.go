package block

import (
	"fmt"

	"github.com/oklog/ulid/v2"

	"larder/store/indexheader"
)

// Irregulars remembers irregular blocks: *irregular.Blocks.
type Irregulars interface {
	// What returns what was found of a block with such content, and false for one that is not known
	// as irregular.
	What(id ulid.ULID, content uint64) (string, bool)
	// Note remembers that a block with such content is irregular.
	Note(id ulid.ULID, content uint64, what string)
}

// What a stream may find that no checksum covers.
const (
	symbolsDisordered = "symbols out of order"
	labelsDisordered  = "label names out of order or repeated"
	emptyValue        = "a label without a value"
	seriesDisordered  = "series out of order or repeated"
	nameUnlisted      = "a label name without postings"
)

// IrregularError is returned by a stream that finds its block irregular. The block is known as such
// when the stream returns it: the same request, planned again, is answered. Segments that were
// returned before may be out of order with what follows, so that a request which has sent some of
// them fails.
type IrregularError struct{ What string }

func (e *IrregularError) Error() string {
	return fmt.Sprintf(
		"the block is irregular: %s (repeat the request: from now on the block is sorted in memory)",
		e.What,
	)
}

// irregularBy reports whether the block is known as irregular, by what was found before or by its
// header.
func (b *Block) irregularBy(h *indexheader.Header) bool {
	if !b.irregular.Load() && !h.SymbolsAscend() {
		b.noteIrregular(symbolsDisordered)
	}
	return b.irregular.Load()
}

// Reshaped returns an IrregularError if the block has been found irregular since a request read its
// series in index order. What the request has sent came in that order: a series that belongs before
// it would be missing from the answer.
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

// irregular notes what was found of the block, at the entry at off, and returns the error that ends
// the stream.
func (s *Stream) irregular(off int64, what string) error {
	s.plan.block.noteIrregular(what)
	return s.entryError(off, &IrregularError{What: what})
}
