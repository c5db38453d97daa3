package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"larder/benchmarks/dataset"
	"larder/benchmarks/process"
)

func main() {
	app := kingpin.New("makebucket", "Write a generated bucket for tests and benchmarks.")
	name := app.Flag("layout", "Layout to write: "+strings.Join(names(), ", ")+".").
		Required().Enum(names()...)
	dir := app.Flag("dir", "The bucket's folder. Existing blocks are kept.").Required().String()
	seed := app.Flag("seed", "Seed. It determines every byte.").Default("1").Uint64()
	size := app.Flag("size",
		"Size of the layouts of the comparison, in pods or blocks. 0 = full size.").
		Default("0").Int()
	concurrency := app.Flag("concurrency", "Blocks written in parallel. 0 = number of processors.").
		Default("0").Int()
	kingpin.MustParse(app.Parse(os.Args[1:]))

	process.Main("makebucket", func(ctx context.Context) error {
		return run(ctx, dataset.Layouts(*size)[*name](*seed), *dir, *concurrency)
	})
}

func names() []string { return slices.Sorted(maps.Keys(dataset.Layouts(0))) }

func run(ctx context.Context, l dataset.Layout, dir string, concurrency int) error {
	start := time.Now()
	var reported time.Time
	metas, err := l.Write(ctx, dir, dataset.WriteOptions{
		Concurrency: concurrency,
		Progress: func(p dataset.Progress) {
			if now := time.Now(); now.Sub(reported) > 5*time.Second {
				reported = now
				fmt.Printf("%d of %d blocks, %d series\n", p.Blocks, p.TotalBlocks, p.Series)
			}
		},
	})
	if err != nil {
		return err
	}
	var bytes int64
	var series, chunks, samples uint64
	for _, m := range metas {
		series += m.Stats.NumSeries
		chunks += m.Stats.NumChunks
		samples += m.Stats.NumSamples
		for _, f := range m.Thanos.Files {
			bytes += f.SizeBytes
		}
	}
	fmt.Printf("%s: %d blocks, %d series, %d chunks, %d samples, %.1f MB in %s\n",
		l.Name, len(metas), series, chunks, samples, float64(bytes)/1e6, time.Since(start).
			Round(time.Millisecond))
	return nil
}
