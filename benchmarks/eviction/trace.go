package main

import (
	"encoding/binary"
	"hash/fnv"
	"strconv"

	"larder/internal/pagecache"
)

// kind is a kind of pages: each has a cache of its own.
type kind int

const (
	indexPages kind = iota
	chunkPages
	kinds
)

func (k kind) String() string {
	if k == indexPages {
		return "index"
	}
	return "chunks"
}

// pageSize is the size of the pages of both kinds.
const pageSize = 8 << 10

// access is one Fetch of pages of one object. Its pages are needed together, for example by a
// window of chunks.
type access struct {
	object int // in trace.objects
	scan   bool
	pages  []int64 // ascending
	needed int64   // needed bytes of the pages, as far as known
}

// trace is the sequence of accesses to one kind of pages.
type trace struct {
	kind     kind
	objects  []pagecache.Object
	accesses []access
	numbers  map[string]int // of objects
}

func newTrace(k kind) *trace { return &trace{kind: k, numbers: map[string]int{}} }

// object returns the number of an object, known or new. Numbers follow the order of the trace, so
// that the keys of pages do not depend on the order in which blocks were discovered.
func (t *trace) object(name string, size int64) int {
	n, ok := t.numbers[name]
	if !ok {
		n = len(t.objects)
		t.numbers[name] = n
		t.objects = append(
			t.objects, pagecache.Object{Name: name, Size: size,
				ID: pagecache.ObjectID(uint32(n), int(t.kind))})
	}
	return n
}

func (t *trace) add(f fetch, scan bool) {
	if len(f.pages) > 0 {
		t.accesses = append(t.accesses, access{object: t.object(f.object.Name, f.object.Size),
			scan: scan, pages: f.pages, needed: f.needed})
	}
}

func (t *trace) pageLen(object int, no int64) int64 {
	return min(t.objects[object].Size-no*pageSize, pageSize)
}

// summary describes a trace.
type summary struct {
	accesses, dashboardPages, scanPages int
	// dashboardBytes is the size of those pages, neededBytes the part that dashboards needed.
	dashboardBytes, neededBytes int64
	// workingSet is the size of the distinct pages that dashboards need, scanned that of the pages
	// that only scans need.
	workingSet, scanned int64
	// once is the part of workingSet that was needed only once.
	once int64
	hash uint64
}

func (t *trace) summary() summary {
	type page struct {
		object int
		no     int64
	}
	s := summary{accesses: len(t.accesses)}
	needed := map[page]int{}
	h := fnv.New64a()
	var b [8]byte
	write := func(n int64) {
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:]) // never fails
	}
	for _, a := range t.accesses {
		write(int64(a.object))
		if !a.scan {
			s.neededBytes += a.needed
		}
		for _, no := range a.pages {
			write(no)
			if a.scan {
				s.scanPages++
				needed[page{a.object, no}] += 0
			} else {
				s.dashboardPages++
				s.dashboardBytes += t.pageLen(a.object, no)
				needed[page{a.object, no}]++
			}
		}
	}
	for p, n := range needed {
		switch bytes := t.pageLen(p.object, p.no); n {
		case 0:
			s.scanned += bytes
		case 1:
			s.once += bytes
			fallthrough
		default:
			s.workingSet += bytes
		}
	}
	s.hash = h.Sum64()
	return s
}

// archive adds the part of an export that reads the given share of an archived block's chunk files:
// pages that are needed once, from first to last, a window of 2 MiB at a time. The block exists
// only in the trace.
func (t *trace) archive(number int, from, to int64) {
	const window = 2 << 20
	object := t.object("archive-"+strconv.Itoa(number), 1<<40)
	for off := from; off < to; off += window {
		a := access{object: object, scan: true}
		for o := off; o < min(off+window, to); o += pageSize {
			a.pages = append(a.pages, o/pageSize)
		}
		t.accesses = append(t.accesses, a)
	}
}
