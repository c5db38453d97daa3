// Package answer turns the answers of a store gateway into values and compares them. An Answer
// contains everything that a client can see, and Diff ignores nothing in it.
package answer

import (
	"fmt"
	"sort"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/store/hintspb"
	"google.golang.org/grpc/codes"
)

// Answer is one gateway's answer to one request.
type Answer struct {
	Code    codes.Code
	Message string

	// Series answers.
	Series   []Series
	Frames   []Frame
	Warnings []string
	// Hints is nil when the answer carried none.
	Hints *Hints

	// List is the answer of the label calls.
	List []string

	Info *Info
}

// Series is one series as sent. An answer may contain the same label set in several pieces; Join
// joins them.
type Series struct {
	Labels labels.Labels
	Chunks []Chunk
	// Frame is the index of the frame that carried it, or its first piece.
	Frame int
}

// Chunk is one AggrChunk. Parts are in the order raw, count, sum, min, max, counter.
type Chunk struct {
	MinTime, MaxTime int64
	Parts            [6]*Part
	// Size is the chunk's encoded size.
	Size int
}

// PartNames name a Chunk's Parts.
var PartNames = [6]string{"raw", "count", "sum", "min", "max", "counter"}

// Part is one encoded chunk.
type Part struct {
	Type int32
	Data []byte
	Hash uint64
}

// Frame is one message of a Series stream.
type Frame struct {
	// Size is the message's encoded size.
	Size int
	// Batch reports whether it was a SeriesBatch; Series is the number of series in it.
	Batch  bool
	Series int
	// Kind is "series", "warning", "hints" or "unknown".
	Kind string
}

// Hints are the hints of a response. Of query stats they contain only values that do not depend on
// the gateway's implementation.
type Hints struct {
	Blocks []string
	// Stats is nil when the answer carried no query stats.
	Stats *Stats
}

// Stats are the query stats that must be equal for both gateways.
type Stats struct{ Blocks, Series, Chunks int64 }

func newHints(blocks []hintspb.Block, qs *hintspb.QueryStats) *Hints {
	h := &Hints{}
	for _, b := range blocks {
		h.Blocks = append(h.Blocks, b.Id)
	}
	sort.Strings(h.Blocks)
	if qs != nil {
		h.Stats = &Stats{
			Blocks: qs.BlocksQueried,
			Series: qs.MergedSeriesCount,
			Chunks: qs.MergedChunksCount,
		}
	}
	return h
}

// BlockSet returns the queried blocks, each once.
func (h *Hints) BlockSet() []string {
	var out []string
	for i, b := range h.Blocks {
		if i == 0 || b != h.Blocks[i-1] {
			out = append(out, b)
		}
	}
	return out
}

// Info is an Info answer.
type Info struct {
	Component        string
	LabelSets        []string
	MinTime, MaxTime int64
	Sharding         bool
	Without          bool
	// Others are APIs that a store does not have: exemplars, rules, targets, metadata, queries.
	Others []string
	TSDBs  []TSDB
}

// TSDB is one TSDBInfo.
type TSDB struct {
	Labels           string
	MinTime, MaxTime int64
}

// Empty reports whether the answer holds no data.
func (a *Answer) Empty() bool { return len(a.Series) == 0 && len(a.List) == 0 && a.Info == nil }

// Check returns an error for what is wrong with any answer: label sets out of order, or sent twice.
// If the reference fails it, the test is wired wrongly and its comparisons mean nothing.
func (a *Answer) Check() error {
	for i := 1; i < len(a.Series); i++ {
		if labels.Compare(a.Series[i-1].Labels, a.Series[i].Labels) >= 0 {
			return fmt.Errorf(
				"series %d, %s, does not sort after series %d, %s", i, a.Series[i].Labels, i-1,
				a.Series[i-1].Labels,
			)
		}
	}
	return nil
}

// Join joins neighbouring pieces of one series. A series that does not fit into a frame continues
// in the next one with its labels repeated. joinable reports whether a pair of pieces may be such a
// continuation.
func Join(in []Series, joinable func(prev, next Series) bool) (out []Series, joined int) {
	var last Series
	for _, s := range in {
		if n := len(out); n > 0 && labels.Equal(out[n-1].Labels, s.Labels) && joinable(last, s) {
			out[n-1].Chunks = append(
				out[n-1].Chunks[:len(out[n-1].Chunks):len(out[n-1].Chunks)],
				s.Chunks...)
			joined++
		} else {
			out = append(out, s)
		}
		last = s
	}
	return out, joined
}
