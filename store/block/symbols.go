package block

import (
	"context"
	"slices"
)

// symbolSource resolves the symbols of a block: *indexheader.Header. References are ascending and
// distinct. s is valid only until f returns.
type symbolSource interface {
	Symbols(ctx context.Context, refs []uint32, f func(i int, s []byte) error) error
}

// symbolOverhead is the memory of a symbol in the table besides its bytes.
const symbolOverhead = 32

// symbols is the symbol table of one stream. It has the symbols of its segments so far, each
// resolved once. A symbol is named by its slot, a small number that is valid until reset. Every
// label of every series is looked up, therefore the table uses open addressing over plain integers.
type symbols struct {
	table []uint32 // slot+1 by hash of the reference; the length is a power of two
	refs  []uint32 // by slot
	off   []uint32 // by slot: begin of the symbol in arena
	size  []uint32 // by slot
	names []nameClass
	arena []byte

	// limit is how many bytes the table keeps from one segment to the next. Beyond it the table
	// starts again, because a query over millions of distinct values must not keep all of them.
	// With the symbols of one segment it may have twice as many: see resolve.
	limit int64
	// largest is the size of the largest symbol since reset. empty is one more than the slot of the
	// empty symbol; 0: there is none.
	largest int
	empty   uint32

	missing []uint32 // slots not resolved yet
	order   []uint32 // scratch of resolve: the references of missing, ascending
}

// nameClass says what a symbol means as a label name of this stream: nameUnknown until it is first
// used as one, nameDropped if labels of this name are dropped, otherwise the number of external
// labels whose names sort before it.
type nameClass int32

const (
	nameUnknown nameClass = -1
	nameDropped nameClass = -2
)

func (t *symbols) reset() {
	clear(t.table)
	t.refs, t.off, t.size, t.names = t.refs[:0], t.off[:0], t.size[:0], t.names[:0]
	t.arena, t.missing = t.arena[:0], t.missing[:0]
	t.largest, t.empty = 0, 0
}

// bytes returns the memory of the table.
func (t *symbols) bytes() int64 { return int64(cap(t.arena)) + symbolOverhead*int64(cap(t.refs)) }

// full reports whether the table has more bytes than it may keep between segments.
func (t *symbols) full() bool {
	return int64(len(t.arena))+symbolOverhead*int64(len(t.refs)) > t.limit
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

// resolve looks up all missing symbols in one ascending pass over the header. If fits is false, the
// table has only the sizes of some of them and must be reset.
func (t *symbols) resolve(ctx context.Context, src symbolSource) (fits bool, err error) {
	if len(t.missing) == 0 {
		return true, nil
	}
	limit := max(2*t.limit, int64(cap(t.arena)))
	// Sorting plain references, and looking up their slots again, is several times as fast as
	// sorting slots with a function.
	t.order = t.order[:0]
	for _, s := range t.missing {
		t.order = append(t.order, t.refs[s])
	}
	slices.Sort(t.order)
	fits = true
	err = src.Symbols(ctx, t.order, func(i int, b []byte) error {
		s := t.slot(t.order[i])
		t.off[s], t.size[s] = uint32(len(t.arena)), uint32(len(b))
		if t.largest = max(t.largest, len(b)); len(b) == 0 {
			t.empty = s + 1
		}
		if fits = fits && int64(len(t.arena)+len(b)) <= limit; fits {
			t.arena = append(t.arena, b...)
		}
		return nil
	})
	t.missing = t.missing[:0]
	return fits, err
}

// fitting returns how many series of raw have symbols that fit into limit together, at least
// minimum, and the bytes of their symbols. It loses the places of symbols: the table must be reset.
func (t *symbols) fitting(raw *rawSeries, minimum int) (n int, bytes int64) {
	clear(t.off)
	for i := range raw.len() {
		more := int64(0)
		for _, s := range raw.labels(i) {
			if t.off[s] == 0 {
				t.off[s] = 1
				more += int64(t.size[s])
			}
		}
		if i >= minimum && bytes+more > t.limit {
			return i, bytes
		}
		bytes += more
	}
	return raw.len(), bytes
}

// renew resets the table and adds the symbols of raw, all of them as missing. Its arena has the
// given capacity.
func (t *symbols) renew(raw *rawSeries, bytes int64) {
	for i, slot := range raw.slots {
		raw.slots[i] = t.refs[slot]
	}
	t.reset()
	if int64(cap(t.arena)) < bytes {
		t.arena = make([]byte, 0, bytes)
	}
	for i, ref := range raw.slots {
		raw.slots[i] = t.slot(ref)
	}
}

// at returns the symbol in slot s. It aliases the table and is valid until the next slot is
// resolved.
func (t *symbols) at(s uint32) []byte {
	return t.arena[t.off[s]:][:t.size[s]:t.size[s]]
}
