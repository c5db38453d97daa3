package block

import "sync"

// decodeBuffers are the arrays that a stream decodes with. No segment refers to them.
type decodeBuffers struct {
	raw, carry rawSeries
	order      reorder
	syms       symbols
	symRefs    []uint32
	prevRefs   []uint32
	scratch    []byte
}

// bytes returns the memory of the buffers.
func (d *decodeBuffers) bytes() int64 {
	order := 4 * int64(cap(d.order.stack)+cap(d.order.out))
	return d.raw.bytes() + d.carry.bytes() + d.syms.bytes() + int64(cap(d.scratch)) + order
}

// empty empties the buffers and keeps their memory.
func (d *decodeBuffers) empty() {
	d.raw.reset()
	d.carry.reset()
	d.order.largest, d.order.stack, d.order.out = nil, d.order.stack[:0], d.order.out[:0]
	d.syms.reset()
	d.symRefs, d.prevRefs, d.scratch = d.symRefs[:0], d.prevRefs[:0], d.scratch[:0]
}

const (
	// maxKeptBuffers and maxKeptBytes bound what Buffers keeps: 4 MiB. No request reserves these
	// bytes.
	maxKeptBuffers = 8
	maxKeptBytes   = 512 << 10
)

// Buffers keeps decoding buffers of ended streams for the next ones, because a cold request decodes
// many blocks, each for a short time. The zero value keeps none yet; a nil *Buffers keeps none
// ever. It is safe for concurrent use.
type Buffers struct {
	mu   sync.Mutex // guards kept; held for moves of its elements only
	kept []decodeBuffers
}

// take returns empty buffers of at most the given bytes, which are the caller's until it calls
// keep.
func (b *Buffers) take(most int64) (d decodeBuffers) {
	if b == nil {
		return d
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := len(b.kept) - 1; i >= 0; i-- {
		if b.kept[i].bytes() > most {
			continue
		}
		d = b.kept[i]
		last := len(b.kept) - 1
		b.kept[i] = b.kept[last]
		b.kept[last] = decodeBuffers{}
		b.kept = b.kept[:last]
		return d
	}
	return d
}

// keep takes buffers over, unless they are too large. Beyond maxKeptBuffers the largest ones go,
// because few streams may have those.
func (b *Buffers) keep(d decodeBuffers) {
	if n := d.bytes(); b == nil || n == 0 || n > maxKeptBytes {
		return
	}
	d.empty()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.kept) < maxKeptBuffers {
		b.kept = append(b.kept, d)
		return
	}
	largest := &d
	for i := range b.kept {
		if b.kept[i].bytes() > largest.bytes() {
			largest = &b.kept[i]
		}
	}
	*largest = d
}
