package bench

import (
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"larder/benchmarks/bench/report"
	"larder/internal/budget"
	"larder/store"
	"larder/store/storepb"
)

// longest is the longest time that a histogram can hold, in microseconds. Longer ones count as
// this.
const longest = int64(time.Hour / time.Microsecond)

// newHistogram holds microseconds with three digits.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, longest, 3) }

// recorder records the requests of one scenario.
type recorder struct {
	mu     sync.Mutex
	paused bool
	// client has the rows that the client measures, gateway the stages if the gateway runs in this
	// process, hints those in the statistics of answers.
	client, gateway, hints map[string]*hdrhistogram.Histogram

	requests, errors int
	err              error
	bytes            int64
	series           int64 // sent by the gateway in this process
	seriesRequests   int
	stats            storepb.QueryStats // sums
	withStats        int
}

func newRecorder() *recorder {
	return &recorder{
		client:  map[string]*hdrhistogram.Histogram{},
		gateway: map[string]*hdrhistogram.Histogram{},
		hints:   map[string]*hdrhistogram.Histogram{},
	}
}

// pause ends recording, or begins it again.
func (r *recorder) pause(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = on
}

func record(hs map[string]*hdrhistogram.Histogram, row string, d time.Duration) {
	h := hs[row]
	if h == nil {
		h = newHistogram()
		hs[row] = h
	}
	// It cannot fail, because the value is in the range of the histogram.
	_ = h.RecordValue(min(max(d.Microseconds(), 0), longest))
}

// answered records a request that began, or should have begun, at from.
func (r *recorder) answered(c *call, from time.Time, a answer, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused {
		return
	}
	r.requests++
	// A failed request counts with its time, so that one that times out does not improve a figure.
	record(r.client, budget.Total, a.end.Sub(from))
	if err != nil {
		r.errors++
		if r.err == nil {
			r.err = err
		}
		return
	}
	r.bytes += a.bytes
	if !c.series {
		return
	}
	r.seriesRequests++
	if !a.first.IsZero() {
		record(r.client, budget.FirstFrame, a.first.Sub(from))
	}
	if s := a.stats; s != nil {
		r.withStats++
		record(r.hints, "postings", s.GetGetAllDuration().AsDuration())
		record(r.hints, "series", s.GetMergeDuration().AsDuration())
		r.stats.MergedSeriesCount += s.MergedSeriesCount
		r.stats.PostingsFetchCount += s.PostingsFetchCount
		r.stats.SeriesFetchCount += s.SeriesFetchCount
		r.stats.ChunksFetchCount += s.ChunksFetchCount
		r.stats.DataDownloadedSizeSum += s.DataDownloadedSizeSum
	}
}

// finished records the stages of a request that has ended in this process.
func (r *recorder) finished(f store.Finished) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused {
		return
	}
	for i, name := range store.StageNames() {
		record(r.gateway, name, f.Stages[i])
	}
	r.series += f.Series
}

// Sources of rows.
const (
	byClient  = "client"
	byGateway = "gateway"
	byMetrics = "metrics"
	byHints   = "hints"
)

// rows returns the rows that were recorded, in the order of budget.Rows, and those of more for
// the other stages.
func (r *recorder) rows(quantile float64, times budget.Times, more []report.Row) []report.Row {
	var out []report.Row
	for _, name := range budget.Rows() {
		if i := slices.IndexFunc(more, func(m report.Row) bool { return m.Name == name }); i >= 0 &&
			r.gateway[name] == nil {
			out = append(out, more[i])
			continue
		}
		for _, from := range []struct {
			source string
			hs     map[string]*hdrhistogram.Histogram
		}{{byClient, r.client}, {byGateway, r.gateway}, {byHints, r.hints}} {
			h := from.hs[name]
			if h == nil || h.Max() == 0 {
				continue
			}
			at := func(q float64) float64 { return float64(h.ValueAtQuantile(100*q)) / 1e3 }
			out = append(out, report.Row{
				Name: name, Source: from.source, P50: at(0.5), P90: at(0.9), P99: at(0.99),
				Max: float64(h.Max()) / 1e3, Mean: h.Mean() / 1e3, At: at(quantile),
			})
			break
		}
	}
	for i := range out {
		out[i].Budget = float64(times.Of(out[i].Name)) / float64(time.Millisecond)
	}
	return out
}

// curve returns the distribution of the total time.
func (r *recorder) curve() []report.Point {
	h := r.client[budget.Total]
	if h == nil {
		return nil
	}
	var out []report.Point
	for _, share := range []float64{
		0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.993,
		0.995, 0.998, 0.999, 1,
	} {
		out = append(out, report.Point{
			Share: share, MS: float64(h.ValueAtQuantile(100*share)) / 1e3,
		})
	}
	return out
}
