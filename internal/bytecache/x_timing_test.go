package bytecache

import (
	"sync/atomic"
	"testing"
)

func BenchmarkMemoryGet(b *testing.B) {
	m := newBytes(Options{MaxBytes: 256 << 20})
	defer m.Close()
	const n = 20_000
	for key := range uint64(n) {
		m.Set(key, make([]byte, 8<<10))
	}
	m.policy.Wait()
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			m.Get(uint64(i) % n)
		}
	})
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			m.Get(1<<40 + uint64(i)%n)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		var start atomic.Uint64
		b.RunParallel(func(pb *testing.PB) {
			i := start.Add(7919)
			for pb.Next() {
				m.Get(i % n)
				i++
			}
		})
	})
}

// BenchmarkMemorySet sets new values into a full cache. Some are never requested and leave the
// queue without reaching the policy; the others are, and each of them evicts a value.
func BenchmarkMemorySet(b *testing.B) {
	value := make([]byte, 8<<10)
	run := func(name string, asked bool) {
		b.Run(name, func(b *testing.B) {
			m := newBytes(Options{MaxBytes: 64 << 20})
			defer m.Close()
			b.ReportAllocs()
			key := uint64(0)
			for b.Loop() {
				if asked {
					m.SetAsked(key, value, int64(len(value)))
				} else {
					m.Set(key, value)
				}
				key++
			}
		})
	}
	run("once", false)
	run("asked", true)
}
