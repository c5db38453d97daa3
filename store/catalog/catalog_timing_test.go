package catalog

import (
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/localfs"
)

// yearOfBlocks is a year of one-day blocks for each of n replicas, in all resolutions.
func yearOfBlocks(n int) []*Block {
	const day = 24 * 3600 * 1000
	var out []*Block
	for r := range n {
		ext := labels.FromStrings("cluster", "eu", "replica", strconv.Itoa(r))
		for d := range int64(365) {
			for _, res := range resolutions {
				out = append(out, &Block{
					ID:         testID(uint64(len(out))),
					MinTime:    d * day,
					MaxTime:    (d + 1) * day,
					Resolution: res,
					Labels:     ext,
				})
			}
		}
	}
	return out
}

func BenchmarkChoose(b *testing.B) {
	v := NewView(yearOfBlocks(10), true)
	const day = 24 * 3600 * 1000
	dst := make([]*Block, 0, 1024)
	for _, days := range []int64{1, 30, 365} {
		b.Run(strconv.FormatInt(days, 10)+"days", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				dst = v.Choose(v.Sets[0], (365-days)*day, 365*day-1, Resolution1h, dst[:0])
			}
		})
	}
}

func BenchmarkNewView(b *testing.B) {
	blocks := yearOfBlocks(10)
	b.ReportAllocs()
	for b.Loop() {
		NewView(blocks, true)
	}
}

func BenchmarkSyncUnchanged(b *testing.B) {
	bkt := newTestBucket()
	for i := range uint64(10_000) {
		putBlock(bkt, i)
	}
	c, err := New(Options{Bucket: bkt, Dir: localfs.At(b.TempDir()), Discovery: Recursive})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if err := c.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// A restart with the data directory of 10,000 blocks, until the view from disk is published.
func BenchmarkStartFromDisk(b *testing.B) {
	bkt := newTestBucket()
	for i := range uint64(10_000) {
		putBlock(bkt, i)
	}
	opts := Options{Bucket: bkt, Dir: localfs.At(b.TempDir()), Discovery: Recursive}
	c, err := New(opts)
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
	c.Close()
	for b.Loop() {
		c, err := New(opts)
		if err != nil {
			b.Fatal(err)
		}
		if c.serveSaved(); len(c.View().Blocks) != 10_000 {
			b.Fatalf("%d blocks", len(c.View().Blocks))
		}
		c.Close()
	}
}
