package stats_test

import (
	"testing"

	"larder/interop/internal/compare/stats"
)

func TestQuantiles(t *testing.T) {
	xs := []float64{7, 1, 3, 5, 2, 6, 4}
	for q, want := range map[float64]float64{0: 1, 0.25: 2, 0.5: 4, 0.75: 6, 0.99: 7, 1: 7} {
		if got := stats.Quantile(xs, q); got != want {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
	if got := stats.Spread(xs); got != 2 {
		t.Errorf("spread: got %v, want 2", got)
	}
	if got := stats.Median(nil); got != 0 {
		t.Errorf("median of nothing: got %v, want 0", got)
	}
}
