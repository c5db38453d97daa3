package pagecache

import (
	"encoding/binary"
	"sort"

	"github.com/oklog/ulid/v2"

	"larder/internal/bytecache"
)

// Object is an immutable object of the bucket, read through pages.
type Object struct {
	// Name is the object's full name in the bucket.
	Name string
	// Size is the object's exact size in bytes. No read goes past it.
	Size int64
	// ID identifies the object within the process and this cache: block number << 14 | file number.
	// INVARIANT: two objects never share an ID while the process lives, except Uncached.
	ID uint64
	// Block is the block that the object belongs to. With the file number of ID it names the object
	// in caches that outlive the process. If there is such a cache, an object without a block is
	// read as Uncached.
	Block ulid.ULID
	// Content identifies the contents of the block. It differs after the block was replaced.
	Content uint64
}

// Span is the byte range [Off, End) of an object.
type Span struct {
	Off, End int64
}

// The 64 bits of a page's key:
//
//	63          40 39          26 25            0
//	+-------------+--------------+--------------+
//	| block       | file         | page         |
//	| number (24) | number (14)  | number (26)  |
//	+-------------+--------------+--------------+
//
// Pages whose numbers do not fit are read, but neither cached nor shared. With pages of 8 KiB these
// are the pages beyond the first 512 GiB of an object.
const (
	blockBits = 24
	fileBits  = 14
	pageBits  = bytecache.PageBits

	// Uncached is the ID of an object without a fitting ID. Its pages are not cached and its reads
	// are not shared.
	Uncached = ^uint64(0)
)

// ObjectID returns the ID of a block's file, or Uncached if it does not fit.
func ObjectID(blockNumber uint32, fileNumber int) uint64 {
	if blockNumber >= 1<<blockBits || fileNumber < 0 || fileNumber >= 1<<fileBits {
		return Uncached
	}
	return uint64(blockNumber)<<fileBits | uint64(fileNumber)
}

// pageKey returns the key of a page within the process, and whether it has one.
func pageKey(id uint64, no int64) (uint64, bool) {
	if id >= 1<<(blockBits+fileBits) || no >= 1<<pageBits {
		return 0, false
	}
	return id<<pageBits | uint64(no), true
}

// pageNumber returns the page number of a key within the process.
func pageNumber(local uint64) int64 { return int64(local & (1<<pageBits - 1)) }

// pageKind is the kind in the identity of a page, whose layout is: block (16 bytes), kind (1),
// binary logarithm of the page size (1), file number (2), page number (4), content of the block
// (8). It changes when the meaning of any of these changes.
const pageKind = 2

// cacheKey returns the key of a page for all tiers, and whether it has one.
func (o *Object) cacheKey(no int64, shift uint) (bytecache.Key, bool) {
	local, ok := pageKey(o.ID, no)
	if !ok {
		return bytecache.Key{}, false
	}
	k := bytecache.Key{Local: local}
	copy(k.ID[:16], o.Block[:])
	k.ID[16], k.ID[17] = pageKind, byte(shift)
	binary.BigEndian.PutUint16(k.ID[18:], uint16(o.ID&(1<<fileBits-1)))
	binary.BigEndian.PutUint32(k.ID[bytecache.PageAt:], uint32(no))
	binary.BigEndian.PutUint64(k.ID[24:], o.Content)
	return k, true
}

// page is a page of a Pages.
type page struct {
	no int64
	b  []byte
	// end is the end offset of the stretch of adjoining pages that this page lies in.
	end int64
}

// Pages has the pages of one object that a Fetch named. It is immutable and safe for concurrent
// use. It keeps its pages alive.
type Pages struct {
	shift  uint
	list   []page // ascending by no
	pinned int64
}

// seal computes the ends of stretches and the size. The list must be complete.
func (p *Pages) seal() {
	end := int64(0)
	for i := len(p.list) - 1; i >= 0; i-- {
		g := &p.list[i]
		p.pinned += int64(len(g.b))
		if i == len(p.list)-1 || p.list[i+1].no != g.no+1 {
			end = g.no<<p.shift + int64(len(g.b))
		}
		g.end = end
	}
}

// numbers returns the numbers of the pages.
func (p *Pages) numbers() []int64 {
	out := make([]int64, len(p.list))
	for i := range p.list {
		out[i] = p.list[i].no
	}
	return out
}

// PinnedBytes returns the number of bytes of all pages.
func (p *Pages) PinnedBytes() int64 { return p.pinned }

// Have returns the number of bytes from off on that p has without a gap, 0 if it does not have off.
func (p *Pages) Have(off int64) int64 {
	c := Cursor{p: p}
	return c.Have(off)
}

// Bytes returns the bytes [off, off+n). ok is false if p does not have all of them. If they lie on
// one page, they alias it and must not be modified. Otherwise they are appended to scratch, which
// is returned as grown. Results of earlier calls stay valid. A Cursor is faster for many ascending
// offsets.
func (p *Pages) Bytes(off int64, n int, scratch []byte) (b, grown []byte, ok bool) {
	c := Cursor{p: p}
	return c.Bytes(off, n, scratch)
}

// Cursor returns a cursor at the first page.
func (p *Pages) Cursor() Cursor { return Cursor{p: p} }

// Cursor looks up bytes of a Pages. It is fastest for ascending offsets. It is not safe for
// concurrent use. The zero Cursor has no bytes.
type Cursor struct {
	p *Pages
	i int // index of the page where the last look-up ended
}

// seek returns the index of the page with off, or -1, and remembers it.
func (c *Cursor) seek(off int64) int {
	if c.p == nil || off < 0 {
		return -1
	}
	list := c.p.list
	no := off >> c.p.shift
	i := c.i
	if i < len(list) && list[i].no == no {
		return i
	}
	if i+1 < len(list) && list[i+1].no == no {
		c.i = i + 1
		return i + 1
	}
	i = sort.Search(len(list), func(i int) bool { return list[i].no >= no })
	if i == len(list) || list[i].no != no {
		return -1
	}
	c.i = i
	return i
}

// Have does the same as Pages.Have.
func (c *Cursor) Have(off int64) int64 {
	i := c.seek(off)
	if i < 0 {
		return 0
	}
	return max(c.p.list[i].end-off, 0)
}

// Bytes does the same as Pages.Bytes.
func (c *Cursor) Bytes(off int64, n int, scratch []byte) (b, grown []byte, ok bool) {
	i := c.seek(off)
	if i < 0 || n < 0 {
		return nil, scratch, false
	}
	g := &c.p.list[i]
	if int64(n) > g.end-off { // off+n could overflow: n may come from bad data
		return nil, scratch, false
	}
	at := int(off - g.no<<c.p.shift)
	if at+n <= len(g.b) {
		return g.b[at : at+n : at+n], scratch, true
	}
	b, grown = c.join(i, at, n, scratch)
	return b, grown, true
}

// join appends n bytes to scratch, from byte at of page i on. The caller has checked that p has
// them.
func (c *Cursor) join(i, at, n int, scratch []byte) (b, grown []byte) {
	start := len(scratch)
	for ; n > 0; i++ {
		part := c.p.list[i].b[at:]
		part = part[:min(len(part), n)]
		scratch = append(scratch, part...)
		n -= len(part)
		at = 0
		c.i = i
	}
	return scratch[start:len(scratch):len(scratch)], scratch
}
