package indexheader

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/localfs"
)

// For random blocks written by Prometheus, a header gives the same answers as Prometheus's reader,
// in every index format, from a file and from memory, with and without a cache.
func TestHeaderEqualsIndex(t *testing.T) {
	seeds := uint64(6)
	if raceEnabled {
		seeds = 2
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(seed, 1))
		v2 := writeIndex(t, randomSeries(rnd))
		for version, idx := range map[int][]byte{1: asV1(t, v2, rnd), 2: v2, 3: asV3(v2)} {
			m := modelOf(t, idx)
			bkt := newBucket()
			src := bkt.add(1, idx)
			for _, opts := range []Options{
				{Dir: localfs.At(t.TempDir())}, {Dir: localfs.At(t.TempDir()), BlockCacheBytes: -1},
				{Dir: localfs.At(t.TempDir()), BlockCacheBytes: 300 << 10}, {},
			} {
				t.Run(
					fmt.Sprintf(
						"seed %d/V%d/dir %v/cache %d", seed, version, !opts.Dir.IsZero(),
						opts.BlockCacheBytes,
					),
					func(t *testing.T) {
						opts.Bucket = bkt
						opts.PartSize = 16 << 10 // many parts
						h := acquire(t, newManager(t, opts), src)
						for range 2 { // blocks are cached the second time
							if err := m.check(h, rnd); err != nil {
								t.Fatal(err)
							}
						}
					},
				)
			}
		}
	}
}

// The block of format V1 from Prometheus's own tests.
func TestGoldenV1(t *testing.T) {
	idx, err := os.ReadFile("testdata/v1.index")
	if err != nil {
		t.Fatal(err)
	}
	m := modelOf(t, idx)
	if m.version != 1 || len(m.symbols) != 104 || len(m.values["bar"]) != 100 {
		t.Fatalf(
			"version %d, %d symbols, %d values", m.version, len(m.symbols), len(m.values["bar"]),
		)
	}
	bkt := newBucket()
	h := acquire(
		t, newManager(t, Options{Dir: localfs.At(t.TempDir()), Bucket: bkt}), bkt.add(1, idx),
	)
	if err := m.check(h, rand.New(rand.NewPCG(1, 2))); err != nil {
		t.Fatal(err)
	}
}

// One label with 100,000 values, and a block without series.
func TestManyValuesAndNone(t *testing.T) {
	b := labels.NewScratchBuilder(3)
	n := 100_000
	if raceEnabled {
		n = 20_000
	}
	series := make([]labels.Labels, n)
	for i := range series {
		b.Reset()
		b.Add("__name__", "up")
		b.Add("pod", fmt.Sprintf("prometheus-adapter-%08x-%d", uint32(i)*2654435761, i%7))
		series[i] = b.Labels()
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	many := writeIndex(t, series)
	for name, idx := range map[string][]byte{"V2": many, "V1": asV1(t, many, rnd),
		"no series": writeIndex(t, nil)} {
		t.Run(name, func(t *testing.T) {
			bkt := newBucket()
			h := acquire(
				t,
				newManager(
					t, Options{Dir: localfs.At(t.TempDir()), Bucket: bkt, PartSize: 1 << 20},
				),
				bkt.add(1, idx),
			)
			if err := modelOf(t, idx).check(h, rnd); err != nil {
				t.Fatal(err)
			}
		})
	}
}
