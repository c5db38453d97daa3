package cost

import (
	"testing"
	"time"
)

// TestMeterStartsWithDefaults: the figures change after enough reads only.
func TestMeterStartsWithDefaults(t *testing.T) {
	for _, m := range []*Meter{nil, NewMeter(Model{}), Fixed(Model{})} {
		n := minSamples - 1
		if m == nil || m.fixed != nil {
			n = 2 * minSamples
		}
		for range n {
			m.Observe(time.Second, time.Second, 1<<20)
		}
		got, want := m.Model().withDefaults(), Model{}.withDefaults()
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// TestMeterMeasures: figures follow what is measured in powers of two, and are bounded.
func TestMeterMeasures(t *testing.T) {
	const lambda = 500 * time.Microsecond
	for name, c := range map[string]struct {
		first, body time.Duration
		bytes       int64
		want        Model
	}{
		"as the defaults": {
			24 * time.Millisecond, 15 * time.Millisecond, 1 << 20,
			Model{FirstByte: 20 * time.Millisecond, BytesPerSecond: 80e6, PerRequest: lambda},
		},
		"twice as far": {
			44 * time.Millisecond, 27 * time.Millisecond, 1 << 20,
			Model{FirstByte: 40 * time.Millisecond, BytesPerSecond: 40e6, PerRequest: lambda},
		},
		"small bodies say nothing": {
			10 * time.Millisecond, time.Second, minBody - 1,
			Model{FirstByte: 10 * time.Millisecond, BytesPerSecond: 80e6, PerRequest: lambda},
		},
		"a local disk": {
			time.Microsecond, time.Microsecond, 1 << 20,
			Model{
				FirstByte: 39062, BytesPerSecond: 1.28e9, PerRequest: 39062,
			},
		},
		"out of reach": {
			time.Minute, time.Hour, 1 << 20,
			Model{FirstByte: 320 * time.Millisecond, BytesPerSecond: 5e6, PerRequest: lambda},
		},
	} {
		m := NewMeter(Model{PerRequest: lambda})
		for range 4 * minSamples {
			m.Observe(c.first, c.body, c.bytes)
		}
		if got := m.Model(); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// TestMeterIsSteady: a figure near the border of two steps keeps the one it has.
func TestMeterIsSteady(t *testing.T) {
	m := NewMeter(Model{PerRequest: -1})
	for _, first := range []time.Duration{20, 25, 29, 24, 17, 13, 28} {
		for range 4096 {
			m.Observe(first*time.Millisecond, 0, 0)
		}
		if got := m.Model(); got.FirstByte != 20*time.Millisecond || got.PerRequest != -1 {
			t.Errorf("after %d ms: %+v", first, got)
		}
	}
}
