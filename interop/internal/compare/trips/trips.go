// Package trips counts what a query asked of the bucket: requests and bytes by kind, and how often
// it waited for the bucket.
//
// It works on the requests that benchmarks/bucketserver recorded, each with the time of its arrival
// and of the end of its answer. A request depends on every request that ended before it began. The
// server cannot see whether the gateway needed the former answer or only waited for a free slot, so
// two chains are counted: the longest chain of reads of one block, and the longest chain of all
// reads. Within a block, reads follow one another because the answers are needed, or because the
// gateway limits the reads that one block has at a time; a user waits for both. What the longest
// chain of all reads has on top of it is waiting for other blocks: queueing for slots, blocks that
// are worked on one after the other, and windows of the merged answer.
package trips

import (
	"cmp"
	"slices"
	"strings"
)

// Request is one request that the bucket answered, as benchmarks/bucketserver reports it.
type Request struct {
	// Op is GET, HEAD or LIST.
	Op     string `json:"op"`
	Key    string `json:"key"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	Status int    `json:"status"`
	// Start and End are nanoseconds since 1970.
	Start int64 `json:"start"`
	End   int64 `json:"end"`
}

// block is the folder of the block; empty for what belongs to no block.
func (r Request) block() string {
	block, _, ok := strings.Cut(r.Key, "/")
	if !ok {
		return ""
	}
	return block
}

// Volume is a number of requests and the bytes of their answers.
type Volume struct {
	Requests int   `json:"requests"`
	Bytes    int64 `json:"bytes"`
}

func (v *Volume) add(r Request) {
	v.Requests++
	v.Bytes += r.Bytes
}

// Count is what a query asked of the bucket.
type Count struct {
	// Index, Chunks and Meta are the requests by the kind of the object. Meta is everything but
	// index and chunk files: meta.json, marks, listings.
	Index  Volume `json:"index"`
	Chunks Volume `json:"chunks"`
	Meta   Volume `json:"meta"`
	// Lists are the listings among Meta's requests, which have a price of their own.
	Lists int `json:"lists"`
	// Trips is the longest chain of index and chunk reads of one block.
	Trips int `json:"trips"`
	// Queued is how much longer the longest chain of all index and chunk reads is.
	Queued int `json:"queued"`
}

// Requests is the number of all requests.
func (c Count) Requests() int { return c.Index.Requests + c.Chunks.Requests + c.Meta.Requests }

// Bytes is the size of all answers.
func (c Count) Bytes() int64 { return c.Index.Bytes + c.Chunks.Bytes + c.Meta.Bytes }

// Of counts the given requests.
func Of(requests []Request) Count {
	var c Count
	var reads []Request
	byBlock := map[string][]Request{}
	for _, r := range requests {
		switch _, file, _ := strings.Cut(r.Key, "/"); {
		case r.Op != "LIST" && file == "index":
			c.Index.add(r)
		case r.Op != "LIST" && strings.HasPrefix(file, "chunks/"):
			c.Chunks.add(r)
		default:
			c.Meta.add(r)
			if r.Op == "LIST" {
				c.Lists++
			}
			continue
		}
		reads = append(reads, r)
		byBlock[r.block()] = append(byBlock[r.block()], r)
	}
	for _, rs := range byBlock {
		c.Trips = max(c.Trips, Chain(rs))
	}
	c.Queued = Chain(reads) - c.Trips
	return c
}

// Chain is the length of the longest chain of requests in which each began after the former had
// ended.
func Chain(requests []Request) int {
	// Of intervals in the order of their ends, taking each that begins after the last one taken has
	// ended gives a longest chain.
	rs := slices.SortedFunc(slices.Values(requests), func(a, b Request) int {
		return cmp.Compare(a.End, b.End)
	})
	n := 0
	var end int64
	for _, r := range rs {
		if n == 0 || r.Start > end {
			n++
			end = r.End
		}
	}
	return n
}
