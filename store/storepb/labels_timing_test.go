package storepb

import (
	"fmt"
	"testing"
)

func BenchmarkCompareLabels(b *testing.B) {
	set := func(last string) []byte {
		var out []byte
		for i := range 11 {
			out = AppendLabel(out, fmt.Sprintf("label_%02d", i), fmt.Sprintf("some-value-of-%d", i))
		}
		return AppendLabel(out, "zone", last)
	}
	x, y := set("eu-west-1a"), set("eu-west-1b")
	b.Run("equal", func(b *testing.B) {
		for b.Loop() {
			if CompareLabels(x, x) != 0 {
				b.Fatal("not equal")
			}
		}
	})
	b.Run("last", func(b *testing.B) {
		for b.Loop() {
			if CompareLabels(x, y) >= 0 {
				b.Fatal("not less")
			}
		}
	})
}
