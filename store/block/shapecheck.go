package block

import (
	"context"

	"larder/internal/tsdbfmt"
	"larder/store/indexheader"
)

// ShapeCheck finds out whether a block is irregular, from all its series in the order of the index.
// It belongs to one goroutine.
type ShapeCheck struct {
	ordered  bool
	empty    uint32 // reference of the empty symbol
	hasEmpty bool
	prev     []uint32
	refs     []uint32
	begun    bool
}

// NewShapeCheck returns a check of a block, and what is irregular about it by its header, "" for
// nothing.
func NewShapeCheck(
	ctx context.Context, h *indexheader.Header,
) (c *ShapeCheck, what string, err error) {
	c = &ShapeCheck{ordered: h.SymbolsAscend()}
	if !c.ordered {
		return c, symbolsDisordered, nil
	}
	if h.SymbolCount() > 0 { // the empty symbol comes first
		first := uint32(0)
		if h.IndexVersion() == 1 {
			first = uint32(h.TOC().Symbols) + symbolTableHead
		}
		err = h.Symbols(ctx, []uint32{first}, func(_ int, s []byte) error {
			c.empty, c.hasEmpty = first, len(s) == 0
			return nil
		})
	}
	return c, "", err
}

// symbolTableHead is the size of the fields before the first symbol of a table: length and count.
const symbolTableHead = 8

// Add checks the next series, of which content is the content of the entry. It returns what is
// irregular, "" for nothing. An error says that the entry is corrupt.
func (c *ShapeCheck) Add(content []byte) (what string, err error) {
	c.prev, c.refs = c.refs, c.prev[:0]
	if c.refs, _, err = tsdbfmt.AppendSeriesLabels(c.refs, content); err != nil {
		return "", err
	}
	if what = shapeOf(c.prev, c.refs, !c.begun, c.ordered); what != "" {
		return what, nil
	}
	c.begun = true
	for i := 1; c.hasEmpty && i < len(c.refs); i += 2 {
		if c.refs[i] == c.empty {
			return emptyValue, nil
		}
	}
	return "", nil
}
