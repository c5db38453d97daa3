package price_test

import (
	"math"
	"testing"
	"time"

	"larder/interop/internal/compare/price"
	"larder/interop/internal/compare/trips"
)

func TestThousand(t *testing.T) {
	l := price.List{Get: 0.0004, ListRequest: 0.005, CPUHour: 0.036}
	c := trips.Count{
		Index: trips.Volume{Requests: 30}, Chunks: trips.Volume{Requests: 60},
		Meta: trips.Volume{Requests: 11}, Lists: 1,
	}
	// 100 GETs and a listing a query, and 100 CPU seconds for all of them.
	want := 100*0.0004 + 0.005 + 100.0/3600*0.036
	if got := l.Thousand(100*time.Millisecond, c); math.Abs(got-want) > 1e-9 {
		t.Errorf("price of 1,000 queries: got %v, want %v", got, want)
	}
}
