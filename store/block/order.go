package block

import "bytes"

// Index order is label order, and adding external labels to every series of a block keeps it, with
// one exception. Let A come before B in the index. Let E be the added labels, none of whose names
// is a label name of the block. If A and B first differ in a value or in a name, the same labels of
// E come before the difference in both, and A stays first. If A's labels are a strict prefix of
// B's, A continues after the common part with the labels of E that sort there, and B continues with
// its next label n. If some name of E sorts after n, B's n comes before it and B sorts first.
// Otherwise A has nothing left and sorts first. Therefore B precedes A exactly if A is a strict
// prefix of B and B's next name sorts before the largest name in E.
//
// reorder restores the final order while streaming. It keeps a stack of series that a later series
// may precede. They are prefixes of one another, therefore the stack is as deep as label sets nest,
// whatever the number of series.
type reorder struct {
	largest []byte // the largest name in E; nil if E is empty: then no series is held back
	stack   []uint32
	out     []uint32
}

// run puts the series of raw in final order into out. The first held series of raw are those that
// the previous run held back. Series that must still be held back stay on the stack; with last,
// none do.
func (o *reorder) run(raw *rawSeries, syms *symbols, held int, last bool) {
	o.out, o.stack = o.out[:0], o.stack[:0]
	for i := range held {
		o.stack = append(o.stack, uint32(i))
	}
	for i := held; i < raw.len(); i++ {
		x := raw.labels(i)
		for n := len(o.stack); n > 0 && !o.pushesBack(x, raw.labels(int(o.stack[n-1])), syms); n-- {
			o.out = append(o.out, o.stack[n-1])
			o.stack = o.stack[:n-1]
		}
		if o.largest == nil {
			o.out = append(o.out, uint32(i))
			continue
		}
		o.stack = append(o.stack, uint32(i))
	}
	if last {
		for n := len(o.stack); n > 0; n-- {
			o.out = append(o.out, o.stack[n-1])
		}
		o.stack = o.stack[:0]
	}
}

// pushesBack reports whether series x, which follows h in the index, precedes h in final order.
func (o *reorder) pushesBack(x, h []uint32, syms *symbols) bool {
	n := len(h)
	if n >= len(x) {
		return false
	}
	// Neighbours mostly differ in their last labels, therefore those are compared first.
	for i := n - 1; i >= 0; i-- {
		if x[i] != h[i] {
			return false
		}
	}
	return bytes.Compare(syms.at(x[n]), o.largest) < 0
}
