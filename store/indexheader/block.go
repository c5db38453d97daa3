package indexheader

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sort"

	"larder/store/storepb"
)

// verifyBlock checks the checksum at the end of a block and returns what precedes it.
func verifyBlock(b []byte) ([]byte, error) {
	n := len(b) - crc32.Size
	if n < 0 || crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(b[n:]) {
		return nil, errChecksum
	}
	return b[:n:n], nil
}

// symbolBlock is a verified block of symbols. Each symbol is found without reading the others.
type symbolBlock struct {
	entries []byte // as the index stores them, length prefix and string
	offs    []byte // 2 bytes for each entry: its offset
	n       int
}

func parseSymbolBlock(b []byte) (symbolBlock, error) {
	if len(b) < 2 {
		return symbolBlock{}, errCorrupt
	}
	end := len(b) - 2
	n := int(binary.BigEndian.Uint16(b[end:]))
	if n == 0 || 2*n > end {
		return symbolBlock{}, fmt.Errorf("%w: %d symbols in %d bytes", errCorrupt, n, end)
	}
	return symbolBlock{entries: b[:end-2*n], offs: b[end-2*n : end], n: n}, nil
}

func (b *symbolBlock) off(j int) int { return int(binary.BigEndian.Uint16(b.offs[2*j:])) }

// at returns symbol j, which is below n.
func (b *symbolBlock) at(j int) ([]byte, error) {
	o := b.off(j)
	if o > len(b.entries) {
		return nil, errCorrupt
	}
	s, _, ok := cutBytes(b.entries[o:])
	if !ok {
		return nil, errCorrupt
	}
	return s, nil
}

// find returns the number of the entry at offset o of the block, -1 if there is none.
func (b *symbolBlock) find(o int) int {
	j := sort.Search(b.n, func(j int) bool { return b.off(j) >= o })
	if j == b.n || b.off(j) != o {
		return -1
	}
	return j
}

// valueCursor walks over the entries of a verified block of values. It reads one entry ahead,
// because a list ends at the start of the next one. The zero cursor is ready for reset. The key
// buffer is reused for all blocks.
type valueCursor struct {
	entries  []byte
	restarts []byte // 2 bytes each
	n, i     int    // i is the current entry, -1 before the first
	stored   bool
	base     int64 // first list of the block
	blockEnd int64 // end of the block's last list, unless ends are stored

	key  []byte
	list List

	// The header of entry i+1, which begins at here.
	here   int
	pos    int // of its suffix
	shared int
	size   int // of its suffix
	off    int64
	end    int64 // stored ends only
	next   int   // offset of entry i+2
}

// reset moves the cursor before the first entry of b.
func (c *valueCursor) reset(b []byte, stored bool, base, blockEnd int64) error {
	if len(b) < 2 {
		return errCorrupt
	}
	end := len(b) - 2
	n := int(binary.BigEndian.Uint16(b[end:]))
	r := (n + restartInterval - 1) / restartInterval
	if n == 0 || 2*r > end {
		return fmt.Errorf("%w: %d values in %d bytes", errCorrupt, n, end)
	}
	*c = valueCursor{
		entries: b[:end-2*r], restarts: b[end-2*r : end], n: n, stored: stored, base: base,
		blockEnd: blockEnd, key: c.key[:0],
	}
	return c.jump(0)
}

// jump moves the cursor before restart r.
func (c *valueCursor) jump(r int) error {
	c.i = r*restartInterval - 1
	c.next = int(binary.BigEndian.Uint16(c.restarts[2*r:]))
	c.off = c.base
	return c.peek()
}

// peek reads the header of entry i+1, whose offset is next.
func (c *valueCursor) peek() error {
	if c.next > len(c.entries) {
		return errCorrupt
	}
	c.here = c.next
	b := c.entries[c.here:]
	shared, b, ok1 := cutUvarint(b)
	size, b, ok2 := cutUvarint(b)
	if !ok1 || !ok2 || size > uint64(len(b)) || shared > uint64(len(c.entries)) {
		return errCorrupt
	}
	if (c.i+1)%restartInterval == 0 {
		if shared != 0 {
			return errCorrupt
		}
		c.off = c.base
	}
	c.pos, c.shared, c.size = len(c.entries)-len(b), int(shared), int(size)
	off, b, ok := cutUvarint(b[size:])
	if !ok || off > 1<<62 {
		return errCorrupt
	}
	if !c.stored {
		c.off += int64(off)
	} else {
		var n uint64
		if n, b, ok = cutUvarint(b); !ok || n > 1<<62 {
			return errCorrupt
		}
		c.off, c.end = int64(off), int64(off+n)
	}
	c.next = len(c.entries) - len(b)
	return nil
}

