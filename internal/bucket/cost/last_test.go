package cost

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestLast: a range that is shorter than InFlight is split if nothing is read after it, into as
// many parts as pay for their requests. Sets that are read beside it are not split with it. The
// plan never costs more.
func TestLast(t *testing.T) {
	const kib = 1 << 10
	for _, c := range []struct {
		size  int64
		reads int // parts of a last read
	}{{64 * kib, 1}, {128 * kib, 1}, {192 * kib, 1}, {512 * kib, 3}, {1400 * kib, 4}} {
		need := []Extent{{0, c.size}}
		if got := len(Model{}.Plan(need, unit)); got != 1 {
			t.Errorf("%d bytes: %d reads, want 1", c.size, got)
		}
		part := Model{}.LastPart([]int64{c.size})
		if (part > 0) != (c.reads > 1) {
			t.Errorf("%d bytes: parts of %d", c.size, part)
		}
		if got := (Model{}).Last(part).Plan(need, unit); len(got) != c.reads {
			t.Errorf("%d bytes: %d last reads, want %d", c.size, len(got), c.reads)
		}
	}
	sets := []int64{1400 * kib}
	for range 12 {
		sets = append(sets, 110*kib)
	}
	if part := (Model{}).LastPart(sets); part < 280*kib || part > 400*kib {
		t.Errorf("one large set of 13: parts of %d", part)
	}
	sets = sets[:0]
	for range 9 {
		sets = append(sets, 280*kib)
	}
	if part := (Model{}).LastPart(sets); part != 0 {
		t.Errorf("nine equal sets: parts of %d", part)
	}
	if part := (Model{}).LastPart(nil); part != 0 {
		t.Errorf("no sets: parts of %d", part)
	}
	if part := (Model{PerRequest: time.Second}).LastPart([]int64{8 << 20}); part != 0 {
		t.Errorf("parts of %d, although a request costs a second", part)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		need := randomNeed(rng, 60)
		m := Model{}
		plain, last := m.Plan(need, unit), m.Last(minLastPart).Plan(need, unit)
		if m.Cost(last) > m.Cost(plain) {
			t.Fatalf("the last reads cost %v, others %v", m.Cost(last), m.Cost(plain))
		}
	}
}
