package cost

import (
	"math/rand/v2"
	"testing"
)

// TestBeside: the more sets are read together, the fewer reads each has. Gaps stay bounded.
func TestBeside(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	fewer := 0
	for range 300 {
		need := randomNeed(rng, 60)
		m := Model{MaxGap: 40 * unit}
		one, many := m.Plan(need, unit), m.Beside(13).Plan(need, unit)
		if got := m.Beside(1).Plan(need, unit); len(got) != len(one) {
			t.Fatalf("%d reads beside none, %d alone", len(got), len(one))
		}
		if len(many) > len(one) {
			t.Fatalf("%d reads beside 12 other sets, %d alone", len(many), len(one))
		}
		if len(many) < len(one) {
			fewer++
		}
		for _, r := range many {
			end := r.Off
			for _, e := range need {
				if e.Off >= r.Off && e.End <= r.End {
					if e.Off-end > m.MaxGap {
						t.Fatalf("a gap of %d bytes is read", e.Off-end)
					}
					end = e.End
				}
			}
		}
	}
	if fewer < 30 {
		t.Errorf("only %d of 300 plans have fewer reads beside others", fewer)
	}
	// Scattered entries of one metric in each of 13 blocks.
	var need []Extent
	for i := range int64(49) {
		need = append(need, Extent{i * 10 * unit, i*10*unit + unit})
	}
	alone, beside := len(Model{}.Plan(need, unit)), len(Model{}.Beside(13).Plan(need, unit))
	if alone < 3*beside {
		t.Errorf("%d reads alone, %d beside 12 others: too little difference", alone, beside)
	}
}
