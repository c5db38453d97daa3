package layout

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

type kind int

const (
	counter kind = iota
	gauge
	nativeHistogram
	nativeFloatHistogram
	// giant series have more chunk bytes than one frame of an answer may have.
	giant
)

const minute = int64(60 * 1000)

// sample is one point in the form that chunks.ChunkFromSamples needs.
type sample struct {
	t  int64
	f  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

func (s sample) T() int64                      { return s.t }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return s.h }
func (s sample) FH() *histogram.FloatHistogram { return s.fh }
func (s sample) Copy() chunks.Sample           { return s }

func (s sample) Type() chunkenc.ValueType {
	switch {
	case s.h != nil:
		return chunkenc.ValHistogram
	case s.fh != nil:
		return chunkenc.ValFloatHistogram
	default:
		return chunkenc.ValFloat
	}
}

// source is one time series of the universe. Values depend only on its number and the time;
// therefore two blocks of the same time, or two replicas without skew, contain identical chunks.
type source struct {
	number int
	kind   kind
	step   int64
	// alive are the ranges in which the series has samples.
	alive []Range
}

// skew makes a replica differ: its scrapes are late, and every third series has other values.
type skew struct {
	offset int64
	values bool
}

func (s *source) value(t int64, sk skew) float64 {
	x := float64(t/s.step%1_000_000) * float64(s.number%7+1)
	if sk.values && s.number%3 == 0 {
		x += 0.5
	}
	switch s.kind {
	case counter:
		// A reset every 97 minutes.
		return math.Mod(x, float64(97*minute/s.step*int64(s.number%7+1)))
	case giant:
		r := rand.New(rand.NewPCG(uint64(s.number), uint64(t)))
		return r.Float64() * x
	default:
		return math.Round(math.Sin(x/40)*1000) / 8
	}
}

func (s *source) at(t int64, sk skew) sample {
	switch s.kind {
	case nativeHistogram:
		return sample{t: t, h: tsdbutil.GenerateTestHistogram(t / s.step % 100_000)}
	case nativeFloatHistogram:
		return sample{t: t, fh: tsdbutil.GenerateTestFloatHistogram(t / s.step % 100_000)}
	default:
		return sample{t: t, f: s.value(t, sk)}
	}
}

// chunksOf returns the series' chunks within [mint, maxt), cut where the absolute time crosses a
// multiple of span. edges adds samples on the block's first and last millisecond.
func (s *source) chunksOf(mint, maxt, span int64, sk skew, edges bool) ([]chunks.Meta, error) {
	var out []chunks.Meta
	var buf []chunks.Sample
	flush := func() error {
		if len(buf) == 0 {
			return nil
		}
		c, err := chunks.ChunkFromSamples(buf)
		if err != nil {
			return fmt.Errorf("series %d: chunk at %d: %w", s.number, buf[0].T(), err)
		}
		out = append(out, c)
		buf = buf[:0]
		return nil
	}
	add := func(t int64) error {
		if len(buf) > 0 && t/span != buf[len(buf)-1].T()/span {
			if err := flush(); err != nil {
				return err
			}
		}
		buf = append(buf, s.at(t, sk))
		return nil
	}
	if edges {
		if err := add(mint); err != nil {
			return nil, err
		}
	}
	// The first scrape of the absolute grid at or after mint.
	first := mint + (s.step-(mint-sk.offset)%s.step)%s.step
	last := mint
	for t := first; t < maxt; t += s.step {
		if !s.aliveAt(t) || edges && (t == mint || t == maxt-1) {
			continue
		}
		if err := add(t); err != nil {
			return nil, err
		}
		last = t
	}
	if edges && last < maxt-1 && mint < maxt-1 {
		if err := add(maxt - 1); err != nil {
			return nil, err
		}
	}
	return out, flush()
}

func (s *source) aliveAt(t int64) bool {
	for _, r := range s.alive {
		if t >= r.Min && t <= r.Max {
			return true
		}
	}
	return false
}
