package indexheader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
)

// The look-ups of a reader. Each returns its progress, so that it can continue with another reader
// of the same header after damage. A block's bytes are used only after its checksum was verified,
// so damage is found between blocks only.

// symbols calls f for refs[from:]. It returns the index of the first reference without a call of f.
func (r *reader) symbols(
	ctx context.Context, refs []uint32, from int, f func(i int, s []byte) error,
) (int, error) {
	sc := r.look.get()
	defer r.look.put(sc)
	i, blk := from, 0
	for i < len(refs) {
		ref := refs[i]
		// Blocks are visited in order. The next one is usually the right one.
		if blk+1 < len(r.symFirst) && ref >= r.symFirst[blk+1] {
			blk++
			if blk+1 < len(r.symFirst) && ref >= r.symFirst[blk+1] {
				rest := r.symFirst[blk+1:]
				blk += sort.Search(len(rest), func(k int) bool { return rest[k] > ref })
			}
		}
		if len(r.symFirst) == 0 || ref < r.symFirst[blk] {
			return i, fmt.Errorf("block %s: unknown symbol %d", r.id, ref)
		}
		if err := ctx.Err(); err != nil {
			return i, err
		}
		raw, err := r.block(sc, blk, r.symOff[blk], r.symOff[blk+1], true)
		if err != nil {
			return i, err
		}
		b, err := parseSymbolBlock(raw)
		if err != nil {
			return i, r.damaged(r.symOff[blk], err)
		}
		first, last := r.symFirst[blk], uint32(1<<32-1)
		if blk+1 < len(r.symFirst) {
			last = r.symFirst[blk+1] - 1
		}
		if r.toc.Version == 1 {
			i, err = r.symbolsByOffset(refs, i, last, first, blk, &b, f)
		} else {
			i, err = r.symbolsByNumber(refs, i, last, first, blk, &b, f)
		}
		if err != nil {
			return i, err
		}
	}
	return i, nil
}

// symbolsByNumber calls f for the references up to last, all of which lie in block b.
func (r *reader) symbolsByNumber(
	refs []uint32, i int, last, first uint32, blk int, b *symbolBlock,
	f func(i int, s []byte) error,
) (int, error) {
	for ; i < len(refs) && refs[i] <= last; i++ {
		j := refs[i] - first
		if uint64(j) >= uint64(b.n) {
			return i, fmt.Errorf("block %s: unknown symbol %d", r.id, refs[i])
		}
		// This is b.at inlined, because it runs for every distinct label of an answer.
		o := int(binary.BigEndian.Uint16(b.offs[2*j:]))
		var s []byte
		if o < len(b.entries) && b.entries[o] < 0x80 && o+1+int(b.entries[o]) <= len(b.entries) {
			end := o + 1 + int(b.entries[o])
			s = b.entries[o+1 : end : end]
		} else {
			var err error
			if s, err = b.at(int(j)); err != nil {
				return i, r.damaged(r.symOff[blk], err)
			}
		}
		if err := f(i, s); err != nil {
			return i, err
		}
	}
	return i, nil
}

// symbolsByOffset does the same as symbolsByNumber for index format V1. A block's entries have the
// same layout as in the index, so the distance of two references is the distance of their entries.
func (r *reader) symbolsByOffset(
	refs []uint32, i int, last, first uint32, blk int, b *symbolBlock,
	f func(i int, s []byte) error,
) (int, error) {
	for ; i < len(refs) && refs[i] <= last; i++ {
		j := b.find(int(refs[i] - first))
		if j < 0 {
			return i, fmt.Errorf("block %s: no symbol at byte %d of the index", r.id, refs[i])
		}
		s, err := b.at(j)
		if err != nil {
			return i, r.damaged(r.symOff[blk], err)
		}
		if err := f(i, s); err != nil {
			return i, err
		}
	}
	return i, nil
}

// nameIndex returns the number of a label name, -1 if the block does not have it.
func (r *reader) nameIndex(name string) int {
	i := sort.SearchStrings(r.names, name)
	if i == len(r.names) || r.names[i] != name {
		return -1
	}
	return i
}

// cursorAt moves the cursor before value block i.
func (r *reader) cursorAt(sc *scratch, i uint32, admit bool) error {
	raw, err := r.block(sc, len(r.symFirst)+int(i), r.valOff[i], r.valOff[i+1], admit)
	if err != nil {
		return err
	}
	if err := sc.cursor.reset(raw, r.footer.lists == listsStored, r.lists[i],
		r.lists[i+1]); err != nil {
		return r.damaged(r.valOff[i], err)
	}
	return nil
}

// blockOf returns the only value block in [lo, hi) that may have v: the last one whose separator is
// not after v.
func (r *reader) blockOf(lo, hi uint32, v string) uint32 {
	n := sort.Search(int(hi-lo), func(k int) bool { return r.sep(lo+uint32(k)) > v })
	return lo + uint32(max(n, 1)) - 1
}

