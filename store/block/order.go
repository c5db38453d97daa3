package block

import "bytes"

// Index order is label order, and adding external labels to every series of a block keeps it, with
// one exception. Let A come before B in the index and E be the added labels, none of whose names
// occurs as a label name in the block. If A and B first differ in a value or in a name, the same
// labels of E land before the difference in both, so A stays first. If A's labels are a strict
// prefix of B's, then after the common part A goes on with the labels of E that sort there and B
// with its next label n: if some name of E sorts after n, B's n comes before it and B sorts first;
// else A has nothing left and sorts first. So B precedes A exactly when A is a strict prefix of B
// and B's next name sorts before the largest name in E.
//
// reorder restores the final order while streaming: it keeps a stack of series that a later one may
// precede. They are prefixes of one another, so the stack is as deep as label sets nest, whatever
// the number of series.
type reorder struct {
	largest []byte // the largest name in E, nil if E is empty: then nothing is ever held back
	stack   []uint32
	out     []uint32
}

// run appends the series of raw from the first one on, in final order, to out. The first held
// series of raw are the ones that the previous run held back. What must still be held back stays on
// the stack; with last, nothing does.
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

// pushesBack reports whether series x, later in the index than h, precedes it in final order.
func (o *reorder) pushesBack(x, h []uint32, syms *symbols) bool {
	n := len(h)
	if n >= len(x) {
		return false
	}
	// Neighbours mostly differ in their last labels: look there first.
	for i := n - 1; i >= 0; i-- {
		if x[i] != h[i] {
			return false
		}
	}
	return bytes.Compare(syms.at(x[n]), o.largest) < 0
}
