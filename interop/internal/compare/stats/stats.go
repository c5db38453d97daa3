// Package stats has the few figures that the comparison makes of repeated measurements.
package stats

import "slices"

// Quantile is the value below which the share q of xs lies, by the nearest rank; 0 without values.
func Quantile(xs []float64, q float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(xs))
	i := int(q*float64(len(s))+0.999999) - 1
	return s[min(max(i, 0), len(s)-1)]
}

// Median is the middle value.
func Median(xs []float64) float64 { return Quantile(xs, 0.5) }

// Spread is half of the distance between the quartiles: half of the values lie within about that
// distance of the median.
func Spread(xs []float64) float64 { return (Quantile(xs, 0.75) - Quantile(xs, 0.25)) / 2 }
