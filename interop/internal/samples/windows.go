package samples

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"

	"larder/interop/internal/answer"
	"larder/interop/internal/layout"
)

// aggregate is one window of a downsampled chunk: the time t at which it ends, and the aggregates
// of its samples.
type aggregate struct {
	t                    int64
	count, sum, min, max float64
}

// Aggregates compares an answer that may have aggregates (count, sum, min and max were requested)
// with the raw samples. Every raw sample must be there, every aggregate must be that of its window,
// and together they must cover all samples. It returns the number of aggregates.
func (s Set) Aggregates(series []answer.Series) (int, error) {
	raw, aggregates := Set{}, map[string][]aggregate{}
	for _, a := range series {
		name := a.Labels.String()
		for _, c := range a.Chunks {
			if c.Parts[0] != nil {
				points, err := decode(c.Parts[0])
				if err != nil {
					return 0, fmt.Errorf("%s: %w", name, err)
				}
				raw[name] = append(raw[name], points...)
				continue
			}
			windows, err := decodeAggregates(c)
			if err != nil {
				return 0, fmt.Errorf("%s, aggregates at %d: %w", name, c.MinTime, err)
			}
			aggregates[name] = append(aggregates[name], windows...)
		}
	}
	if err := raw.tidy(); err != nil {
		return 0, err
	}
	for _, a := range series {
		if name := a.Labels.String(); s[name] == nil {
			return 0, fmt.Errorf("unexpected series %s", name)
		}
	}
	n := 0
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if err := covers(s[name], raw[name], aggregates[name]); err != nil {
			return n, fmt.Errorf("%s: %w", name, err)
		}
		n += len(aggregates[name])
	}
	return n, nil
}

// decodeAggregates decodes the aggregates of a chunk. Parts are in the order raw, count, sum, min,
// max, counter.
func decodeAggregates(c answer.Chunk) ([]aggregate, error) {
	var parts [4][]Point
	for i := range parts {
		p := c.Parts[1+i]
		if p == nil {
			return nil, fmt.Errorf("no %s", answer.PartNames[1+i])
		}
		var err error
		if parts[i], err = decode(p); err != nil {
			return nil, fmt.Errorf("%s: %w", answer.PartNames[1+i], err)
		}
		if len(parts[i]) != len(parts[0]) {
			return nil, fmt.Errorf(
				"%d of %s, %d of %s", len(parts[i]), answer.PartNames[1+i], len(parts[0]),
				answer.PartNames[1],
			)
		}
	}
	out := make([]aggregate, len(parts[0]))
	for i := range out {
		out[i] = aggregate{
			parts[0][i].T,
			parts[0][i].V,
			parts[1][i].V,
			parts[2][i].V,
			parts[3][i].V,
		}
	}
	return out, nil
}

// covers compares the samples and windows of one series with the truth.
func covers(truth, raw []Point, windows []aggregate) error {
	covered := make([]bool, len(truth))
	at := func(t int64) int {
		return sort.Search(len(truth), func(i int) bool {
			return truth[i].T >= t
		})
	}
	for _, p := range raw {
		i := at(p.T)
		if i == len(truth) || !truth[i].equal(p) {
			return fmt.Errorf("the raw sample %v was never written", p)
		}
		covered[i] = true
	}
	slices.SortFunc(windows, func(a, b aggregate) int { return cmp.Compare(a.t, b.t) })
	for i, w := range windows {
		hour := w.t - w.t%layout.OneHour
		// A window begins on the grid of its resolution. A window of an hour is divided where a
		// chunk of the finer resolution ended.
		starts := []int64{w.t - w.t%layout.FiveMinutes, hour}
		if i > 0 && windows[i-1].t >= hour {
			starts = append(starts, windows[i-1].t+1)
		}
		end, fits := at(w.t+1), false
		for _, start := range starts {
			if from := at(start); w.fits(truth[from:end]) {
				fits = true
				for k := from; k < end; k++ {
					covered[k] = true
				}
			}
		}
		if !fits {
			return fmt.Errorf(
				"the window that ends at %d is %+v, which is that of no window there", w.t, w,
			)
		}
	}
	for i, ok := range covered {
		if !ok {
			return fmt.Errorf("the sample %v is missing: it is neither raw nor in a window", truth[i])
		}
	}
	return nil
}

func (w aggregate) fits(points []Point) bool {
	if len(points) == 0 {
		return false
	}
	is := aggregate{t: w.t, min: points[0].V, max: points[0].V}
	for _, p := range points {
		is.count++
		is.sum += p.V
		is.min, is.max = min(is.min, p.V), max(is.max, p.V)
	}
	return is == w
}