// advance moves to the next entry. It returns false after the last one.
func (c *valueCursor) advance() (bool, error) {
	if c.i+1 >= c.n {
		return false, nil
	}
	if c.shared > len(c.key) {
		return false, errCorrupt
	}
	c.i++
	c.key = append(c.key[:c.shared], c.entries[c.pos:c.pos+c.size]...)
	c.list = List{Off: c.off, End: c.end}
	if c.i+1 < c.n {
		if err := c.peek(); err != nil {
			return false, err
		}
		if !c.stored {
			c.list.End = c.off
		}
	} else if !c.stored {
		c.list.End = c.blockEnd
	}
	if c.list.Off < 0 || c.list.End <= c.list.Off {
		return false, fmt.Errorf("%w: a list from %d to %d", errCorrupt, c.list.Off, c.list.End)
	}
	return true, nil
}

// seek moves forward to the first entry whose value is at least v, which may be the current one. It
// returns false if the block has none.
func (c *valueCursor) seek(v string) (bool, error) {
	if c.i >= 0 && string(c.key) >= v {
		return true, nil
	}
	// The last restart whose value is not after v, if it lies ahead.
	lo := c.i/restartInterval + 1
	if c.i < 0 {
		lo = 0
	}
	var bad error
	r := lo + sort.Search(len(c.restarts)/2-lo, func(k int) bool {
		s, err := c.restartValue(lo + k)
		if err != nil {
			bad = err
		}
		return string(s) > v
	}) - 1
	if bad != nil {
		return false, bad
	}
	if r > lo || r == lo && c.i >= 0 {
		if err := c.jump(r); err != nil {
			return false, err
		}
	}
	for {
		ok, err := c.advance()
		if err != nil || !ok {
			return false, err
		}
		if string(c.key) >= v {
			return true, nil
		}
	}
}

// appendStrings appends the values after the current one to dst, as storepb.AppendString writes
// them, and moves to the last one. It decodes no lists. grow returns dst with space for n bytes
// more. On an error dst has the values before it.
func (c *valueCursor) appendStrings(
	dst []byte, grow func(dst []byte, n int) ([]byte, error),
) ([]byte, error) {
	if c.i+1 >= c.n {
		return dst, nil
	}
	// The string before stands in dst, from at on, and has size bytes.
	at, size := len(dst)-len(c.key), len(c.key)
	if c.i < 0 {
		at, size = 0, 0
	}
	lists := 1
	if c.stored {
		lists = 2
	}
	b := c.entries[c.here:]
	for i := c.i + 1; i < c.n; i++ {
		if len(b) < 3 {
			return dst, errCorrupt
		}
		shared, n := uint64(b[0]), uint64(b[1])
		if shared|n < 0x80 {
			b = b[2:]
		} else {
			var ok1, ok2 bool
			shared, b, ok1 = cutUvarint(b)
			n, b, ok2 = cutUvarint(b)
			if !ok1 || !ok2 {
				return dst, errCorrupt
			}
		}
		if n > uint64(len(b)) || shared > uint64(size) || shared > 0 && i%restartInterval == 0 {
			return dst, errCorrupt
		}
		need := int(shared+n) + 2 // StringSize of a short string
		if shared+n >= 0x80 {
			need = storepb.StringSize(int(shared + n))
		}
		if need > cap(dst)-len(dst) {
			var err error
			if dst, err = grow(dst, need); err != nil {
				return dst, err
			}
		}
		dst, at = storepb.AppendShared(dst, at, int(shared), b[:n])
		size = int(shared + n)
		b = b[n:]
		for range lists {
			k := 0
			for k < len(b) && b[k] >= 0x80 {
				k++
			}
			if k >= min(len(b), binary.MaxVarintLen64) {
				return dst, errCorrupt
			}
			b = b[k+1:]
		}
	}
	c.i = c.n - 1
	c.key = append(c.key[:0], dst[at:]...)
	return dst, nil
}

// restartValue returns the value of the first entry after restart r.
func (c *valueCursor) restartValue(r int) ([]byte, error) {
	o := int(binary.BigEndian.Uint16(c.restarts[2*r:]))
	if o >= len(c.entries) || c.entries[o] != 0 {
		return nil, errCorrupt
	}
	s, _, ok := cutBytes(c.entries[o+1:])
	if !ok {
		return nil, errCorrupt
	}
	return s, nil
}
