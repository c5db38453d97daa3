package curves

import (
	"context"

	"larder/internal/bytecache"
)

const (
	// segments is how many segments a disk has.
	segments = 256
	// minRecords is how many records a segment has at least.
	minRecords = 16
	// recordOverhead is what a record takes besides its page, in bytes.
	recordOverhead = 256
)

// disk is a model of diskcache.Cache that keeps no bytes: see doc.go. It is not safe for concurrent
// use.
type disk struct {
	page       []byte // the value of all pages
	maxRecords int
	perSegment int
	ghost      *ghost // nil: pages are kept at their first use
	places     map[uint64]*record
	segments   [][]*record // the oldest first; the last one is being written
}

type record struct {
	key uint64
	hot bool
}

var _ bytecache.Disk = (*disk)(nil)

func newDisk(maxBytes int64, page []byte, secondUse bool) *disk {
	d := &disk{page: page, places: map[uint64]*record{}}
	d.maxRecords = max(int(maxBytes/(int64(len(page))+recordOverhead)), 1)
	d.perSegment = max(d.maxRecords/segments, min(minRecords, d.maxRecords))
	if secondUse {
		d.ghost = newGhost(d.maxRecords / 8)
	}
	d.segments = [][]*record{nil}
	return d
}

// Fetch finds pages, which are then hot.
func (d *disk) Fetch(
	_ context.Context, keys []bytecache.Key, values [][]byte,
) (found bytecache.Found) {
	for i, key := range keys {
		if r := d.places[key.Local]; values[i] == nil && r != nil {
			r.hot = true
			values[i] = d.page
			found.DiskItems++
			found.DiskBytes += int64(len(d.page))
		}
	}
	return found
}

// Set keeps a page, perhaps only at its second use.
func (d *disk) Set(key bytecache.Key, _ []byte) { d.keep(key.Local, false, false) }

// Keep keeps a page that was used a second time.
func (d *disk) Keep(key bytecache.Key, _ []byte, hot bool) { d.keep(key.Local, true, hot) }

func (d *disk) keep(key uint64, again, hot bool) {
	if r := d.places[key]; r != nil {
		r.hot = r.hot || hot
		return
	}
	if d.ghost != nil && !again && !d.ghost.again(key) {
		return
	}
	d.write(key)
}

// write appends a record. If the segment is full, a new one takes the place of the oldest.
func (d *disk) write(key uint64) {
	last := len(d.segments) - 1
	if len(d.segments[last]) >= d.perSegment {
		d.segments = append(d.segments, nil)
		last++
		for len(d.segments)*d.perSegment > max(d.maxRecords, 2*d.perSegment) {
			oldest := d.segments[0]
			d.segments = d.segments[1:]
			last--
			for _, r := range oldest {
				if d.places[r.key] != r { // deleted
					continue
				}
				delete(d.places, r.key)
				if r.hot && len(d.segments[last]) < d.perSegment*3/4 {
					d.append(last, r.key)
				}
			}
		}
	}
	d.append(last, key)
}

func (d *disk) append(segment int, key uint64) {
	r := &record{key: key}
	d.segments[segment] = append(d.segments[segment], r)
	d.places[key] = r
}

// Del removes a page.
func (d *disk) Del(key bytecache.Key) { delete(d.places, key.Local) }

// Get misses: no value is in memory.
func (d *disk) Get(uint64) ([]byte, bool) { return nil, false }

// Remote returns true.
func (d *disk) Remote() bool { return true }

// Stats returns nothing, because nothing is accounted for.
func (d *disk) Stats() bytecache.Stats { return bytecache.Stats{} }

// Close does nothing.
func (d *disk) Close() {}

// ghost remembers the last pages that were used once.
type ghost struct {
	known map[uint64]struct{}
	ring  []uint64
	next  int
}

func newGhost(pages int) *ghost {
	return &ghost{known: map[uint64]struct{}{}, ring: make([]uint64, 0, max(pages, 1))}
}

// again reports whether a page was seen recently, and remembers it if not.
func (g *ghost) again(key uint64) bool {
	if _, ok := g.known[key]; ok {
		delete(g.known, key)
		return true
	}
	if len(g.ring) < cap(g.ring) {
		g.ring = append(g.ring, key)
	} else {
		delete(g.known, g.ring[g.next])
		g.ring[g.next] = key
		g.next = (g.next + 1) % len(g.ring)
	}
	g.known[key] = struct{}{}
	return false
}
