package dataset

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// chunks returns the chunks of a series.
func (b *Block) chunks(s Series) ([]chunks.Meta, error) {
	c := chunker{b: b, m: newModel(s), size: b.SamplesPerChunk}
	if c.size == 0 {
		c.size = defaultSamplesPerChunk
	}
	if b.Resolution != 0 {
		d := downsampler{m: &c.m, resolution: b.Resolution, size: c.size}
		if err := b.times(s, d.add); err != nil {
			return nil, err
		}
		return d.metas, d.flush(true)
	}
	add := c.addFloat
	if s.Kind.native() {
		c.size = max(1, c.size/3)
		add = c.addHistogram
	}
	if err := b.times(s, add); err != nil {
		return nil, err
	}
	c.cut()
	return c.metas, nil
}

// chunker cuts the samples of one series into chunks.
type chunker struct {
	b    *Block
	m    model
	size int

	metas []chunks.Meta
	cur   chunks.Meta // Chunk is nil if none is open
	n     int         // samples in cur
	app   chunkenc.Appender
}

// cut closes the open chunk.
func (c *chunker) cut() {
	if c.cur.Chunk != nil {
		c.metas = append(c.metas, c.cur)
	}
	c.cur, c.n = chunks.Meta{}, 0
}

// open starts a chunk if none is open or the open one is full.
func (c *chunker) open(t int64, vt chunkenc.ValueType) error {
	if c.cur.Chunk != nil && c.n < c.size {
		return nil
	}
	c.cut()
	chunk, err := vt.NewChunk(c.b.StartTimestamps, c.b.StartTimestamps)
	if err != nil {
		return err
	}
	if c.app, err = chunk.Appender(); err != nil {
		return err
	}
	c.cur = chunks.Meta{Chunk: chunk, MinTime: t}
	return nil
}

// start returns the start timestamp of the sample at t: the time at which the counter was last 0.
func (c *chunker) start(t int64) int64 {
	if !c.b.StartTimestamps || c.m.kind == Bytes || c.m.kind == Ratio || c.m.kind == Up ||
		c.m.kind == GaugeHistogram {
		return 0
	}
	k := uint64(t / tick)
	return int64(k-(k+c.m.seed>>16)%c.m.period) * tick
}

func (c *chunker) addFloat(t int64, ended bool) error {
	if err := c.open(t, chunkenc.ValFloat); err != nil {
		return err
	}
	v := math.Float64frombits(value.StaleNaN)
	if !ended {
		v = c.m.float(t)
	}
	c.app.Append(c.start(t), t, v)
	c.cur.MaxTime = t
	c.n++
	return nil
}

func (c *chunker) addHistogram(t int64, ended bool) error {
	float := c.m.kind == FloatHistogram
	vt := chunkenc.ValHistogram
	if float {
		vt = chunkenc.ValFloatHistogram
	}
	before := c.app
	if err := c.open(t, vt); err != nil {
		return err
	}
	var (
		next    chunkenc.Chunk
		recoded bool
		app     chunkenc.Appender
		err     error
	)
	if float {
		h := &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}
		if !ended {
			h = c.m.floatHistogram(t)
		}
		next, recoded, app, err = c.app.AppendFloatHistogram(before, c.start(t), t, h, false)
	} else {
		h := &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
		if !ended {
			h = c.m.histogram(t)
		}
		next, recoded, app, err = c.app.AppendHistogram(before, c.start(t), t, h, false)
	}
	if err != nil {
		return err
	}
	if next != nil && recoded {
		c.cur.Chunk = next
	} else if next != nil { // the sample does not fit after the others: a counter reset
		c.cut()
		c.cur = chunks.Meta{Chunk: next, MinTime: t}
	}
	c.app = app
	c.cur.MaxTime = t
	c.n++
	return nil
}
