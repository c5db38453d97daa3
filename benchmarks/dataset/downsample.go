package dataset

import (
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"larder/internal/tsdbfmt"
)

// aggrChunk is an aggregate chunk for the chunk writer: bytes with an encoding.
type aggrChunk struct {
	chunkenc.Chunk // nil: methods that are not overridden are not called
	data           []byte
	samples        int
}

func (c *aggrChunk) Bytes() []byte               { return c.data }
func (c *aggrChunk) Encoding() chunkenc.Encoding { return chunkenc.Encoding(tsdbfmt.EncAggr) }
func (c *aggrChunk) NumSamples() int             { return c.samples }
func (c *aggrChunk) Compact()                    {}

// downsampler makes aggregate chunks of the samples of one series.
//
// A window ends on the last millisecond before a multiple of the resolution, and its aggregates
// have that timestamp. The last window of a chunk has the timestamp of its last sample. The counter
// is corrected for resets since the start of the chunk. It starts with the first raw sample and
// ends with the last one, repeated at the last window's timestamp, so that a reader can detect a
// reset between two chunks. Native histograms have no minimum and maximum, and their counters no
// such first and last samples.
type downsampler struct {
	m          *model
	resolution int64
	size       int // windows in a chunk

	metas   []chunks.Meta
	windows int // in the open chunk
	mint    int64
	parts   [tsdbfmt.NumAggrs]chunkenc.Chunk
	apps    [tsdbfmt.NumAggrs]chunkenc.Appender

	end, last int64 // the open window's end and its last sample
	count     int   // samples in the open window, 0 for none
	// Aggregates of floats.
	sum, min, max, counter, lastValue float64
	// Aggregates of native histograms.
	hsum, hcounter, hlast *histogram.FloatHistogram
}

func (d *downsampler) add(t int64, ended bool) error {
	if ended {
		return nil // staleness is not downsampled
	}
	if d.count > 0 && t > d.end {
		if err := d.flush(d.windows == d.size-1); err != nil {
			return err
		}
	}
	if d.windows == 0 && d.count == 0 {
		if err := d.open(); err != nil {
			return err
		}
	}
	d.end = t - t%d.resolution + d.resolution - 1
	d.last = t
	if d.m.kind.native() {
		return d.addHistogram(d.m.floatHistogram(t))
	}
	v := d.m.float(t)
	if d.count == 0 {
		d.sum, d.min, d.max = 0, math.MaxFloat64, -math.MaxFloat64
	}
	d.sum += v
	d.min, d.max = min(d.min, v), max(d.max, v)
	if d.parts[tsdbfmt.AggrCounter].NumSamples() == 0 {
		d.apps[tsdbfmt.AggrCounter].Append(0, t, v)
		d.counter = v
	} else if v < d.lastValue {
		d.counter += v
	} else {
		d.counter += v - d.lastValue
	}
	d.lastValue = v
	d.count++
	return nil
}

func (d *downsampler) addHistogram(h *histogram.FloatHistogram) error {
	gauge := h.CounterResetHint == histogram.GaugeType
	var err error
	if d.count == 0 {
		d.hsum = h.Copy()
	} else if _, _, _, err = d.hsum.Add(h); err != nil {
		return err
	}
	// The sum of a window may be less than that of the previous one.
	d.hsum.CounterResetHint = histogram.GaugeType
	switch {
	case d.hcounter == nil:
		d.hcounter = h.Copy()
	case gauge:
		_, _, _, err = d.hcounter.Add(h)
	case h.DetectReset(d.hlast):
		_, _, _, err = d.hcounter.Add(h)
	default:
		var delta *histogram.FloatHistogram
		if delta, _, _, err = h.Copy().Sub(d.hlast); err == nil {
			_, _, _, err = d.hcounter.Add(delta)
		}
	}
	if gauge {
		d.hcounter.CounterResetHint = histogram.GaugeType
	} else {
		d.hcounter.CounterResetHint = histogram.UnknownCounterReset
	}
	d.hlast = h
	d.count++
	return err
}

// open starts a chunk.
func (d *downsampler) open() error {
	vt := [tsdbfmt.NumAggrs]chunkenc.ValueType{
		chunkenc.ValFloat, chunkenc.ValFloat, chunkenc.ValFloat, chunkenc.ValFloat,
		chunkenc.ValFloat,
	}
	if d.m.kind.native() {
		vt = [tsdbfmt.NumAggrs]chunkenc.ValueType{
			tsdbfmt.AggrCount:   chunkenc.ValFloat,
			tsdbfmt.AggrSum:     chunkenc.ValFloatHistogram,
			tsdbfmt.AggrCounter: chunkenc.ValFloatHistogram,
		}
	}
	d.hcounter = nil
	for i, v := range vt {
		d.parts[i], d.apps[i] = nil, nil
		if v == chunkenc.ValNone {
			continue
		}
		var err error
		if d.parts[i], err = v.NewChunk(false, false); err != nil {
			return err
		}
		if d.apps[i], err = d.parts[i].Appender(); err != nil {
			return err
		}
	}
	return nil
}

// flush closes the open window, and the chunk if this was its last window.
func (d *downsampler) flush(lastOfChunk bool) error {
	if d.count == 0 {
		return nil
	}
	t := d.end
	if lastOfChunk {
		t = d.last
	}
	if d.windows == 0 {
		// Same as Thanos: the first window's timestamp, although the counter's first sample is
		// earlier.
		d.mint = t
	}
	d.apps[tsdbfmt.AggrCount].Append(0, t, float64(d.count))
	if d.m.kind.native() {
		for _, part := range []struct {
			i int
			h *histogram.FloatHistogram
		}{{tsdbfmt.AggrSum, d.hsum}, {tsdbfmt.AggrCounter, d.hcounter}} {
			i := part.i
			next, recoded, app, err := d.apps[i].AppendFloatHistogram(nil, 0, t, part.h.Copy(),
				false)
			if err != nil {
				return err
			}
			if next != nil && !recoded {
				return errors.New("an aggregate of a native histogram does not fit into its chunk")
			}
			if next != nil {
				d.parts[i] = next
			}
			d.apps[i] = app
		}
	} else {
		d.apps[tsdbfmt.AggrSum].Append(0, t, d.sum)
		d.apps[tsdbfmt.AggrMin].Append(0, t, d.min)
		d.apps[tsdbfmt.AggrMax].Append(0, t, d.max)
		d.apps[tsdbfmt.AggrCounter].Append(0, t, d.counter)
		if lastOfChunk {
			d.apps[tsdbfmt.AggrCounter].Append(0, t, d.lastValue)
		}
	}
	d.windows++
	d.count = 0
	if lastOfChunk {
		d.close(t)
	}
	return nil
}

// close makes the aggregate chunk of the open parts, whose last window is at maxt.
func (d *downsampler) close(maxt int64) {
	var sub [tsdbfmt.NumAggrs]tsdbfmt.SubChunk
	for i, c := range d.parts {
		if c != nil {
			sub[i] = tsdbfmt.SubChunk{Enc: byte(c.Encoding()), Data: c.Bytes(), Present: true}
		}
	}
	d.metas = append(d.metas, chunks.Meta{
		MinTime: d.mint,
		MaxTime: maxt,
		Chunk:   &aggrChunk{data: tsdbfmt.AppendAggrChunk(nil, sub), samples: d.windows},
	})
	d.windows = 0
}
