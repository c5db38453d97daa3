package cost

import (
	"math/rand/v2"
	"testing"
)

func BenchmarkPlan(b *testing.B) {
	rng := rand.New(rand.NewPCG(5, 6))
	need := randomNeed(rng, 10)
	for len(need) < 200 {
		need = randomNeed(rng, 300)
	}
	b.Logf("%d ranges", len(need))
	b.ReportAllocs()
	for b.Loop() {
		Model{}.Plan(need, unit)
	}
}