// listsOf appends a list for each of values and returns dst. The number of appended lists is its
// progress.
func (r *reader) listsOf(
	ctx context.Context, name int, values []string, dst []List,
) ([]List, error) {
	sc := r.look.get()
	defer r.look.put(sc)
	c := &sc.cursor
	blk, hi := r.first[name], r.first[name+1]
	loaded := false
	for _, v := range values {
		if !loaded || blk+1 < hi && r.sep(blk+1) <= v {
			next := r.blockOf(blk, hi, v)
			if !loaded || next != blk {
				if err := ctx.Err(); err != nil {
					return dst, err
				}
				blk, loaded = next, true
				if err := r.cursorAt(sc, blk, true); err != nil {
					return dst, err
				}
			}
		}
		ok, err := c.seek(v)
		if err != nil {
			return dst, r.damaged(r.valOff[blk], err)
		}
		if !ok || string(c.key) != v {
			dst = append(dst, List{})
			continue
		}
		if !c.list.plausible(r.indexSize) {
			return dst, r.damaged(
				r.valOff[blk],
				fmt.Errorf("%w: a list from %d to %d", errCorrupt, c.list.Off, c.list.End),
			)
		}
		dst = append(dst, c.list)
	}
	return dst, nil
}

// progress is the progress of a walk over the values of a name: skip values were passed to f after
// the value after, or from the start of the walk if begun is false.
type progress struct {
	after []byte
	begun bool
	skip  int
}

// cachedValueBlocks is the number of value blocks, of 16 KiB each, up to which a walk over all
// values of a label caches them. It is enough for some 20,000 values. More would evict what point
// look-ups need.
const cachedValueBlocks = 32

// valuesOf calls f for the values from from on, in order, except for those that p says are done. It
// updates p.
func (r *reader) valuesOf(
	ctx context.Context, name int, from string, p *progress,
	f func(value []byte, l List) (bool, error),
) error {
	sc := r.look.get()
	defer r.look.put(sc)
	c := &sc.cursor
	if p.begun {
		from = string(p.after)
	}
	pass := p.skip
	lo, hi := r.first[name], r.first[name+1]
	start := r.blockOf(lo, hi, from)
	for blk := start; blk < hi; blk++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.cursorAt(sc, blk, hi-lo <= cachedValueBlocks); err != nil {
			return err
		}
		var ok bool
		var err error
		if blk == start {
			ok, err = c.seek(from)
			if ok && p.begun && string(c.key) == from {
				ok, err = c.advance()
			}
		} else {
			ok, err = c.advance()
		}
		for ; ok && err == nil; ok, err = c.advance() {
			if !c.list.plausible(r.indexSize) {
				err = fmt.Errorf("%w: a list from %d to %d", errCorrupt, c.list.Off, c.list.End)
				break
			}
			if pass > 0 {
				pass--
				continue
			}
			p.skip++
			more, err := f(c.key, c.list)
			if err != nil || !more {
				return err
			}
		}
		if err != nil {
			return r.damaged(r.valOff[blk], err)
		}
		if pass == 0 {
			p.after, p.begun, p.skip = append(p.after[:0], c.key...), true, 0
		}
	}
	return nil
}

// appendStrings appends the values after after, or all if it is nil, to dst, which ends with after.
// It returns dst and the last value that it has appended completely, with its block.
func (r *reader) appendStrings(
	ctx context.Context, name int, after, dst []byte,
	grow func(dst []byte, n int) ([]byte, error),
) ([]byte, []byte, error) {
	sc := r.look.get()
	defer r.look.put(sc)
	c := &sc.cursor
	lo, hi := r.first[name], r.first[name+1]
	blk := lo
	if after != nil {
		blk = r.blockOf(lo, hi, string(after))
	}
	for ; blk < hi; blk++ {
		if err := ctx.Err(); err != nil {
			return dst, after, err
		}
		if err := r.cursorAt(sc, blk, hi-lo <= cachedValueBlocks); err != nil {
			return dst, after, err
		}
		begin := len(dst)
		if after != nil && string(after) >= r.sep(blk) {
			// The first block after damage. Its first values were appended.
			ok, err := c.seek(string(after))
			if err == nil && (!ok || string(c.key) != string(after)) {
				err = fmt.Errorf("%w: no value %q", errCorrupt, after)
			}
			if err != nil {
				return dst, after, r.damaged(r.valOff[blk], err)
			}
		}
		var err error
		if dst, err = c.appendStrings(dst, grow); errors.Is(err, errCorrupt) {
			return dst[:begin], after, r.damaged(r.valOff[blk], err)
		} else if err != nil {
			return dst, after, err
		}
		after = append(after[:0], c.key...)
	}
	return dst, after, nil
}
