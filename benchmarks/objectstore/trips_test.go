package objectstore

import (
	"testing"
	"time"
)

func TestChain(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(0, int64(ms)*1e6) }
	read := func(from, to int) Read { return Read{Start: at(from), End: at(to)} }
	for _, c := range []struct {
		name  string
		reads []Read
		want  int
	}{
		{"no reads", nil, 0},
		{"side by side", []Read{read(0, 20), read(19, 39)}, 1},
		{"one after the other", []Read{read(20, 40), read(0, 20)}, 2},
		{"the long read is not in the chain", []Read{
			read(0, 100), read(0, 20), read(20, 40), read(50, 70),
		}, 3},
	} {
		if got := Chain(c.reads); got != c.want {
			t.Errorf("%s: a chain of %d, want %d", c.name, got, c.want)
		}
	}
	a, b := read(0, 20), read(20, 40)
	a.Name, b.Name = "one/index", "two/index"
	if got := Trips([]Read{a, b}); got != 1 {
		t.Errorf("reads of two blocks: %d trips, want 1", got)
	}
}

// TestBusy: reads that overlap count once, and the time between reads does not count.
func TestBusy(t *testing.T) {
	at := func(from, to int) Read {
		base := time.Unix(0, 0)
		return Read{
			Start: base.Add(time.Duration(from) * time.Second),
			End:   base.Add(time.Duration(to) * time.Second),
		}
	}
	for _, c := range []struct {
		reads []Read
		want  time.Duration
	}{
		{nil, 0},
		{[]Read{at(5, 7), at(0, 3)}, 5 * time.Second},
		{[]Read{at(0, 3), at(1, 2), at(2, 5)}, 5 * time.Second},
	} {
		if got := Busy(c.reads); got != c.want {
			t.Errorf("%v: %s, want %s", c.reads, got, c.want)
		}
	}
}
