// Package samples extracts the samples of a store gateway's answers and compares them with the
// samples that were written. Package answer compares two answers byte by byte. Package samples
// checks that an answer is true: the writers of blocks may cut, join, repeat or aggregate chunks,
// but samples may not change.
package samples

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"larder/interop/internal/answer"
)

// Point is one sample: a time in milliseconds and a value.
type Point struct {
	T int64
	V float64
}

func (p Point) equal(o Point) bool {
	return p.T == o.T && math.Float64bits(p.V) == math.Float64bits(o.V)
}

// Set has the samples of series, by label set in Prometheus's notation; the samples of each are in
// order of time.
type Set map[string][]Point

// Add adds samples to a series, in any order.
func (s Set) Add(ls labels.Labels, points ...Point) {
	s[ls.String()] = append(s[ls.String()], points...)
}

// Points counts the samples.
func (s Set) Points() int {
	n := 0
	for _, p := range s {
		n += len(p)
	}
	return n
}

// Within returns the samples from mint to before maxt. Series without such samples are left out.
func (s Set) Within(mint, maxt int64) Set {
	out := Set{}
	for name, points := range s {
		for _, p := range points {
			if p.T >= mint && p.T < maxt {
				out[name] = append(out[name], p)
			}
		}
	}
	return out
}

// Merge adds the samples of another answer to the same question.
func (s Set) Merge(o Set) error {
	for name, points := range o {
		s[name] = append(s[name], points...)
	}
	return s.tidy()
}

// tidy sorts the samples of every series. It accepts a sample twice; two values at one time are an
// error.
func (s Set) tidy() error {
	for name, points := range s {
		slices.SortFunc(points, func(a, b Point) int { return cmp.Compare(a.T, b.T) })
		out := points[:0]
		for _, p := range points {
			if n := len(out); n > 0 && out[n-1].T == p.T {
				if !out[n-1].equal(p) {
					return fmt.Errorf(
						"%s has two values at %d: %v and %v", name, p.T, out[n-1].V, p.V,
					)
				}
				continue
			}
			out = append(out, p)
		}
		s[name] = out
	}
	return nil
}

// Diff returns the first difference of got from s, or "".
func (s Set) Diff(got Set) string {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		want, have := s[name], got[name]
		if have == nil {
			return fmt.Sprintf("series %s is missing", name)
		}
		for i := range max(len(want), len(have)) {
			switch {
			case i == len(want):
				return fmt.Sprintf(
					"%s has %d samples, want %d: the first that is too many is %v", name, len(have),
					len(want), have[i],
				)
			case i == len(have):
				return fmt.Sprintf(
					"%s has %d samples, want %d: it lacks %v", name, len(have), len(want), want[i],
				)
			case !want[i].equal(have[i]):
				return fmt.Sprintf("sample %d of %s is %v, want %v", i, name, have[i], want[i])
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := s[name]; !ok {
			return fmt.Sprintf("series %s is too many", name)
		}
	}
	return ""
}

// Raw returns the samples of an answer that has only raw floats.
func Raw(series []answer.Series) (Set, error) {
	out := Set{}
	for _, s := range series {
		for _, c := range s.Chunks {
			for i, p := range c.Parts {
				if p == nil {
					continue
				}
				if i != 0 {
					return nil, fmt.Errorf(
						"%s: a chunk of %s among raw ones", s.Labels, answer.PartNames[i],
					)
				}
				points, err := decode(p)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", s.Labels, err)
				}
				out.Add(s.Labels, points...)
			}
		}
	}
	return out, out.tidy()
}

// decode decodes a chunk of floats.
func decode(p *answer.Part) ([]Point, error) {
	// The StoreAPI's type of float chunks is 0.
	if p.Type != 0 {
		return nil, fmt.Errorf("chunk of unexpected type %d", p.Type)
	}
	c, err := chunkenc.FromData(chunkenc.EncXOR, p.Data)
	if err != nil {
		return nil, err
	}
	out := make([]Point, 0, c.NumSamples())
	it := c.Iterator(nil)
	for it.Next() == chunkenc.ValFloat {
		t, v := it.At()
		out = append(out, Point{t, v})
	}
	return out, it.Err()
}
