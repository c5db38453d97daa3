package diskcache

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"larder/internal/bytecache"
)

// table is the index of a cache in memory: for each page, where its record is. It has no pointers,
// and 7 bytes for each place. A place has 23 bits of the page's hash, not its identity: in a full
// table, one page in 300,000 is taken for another. The record has the whole identity, and decides.
//
// A page has two buckets of ways places, and goes into the emptier one. Nothing ever moves, so that
// removing a page empties its place and nothing else.
type table struct {
	buckets uint64
	tags    []uint16 // 0: empty; 15 bits of the hash, and whether the page is hot
	more    []uint8  // 8 other bits of the hash
	locs    []uint32 // see location
	used    int64
}

const (
	ways = 16
	// fullWays is how many places of a bucket are in use, on average, in a full table. With two
	// buckets to choose from, less than one page in 100,000 then finds both full.
	fullWays   = 14
	hotBit     = 1 << 15
	placeBytes = 7
)

// buckets returns the number of buckets for a number of pages.
func bucketsFor(pages int64) int64 { return max((pages+fullWays-1)/fullWays, 1) }

// tableBytes returns the memory of a table in bytes.
func tableBytes(pages int64) int64 { return bucketsFor(pages) * ways * placeBytes }

func newTable(pages int64) *table {
	n := bucketsFor(pages)
	return &table{
		buckets: uint64(n),
		tags:    make([]uint16, n*ways), more: make([]uint8, n*ways), locs: make([]uint32, n*ways),
	}
}

// hashOf returns the hash of a page's identity.
func hashOf(id *bytecache.ID) uint64 { return xxhash.Sum64(id[:]) }

// tagOf returns the bits of a hash that a place has. They are never 0.
func tagOf(h uint64) uint16 {
	if tag := uint16(h) &^ hotBit; tag != 0 {
		return tag
	}
	return 1
}

// moreOf returns further bits of a hash that a place has.
func moreOf(h uint64) uint8 { return uint8(h >> 16) }

// starts returns the first places of the two buckets of a hash.
func (t *table) starts(h uint64) [2]int {
	const other = 0x9e3779b97f4a7c15 // odd: a second hash of the same bits
	first, _ := bits.Mul64(h, t.buckets)
	second, _ := bits.Mul64(bits.ReverseBytes64(h*other)^h, t.buckets)
	return [2]int{int(first) * ways, int(second) * ways}
}

// find returns the place of a page, or -1.
func (t *table) find(h uint64) int {
	tag := tagOf(h)
	for _, start := range t.starts(h) {
		for i, found := range t.tags[start : start+ways] {
			if found&^hotBit == tag && t.more[start+i] == moreOf(h) {
				return start + i
			}
		}
	}
	return -1
}

// put keeps the location of a page. It replaces that of the same page, or, if both of its buckets
// are full, a page that is not hot. It reports whether it replaced one.
func (t *table) put(h uint64, loc uint32) (replaced bool) {
	at := t.find(h)
	if at < 0 {
		if at = t.free(h); at < 0 {
			at, replaced = t.victim(h), true
		}
	}
	if t.tags[at] == 0 {
		t.used++
	}
	t.tags[at], t.more[at], t.locs[at] = tagOf(h), moreOf(h), loc
	return replaced
}

// free returns an empty place in the emptier bucket of a hash, or -1.
func (t *table) free(h uint64) int {
	best, most := -1, 0
	for _, start := range t.starts(h) {
		empty, at := 0, -1
		for i, tag := range t.tags[start : start+ways] {
			if tag == 0 {
				empty, at = empty+1, start+i
			}
		}
		if empty > most {
			best, most = at, empty
		}
	}
	return best
}

// victim returns the place of a page that is not hot in the first bucket of a hash, or else the
// first place.
func (t *table) victim(h uint64) int {
	start := t.starts(h)[0]
	for i, tag := range t.tags[start : start+ways] {
		if tag&hotBit == 0 {
			return start + i
		}
	}
	return start
}

func (t *table) remove(at int) {
	t.tags[at] = 0
	t.used--
}

// heat marks a page as hot: it is written again before its segment is removed.
func (t *table) heat(at int) { t.tags[at] |= hotBit }

// hotAt reports whether the page is hot and its record is at loc.
func (t *table) hotAt(h uint64, loc uint32) bool {
	at := t.find(h)
	return at >= 0 && t.locs[at] == loc && t.tags[at]&hotBit != 0
}

// removeSlot removes the pages of a segment among the places [from, from+n), and returns how many
// it removed.
func (t *table) removeSlot(slot uint32, from, n int) (removed int64) {
	to := min(from+n, len(t.tags))
	for i := from; i < to; i++ {
		if t.tags[i] != 0 && t.locs[i]>>unitBits == slot {
			t.remove(i)
			removed++
		}
	}
	return removed
}

// ghost remembers which pages were set recently, to tell a second use from the first. It has no
// pointers, and 2 bytes for each page. It is wrong about one page in 16,000.
type ghost struct {
	groups uint64
	tags   []uint16
}

const (
	ghostWays = 4
	// ghostShare is how many pages of the cache there are for each page that is remembered.
	ghostShare = 8
	minGhosts  = 4096
)

func ghostGroups(pages int64) int64 { return max(pages/ghostShare, minGhosts) / ghostWays }

// ghostBytes returns the memory of a ghost in bytes.
func ghostBytes(pages int64) int64 { return ghostGroups(pages) * ghostWays * 2 }

func newGhost(pages int64) *ghost {
	n := ghostGroups(pages)
	return &ghost{groups: uint64(n), tags: make([]uint16, n*ghostWays)}
}

// again reports whether the page was seen recently, and remembers it if not.
func (g *ghost) again(h uint64) bool {
	at, _ := bits.Mul64(h, g.groups)
	tags, tag := g.tags[at*ghostWays:(at+1)*ghostWays], max(uint16(h), 1)
	for i, found := range tags {
		if found == tag {
			tags[i] = 0
			return true
		}
	}
	copy(tags[1:], tags)
	tags[0] = tag
	return false
}
