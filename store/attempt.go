package store

import (
	"slices"
	"sync/atomic"

	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
)

// attemptState says how an attempt to answer a request relates to the attempts before it.
type attemptState uint8

const (
	// attemptFirst has no attempt before it.
	attemptFirst attemptState = iota
	// attemptRepeated plans a second time. The answer has no series.
	attemptRepeated
	// attemptHasSeries has series in its answer, which further attempts skip. The state stays
	// unless the answer is discarded.
	attemptHasSeries
)

// attempt is the current attempt to answer a request, with what it knows from earlier attempts.
// Only next, wrote and restart change its state.
//
// INVARIANT: the goroutine of the handler alone calls its methods. reserveSpare and releaseSpare
// are the exceptions: any goroutine of the request may call them.
type attempt struct {
	state attemptState
	// queried has the blocks that this attempt queries, in the order of their plans.
	queried []*catalog.Block
	// blocks has the blocks to query. If it is nil, the view decides.
	blocks []*catalog.Block
	// indexOrder has the blocks whose series are in the answer in the order of their index.
	indexOrder []*block.Block
	// last has the labels of the last series in the answer. A series may have none.
	last []byte
	// minimum is how many bytes the request reserves at least: an earlier attempt needed them.
	minimum int64
	// spare is how many reserved bytes are beyond the estimate and unused.
	spare atomic.Int64
}

// repeated reports whether the request was planned before.
func (a *attempt) repeated() bool { return a.state != attemptFirst }

// after returns the labels of the last series in the answer, after which to continue. It returns
// nil if the answer is empty.
func (a *attempt) after() []byte {
	if a.state != attemptHasSeries {
		return nil
	}
	return a.last
}

// next begins another attempt after one that failed: first -> repeated. Other states stay.
//
// INVARIANT: the goroutines of the failed attempt have ended, and its plans are closed.
func (a *attempt) next() {
	a.queried = nil
	if a.state == attemptFirst {
		a.state = attemptRepeated
	}
}

// wrote notes that the answer has series up to the one with these labels: any state -> has series.
// It copies the labels.
//
// INVARIANT: last belongs to the last series in the answer, because an attempt that resumes sends
// exactly the series that sort after it.
func (a *attempt) wrote(labels []byte) {
	a.state = attemptHasSeries
	if a.last = append(a.last[:0], labels...); a.last == nil {
		a.last = []byte{}
	}
}

// restart notes that the answer was discarded: any state -> repeated. blocks stays.
//
// INVARIANT: no frame of the answer was sent.
func (a *attempt) restart() {
	a.state = attemptRepeated
	a.indexOrder = nil
}

// resume sets the blocks to query in later attempts, the replacements of those queried. The state
// stays. If the answer is empty, blocks is ignored and the view decides.
//
// INVARIANT: together, blocks have all series of the queried blocks, with the same labels. A block
// that is new in the view is not among them, because its first series are not in the answer.
func (a *attempt) resume(blocks []*catalog.Block) {
	a.blocks = nil
	if a.state == attemptHasSeries {
		a.blocks = blocks
	}
}

// raise makes later attempts reserve as many bytes as this one needed. The state stays.
//
// INVARIANT: only a need beyond the estimate counts. The next attempt makes its own estimate.
func (a *attempt) raise(must *admission.MustWait) {
	if must.BeyondEstimate {
		a.minimum = must.Need
	}
}

// settle returns how many bytes to reserve for an estimate of n. The bytes beyond n are spare.
func (a *attempt) settle(n int64) int64 {
	a.spare.Store(max(a.minimum-n, 0))
	return max(a.minimum, n)
}

// reserveSpare reserves up to n of the spare bytes. It returns how many of the n bytes are still
// missing.
func (a *attempt) reserveSpare(n int64) int64 {
	for {
		spare := a.spare.Load()
		use := min(spare, n)
		if use <= 0 {
			return n
		}
		if !a.spare.CompareAndSwap(spare, spare-use) {
			continue
		}
		if n -= use; n == 0 {
			return 0
		}
	}
}

// releaseSpare makes n reserved bytes spare. The request keeps them, because it may need them
// again.
func (a *attempt) releaseSpare(n int64) { a.spare.Add(n) }

// noteOrder notes which blocks of a failed attempt are in the answer in the order of their index.
func (a *attempt) noteOrder(plans []*block.Plan) {
	if a.state != attemptHasSeries {
		return
	}
	for _, p := range plans {
		if p.InIndexOrder() && !slices.Contains(a.indexOrder, p.Block()) {
			a.indexOrder = append(a.indexOrder, p.Block())
		}
	}
}

// checkOrder fails if a block in indexOrder was found irregular since. Its series are then sorted,
// and do not continue where the answer ends.
func (a *attempt) checkOrder() error {
	for _, b := range a.indexOrder {
		if err := b.Reshaped(); err != nil {
			return err
		}
	}
	return nil
}
