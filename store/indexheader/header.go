package indexheader

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"larder/internal/tsdbfmt"
)

// Header answers questions about a block's index without its postings and series. It is safe for
// concurrent use until it is released.
//
// A look-up that finds damage drops the header file, builds the header again from the bucket and
// continues. If that fails it returns an error, and the next look-up tries again.
type Header struct {
	m   *Manager
	e   *entry
	cur atomic.Pointer[reader]

	retired []*reader // guarded by m.mu: damaged readers that look-ups may still use
}

// IndexVersion returns the format version of the block's index: 1, 2 or 3.
func (h *Header) IndexVersion() int { return h.cur.Load().toc.Version }

// IndexSize returns the size of the block's index in bytes.
func (h *Header) IndexSize() int64 { return h.cur.Load().indexSize }

// TOC returns the index's table of contents.
func (h *Header) TOC() tsdbfmt.TOC { return h.cur.Load().toc }

// SymbolCount returns the number of symbols of the block.
func (h *Header) SymbolCount() int64 { return h.cur.Load().footer.symbols }

// FileBytes returns the size of the header's file in bytes.
func (h *Header) FileBytes() int64 { return h.cur.Load().footer.size }

// OpenBytes returns the memory in bytes that the header needs while it is open and has a file.
func (h *Header) OpenBytes() int64 {
	r := h.cur.Load()
	n := r.heap - r.st.heap()
	if r.slots == nil && r.look.cache != nil {
		n += slotBytes * int64(r.blocks()) // the header was just built, and is still in memory
	}
	return n
}

// SymbolsAscend reports whether every symbol of the index is larger than the one before. References
// then have the order of their symbols.
func (h *Header) SymbolsAscend() bool { return h.cur.Load().disorder == symbolsAscend }

// LabelNames returns the label names of the block's series, sorted. The caller must not change the
// slice.
func (h *Header) LabelNames() []string { return h.cur.Load().visible }

// ValueCount returns the number of values of a label name in the block, 0 if it has none.
func (h *Header) ValueCount(name string) int {
	r := h.cur.Load()
	i := r.nameIndex(name)
	if i < 0 {
		return 0
	}
	return int(r.counts[i])
}

// AllPostings returns the list of all series, the zero List if the index has none.
func (h *Header) AllPostings() List { return h.cur.Load().all }

// Lists appends to dst a List for each of values, which must be sorted and distinct. It is the zero
// List for a value that the block does not have.
func (h *Header) Lists(
	ctx context.Context, name string, values []string, dst []List,
) ([]List, error) {
	r := h.cur.Load()
	n := r.nameIndex(name)
	if n < 0 {
		for range values {
			dst = append(dst, List{})
		}
		return dst, nil
	}
	start := len(dst)
	for try := 0; ; try++ {
		var err error
		if dst, err = r.listsOf(ctx, n, values[len(dst)-start:], dst); err == nil {
			return dst, nil
		}
		if r, err = h.heal(ctx, r, err, try); err != nil {
			return dst, err
		}
	}
}

// Values calls f for the values of a label name in order, starting with the first value that is not
// less than from, until f returns false or an error. value is valid until f returns.
func (h *Header) Values(
	ctx context.Context, name, from string, f func(value []byte, l List) (more bool, err error),
) error {
	r := h.cur.Load()
	n := r.nameIndex(name)
	if n < 0 {
		return nil
	}
	var p progress
	for try := 0; ; try++ {
		err := r.valuesOf(ctx, n, from, &p, f)
		if err == nil {
			return nil
		}
		if r, err = h.heal(ctx, r, err, try); err != nil {
			return err
		}
	}
}

// AppendStrings appends the values of a label name to dst, in order, as storepb.AppendString writes
// them. grow returns dst with space for at least n bytes more; its error ends the look-up. The
// result is complete only without an error.
func (h *Header) AppendStrings(
	ctx context.Context, name string, dst []byte,
	grow func(dst []byte, n int) ([]byte, error),
) ([]byte, error) {
	r := h.cur.Load()
	n := r.nameIndex(name)
	if n < 0 {
		return dst, nil
	}
	var after []byte // the last value that was appended; nil: none
	for try := 0; ; try++ {
		var err error
		if dst, after, err = r.appendStrings(ctx, n, after, dst, grow); err == nil {
			return dst, nil
		}
		if r, err = h.heal(ctx, r, err, try); err != nil {
			return dst, err
		}
	}
}

// Symbols calls f with the symbol of each of refs, which must be ascending and distinct. They are
// numbers in the symbol table or, in index format V1, byte offsets in the index. s is valid until f
// returns. An unknown reference is an error.
func (h *Header) Symbols(ctx context.Context, refs []uint32, f func(i int, s []byte) error) error {
	r := h.cur.Load()
	i := 0
	for try := 0; ; try++ {
		var err error
		if i, err = r.symbols(ctx, refs, i, f); err == nil {
			return nil
		}
		if r, err = h.heal(ctx, r, err, try); err != nil {
			return err
		}
	}
}

// maxRebuilds is how many times one look-up rebuilds its header before it fails. More does not help
// with a disk that damages every file.
const maxRebuilds = 2

// heal returns a reader to continue with if err is damage found by r, and otherwise the error.
// Readers of one header differ only in damage, so a look-up may combine their answers.
func (h *Header) heal(ctx context.Context, r *reader, err error, try int) (*reader, error) {
	var d *damageError
	if !errors.As(err, &d) || d.r != r {
		return nil, err
	}
	if try >= maxRebuilds {
		return nil, fmt.Errorf("the header was just rebuilt: %w", err)
	}
	// After a read error, or the second damaged file in a row, the header is built in memory.
	if rerr := h.m.rebuild(ctx, h, r, d, try > 0 || d.unread()); rerr != nil {
		return nil, fmt.Errorf("%w; rebuild: %w", err, rerr)
	}
	return h.cur.Load(), nil
}
