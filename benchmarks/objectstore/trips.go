package objectstore

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Read is one read of an object.
type Read struct {
	Name  string
	Bytes int64
	// Start is the time of the call, End that of the last byte that was read so far.
	Start, End time.Time

	firstByte time.Time
}

// block is the folder of the block that is read.
func (r *Read) block() string {
	block, _, _ := strings.Cut(r.Name, "/")
	return block
}

// Chain returns the length of the longest chain of reads in which each began when the former had
// ended or later. In virtual time, which has no noise, a read that begins at the end of another one
// depends on it, or on another read that ended at that time. In real time the chain may be too long
// by reads that happened to begin later.
func Chain(reads []Read) int {
	// Of intervals in the order of their ends, taking each that begins after the last one taken has
	// ended gives a longest chain.
	rs := slices.SortedFunc(slices.Values(reads), func(a, b Read) int {
		return cmp.Or(a.End.Compare(b.End), a.Start.Compare(b.Start))
	})
	n := 0
	var end time.Time
	for _, r := range rs {
		if n == 0 || !r.Start.Before(end) {
			n++
			end = r.End
		}
	}
	return n
}

// Busy returns for how long at least one of the reads was running. Unlike the time of a request, it
// hardly depends on what else the machine does, because the model says when a read ends.
func Busy(reads []Read) (d time.Duration) {
	rs := slices.SortedFunc(slices.Values(reads), func(a, b Read) int {
		return a.Start.Compare(b.Start)
	})
	var end time.Time
	for _, r := range rs {
		if !r.End.After(end) {
			continue
		}
		from := r.Start
		if end.After(from) {
			from = end
		}
		d += r.End.Sub(from)
		end = r.End
	}
	return d
}

// Trips returns the longest chain of reads of one block.
func Trips(reads []Read) (n int) {
	byBlock := map[string][]Read{}
	for _, r := range reads {
		byBlock[r.block()] = append(byBlock[r.block()], r)
	}
	for _, rs := range byBlock {
		n = max(n, Chain(rs))
	}
	return n
}
