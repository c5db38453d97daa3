package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"larder/benchmarks/dataset"
	"larder/benchmarks/process"
)

// config contains the flags.
type config struct {
	values  int
	limit   int64 // memory limit of the process, in bytes
	all     int   // requests for all series
	beside  int   // requests of each other kind of large request
	within  time.Duration
	first   time.Duration // until the first byte of an answer of the bucket
	rate    int           // small queries per second
	quiet   int           // small queries before the load
	slower  float64       // how much slower small queries may be under load; 0 = no limit
	dir     string
	binary  string
	flags   []string // of larder
	verbose bool
}

func main() {
	var c config
	app := kingpin.New("bounded", "Show that larder's memory is bounded.")
	app.Flag("values", "Number of series in the block, each with a label value of its own.").
		Default("1000000").IntVar(&c.values)
	limit := app.Flag("limit", "Memory limit of larder.").Default("1GiB").Bytes()
	app.Flag("requests", "Number of parallel requests for all series.").Default("64").IntVar(&c.all)
	app.Flag("beside",
		"Number of parallel requests of each other kind: label values, regular expressions.").
		Default("4").IntVar(&c.beside)
	app.Flag("within", "Time limit of all requests together.").Default("10m").DurationVar(&c.within)
	app.Flag("first-byte", "Time until the first byte of the bucket's answers.").
		Default("20ms").DurationVar(&c.first)
	app.Flag("rate", "Small queries per second.").Default("20").IntVar(&c.rate)
	app.Flag("quiet", "Number of small queries before the load.").Default("300").IntVar(&c.quiet)
	app.Flag("slower",
		"Maximum ratio of the p99 of small queries under load to that without. 0 = no limit.").
		Default("5").FloatVar(&c.slower)
	app.Flag("dir", "Folder for the bucket, kept and reused. A temporary one by default.").
		StringVar(&c.dir)
	app.Flag("binary", "Path of the larder binary to test. Built from source by default.").
		StringVar(&c.binary)
	app.Flag("flag", "A flag for larder, such as --flag=--store.request-bytes=100MB. Repeatable.").
		StringsVar(&c.flags)
	app.Flag("verbose", "Print larder's log and its memory while it runs.").BoolVar(&c.verbose)
	kingpin.MustParse(app.Parse(os.Args[1:]))
	c.limit = int64(*limit)

	process.Main("bounded", func(ctx context.Context) error {
		r, err := c.run(ctx)
		if err != nil {
			return err
		}
		r.print(os.Stdout)
		return errors.Join(r.broken()...)
	})
}

// run makes the bucket and the program, starts larder and puts it under load.
func (c config) run(ctx context.Context) (r *report, err error) {
	tmp, err := os.MkdirTemp("", "larder-bounded-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	bucket := filepath.Join(tmp, "bucket")
	if c.dir != "" {
		bucket = filepath.Join(c.dir, fmt.Sprintf("bounded-%d", c.values))
	}
	start := time.Now()
	if err := c.makeBucket(ctx, bucket); err != nil {
		return nil, err
	}
	c.note("bucket after %s", time.Since(start).Round(time.Second))
	if c.binary, err = process.Build(ctx, c.binary, tmp); err != nil {
		return nil, err
	}
	c.note("larder after %s", time.Since(start).Round(time.Second))
	return c.load(ctx, bucket, filepath.Join(tmp, "data"))
}

// dashboardSeries is the number of series in the block that half of the small queries use.
const dashboardSeries = 40_000

// makeBucket writes the blocks, unless they exist.
func (c config) makeBucket(ctx context.Context, dir string) error {
	complete := filepath.Join(dir, ".complete")
	if _, err := os.Stat(complete); err == nil {
		return nil
	}
	l := dataset.ManyValues("bounded", 1, c.values)
	l.Blocks = append(l.Blocks, dataset.WholeMetric("dashboard", 2, min(dashboardSeries, c.values),
		int64(time.Minute/time.Millisecond)).Blocks...)
	if _, err := l.Write(ctx, dir, dataset.WriteOptions{}); err != nil {
		return err
	}
	return os.WriteFile(complete, nil, 0o600)
}

func (c config) note(format string, args ...any) {
	if c.verbose {
		fmt.Fprintln(os.Stderr, strings.TrimSuffix(fmt.Sprintf(format, args...), "\n"))
	}
}
