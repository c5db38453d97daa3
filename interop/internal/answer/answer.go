// Package answer turns what a store gateway says into values that can be compared, and compares
// them: everything a client can see of an answer is in an Answer, and Diff leaves out nothing of
// it.
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

	// Names and Values are what the label calls return.
	List []string

	Info *Info
}

// Series is one series as sent. An answer may hold the same label set in several pieces; Join makes
// them one.
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
	// Batch is whether it was a SeriesBatch; Series is how many series it held.
	Batch  bool
	Series int
	// Kind is "series", "warning", "hints" or "unknown".
	Kind string
}

// Hints are a response's hints; of query stats only what does not depend on how the gateway works
// inside.
type Hints struct {
	Blocks []string
	// Stats is nil when the answer carried no query stats.
	Stats *Stats
}

// Stats are the query stats two gateways can agree on.
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

// BlockSet is the queried blocks, each once.
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
	// Others is what a store has not: exemplars, rules, targets, metadata, queries.
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

// Check reports what is wrong with an answer whatever was asked: label sets out of order, or sent
// twice. The reference must pass it, or it is wired wrongly and everything compared with it means
// nothing.
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

// Join makes neighbouring pieces of one series one. A series that does not fit a frame continues in
// the next one with its labels repeated; joinable says whether this pair of pieces may be such a
// one.
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
