package block

import (
	"context"
	"fmt"
	"slices"
)

// symbolSource resolves the symbols of a block: *indexheader.Header. The references are ascending and distinct, and s is valid only
// until f returns.
type symbolSource interface {
	Symbols(ctx context.Context, refs []uint32, f func(i int, s []byte) error) error
}

// symbolOverhead is what the table takes for a symbol besides its bytes.
const symbolOverhead = 32

// symbols is the symbol table of one stream: the symbols that its segments have used so far, each resolved once. A symbol is known
// by its slot, a small number that is valid until reset. Lookups are on the path of every label of every series, hence the
// open-addressing table over plain integers.
type symbols struct {
	table []uint32 // slot+1 by hash of the reference; the length is a power of two
	refs  []uint32 // by slot
	off   []uint32 // by slot: where the symbol begins in arena
	size  []uint32 // by slot
	names []nameClass
	arena []byte

	// most bounds the bytes that the table keeps from one segment to the next. Beyond it the table starts afresh: a query over
	// millions of unique values must not end up holding all of them.
	most int64

	missing []uint32 // slots not resolved yet
	order   []uint32 // scratch of resolve: the references of missing, ascending
}

// nameClass says what a symbol means as a label name of this stream: nameUnknown until it is first used as one, nameDropped if the
// final labels do not take it from the block, else the number of external labels whose names sort before it.
type nameClass int32

const (
	nameUnknown nameClass = -1
	nameDropped nameClass = -2
)

func (t *symbols) reset() {
	clear(t.table)
	t.refs, t.off, t.size, t.names = t.refs[:0], t.off[:0], t.size[:0], t.names[:0]
	t.arena, t.missing = t.arena[:0], t.missing[:0]
}

// full reports whether the table has outgrown what it may keep between segments.
func (t *symbols) full() bool {
	return int64(len(t.arena))+symbolOverhead*int64(len(t.refs)) > t.most
}

func hashSymbol(ref uint32) uint32 { return ref * 2654435769 }

// slot returns the slot of the symbol ref, adding it as missing if it is new.
func (t *symbols) slot(ref uint32) uint32 {
	if len(t.refs)*2 >= len(t.table) {
		t.grow()
	}
	mask := uint32(len(t.table) - 1)
	for h := hashSymbol(ref) >> 7 & mask; ; h = (h + 1) & mask {
		s := t.table[h]
		if s == 0 {
			s = uint32(len(t.refs))
			t.table[h] = s + 1
			t.refs = append(t.refs, ref)
			t.off = append(t.off, 0)
			t.size = append(t.size, 0)
			t.names = append(t.names, nameUnknown)
			t.missing = append(t.missing, s)
			return s
		}
		if t.refs[s-1] == ref {
			return s - 1
		}
	}
}

func (t *symbols) grow() {
	t.table = make([]uint32, max(64, 4*len(t.table)))
	mask := uint32(len(t.table) - 1)
	for s, ref := range t.refs {
		h := hashSymbol(ref) >> 7 & mask
		for t.table[h] != 0 {
			h = (h + 1) & mask
		}
		t.table[h] = uint32(s) + 1
	}
}

// resolve looks up all missing symbols in one ascending pass over the header.
func (t *symbols) resolve(ctx context.Context, src symbolSource) error {
	if len(t.missing) == 0 {
		return nil
	}
	slices.SortFunc(t.missing, func(a, b uint32) int {
		if t.refs[a] < t.refs[b] {
			return -1
		}
		return 1
	})
	t.order = t.order[:0]
	for _, s := range t.missing {
		t.order = append(t.order, t.refs[s])
	}
	err := src.Symbols(ctx, t.order, func(i int, b []byte) error {
		if len(t.arena)+len(b) > 1<<32-1 {
			return fmt.Errorf("symbols of one segment exceed 4 GiB")
		}
		s := t.missing[i]
		t.off[s], t.size[s] = uint32(len(t.arena)), uint32(len(b))
		t.arena = append(t.arena, b...)
		return nil
	})
	if err != nil {
		return err
	}
	t.missing = t.missing[:0]
	return nil
}

// at returns the symbol in slot s. It aliases the table and is valid until the next slot is resolved.
func (t *symbols) at(s uint32) []byte {
	return t.arena[t.off[s]:][:t.size[s]:t.size[s]]
}
