package bytecache_test

import (
	"testing"

	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryConforms(t *testing.T) {
	bytecachetest.Run(t, bytecachetest.Traits{Keeps: true},
		func(_ testing.TB, maxBytes int64) bytecache.Cache {
			return bytecache.NewMemory(
				bytecache.Options{MaxBytes: maxBytes, ExpectedValueBytes: 256})
		})
}

func TestNoneConforms(t *testing.T) {
	bytecachetest.Run(t, bytecachetest.Traits{}, func(testing.TB, int64) bytecache.Cache {
		return bytecache.None{}
	})
}
