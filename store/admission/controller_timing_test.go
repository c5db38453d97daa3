package admission

import (
	"testing"
)

// BenchmarkAdmission measures a turn that does not wait.
func BenchmarkAdmission(b *testing.B) {
	a := New(GateOptions{MaxConcurrent: 20}, AllowanceOptions{},
		NewLimits(LimitOptions{}, nil, nil), nil)
	ctx := b.Context()
	for _, c := range []struct {
		name string
		n    int64
	}{{"small", 100 << 10}, {"large", 20 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				turn, err := a.Enter(ctx, DefaultTenant, SeriesRequest)
				if err != nil {
					b.Fatal(err)
				}
				if err := turn.SettleTotal(c.n); err != nil {
					b.Fatal(err)
				}
				turn.Close()
			}
		})
	}
	b.Run("contended", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				turn, err := a.Enter(ctx, DefaultTenant, SeriesRequest)
				if err != nil {
					b.Error(err)
					return
				}
				turn.Close()
			}
		})
	})
}
