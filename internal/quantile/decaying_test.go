package quantile

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// TestQuantile: the estimate is at most a fifth above the quantile.
func TestQuantile(t *testing.T) {
	f := func(q float64, least, spread time.Duration) {
		t.Helper()
		d := New(q, 100)
		rng := rand.New(rand.NewPCG(1, 2))
		for range 1600 {
			d.Observe(least + time.Duration(rng.Float64()*float64(spread)))
		}
		want := float64(least) + q*float64(spread)
		if got := float64(d.Value()); got < 0.95*want || got > 1.3*want {
			t.Errorf(
				"quantile %v of [%v, %v]: got %v, want about %v", q, least, least+spread, d.Value(),
				time.Duration(want),
			)
		}
	}
	f(0.95, 0, 10*time.Millisecond)
	f(0.5, time.Millisecond, time.Millisecond)
	f(0.95, 20*time.Millisecond, time.Second)
	f(0.99, time.Hour, time.Hour)
}

func TestTooLittleIsKnown(t *testing.T) {
	d := New(0.95, 50)
	for range 49 {
		d.Observe(time.Second)
	}
	if got := d.Value(); got != 0 {
		t.Errorf("after 49 durations of 50: %v", got)
	}
	if d.Observe(time.Second); d.Value() < time.Second {
		t.Errorf("after the 50th: %v", d.Value())
	}
}

// TestForgets: slow durations are forgotten.
func TestForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(0.95, 20)
		for range 200 {
			d.Observe(time.Second)
		}
		n := 0
		for ; d.Value() > 10*time.Millisecond && n < 10_000; n++ {
			time.Sleep(10 * time.Second)
			d.Observe(5 * time.Millisecond)
		}
		if n == 0 || n > 500 {
			t.Errorf("the estimate is fast after %d fast durations", n)
		}
	})
}

// TestForgetsWhatIsScattered: slow durations in many different buckets are forgotten too.
func TestForgetsWhatIsScattered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(0.95, 20)
		for v := 100 * time.Millisecond; v < 30*time.Second; v += v / 4 {
			for range 3 {
				d.Observe(v)
			}
		}
		n := 0
		for ; d.Value() > 10*time.Millisecond && n < 2_000; n++ {
			time.Sleep(10 * time.Second)
			d.Observe(5 * time.Millisecond)
		}
		if n == 0 || n > 500 {
			t.Errorf("after %d fast durations: %v", n, d.Value())
		}
	})
}
