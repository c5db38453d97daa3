package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"larder/benchmarks/dataset"
)

// config is what the flags say.
type config struct {
	values  int
	limit   int64 // of the process's memory
	all     int   // requests for all series
	beside  int   // of each other kind of large request
	within  time.Duration
	first   time.Duration // until the first byte of an answer of the bucket
	rate    int           // small queries a second
	quiet   int           // small queries before the load
	slower  float64       // how much slower small queries may be under load; 0: however much
	dir     string
	binary  string
	flags   []string // of larder
	verbose bool
}

func main() {
	var c config
	app := kingpin.New("bounded", "Show that larder's memory is bounded.")
	app.Flag("values", "Series of the block, each with a label value of its own.").
		Default("1000000").IntVar(&c.values)
	limit := app.Flag("limit", "Memory that larder may use.").Default("1GiB").Bytes()
	app.Flag("requests", "Requests for all series at once.").Default("64").IntVar(&c.all)
	app.Flag("beside", "Requests at once of each other kind: label values, those of matching series, regular expressions.").
		Default("4").
		IntVar(&c.beside)
	app.Flag("within", "Time that all have.").Default("10m").DurationVar(&c.within)
	app.Flag("first-byte", "Time until the bucket's answers begin.").Default("20ms").
		DurationVar(&c.first)
	app.Flag("rate", "Small queries a second.").Default("20").IntVar(&c.rate)
	app.Flag("quiet", "Small queries before the load.").Default("300").IntVar(&c.quiet)
	app.Flag("slower", "How many times slower the slowest hundredth of the small queries may become under load.").
		Default("5").
		FloatVar(&c.slower)
	app.Flag("dir", "Folder for the bucket, kept and used again. By default a temporary one.").
		StringVar(&c.dir)
	app.Flag("binary", "The larder to be tested. By default it is built.").StringVar(&c.binary)
	app.Flag("flag", "A flag for larder, as --flag=--store.request-bytes=100MB. May be repeated.").
		StringsVar(&c.flags)
	app.Flag("verbose", "Show larder's log and its memory as it goes.").BoolVar(&c.verbose)
	kingpin.MustParse(app.Parse(os.Args[1:]))
	c.limit = int64(*limit)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	r, err := c.run(ctx)
	stop()
	if err == nil {
		r.print(os.Stdout)
		err = errors.Join(r.broken()...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bounded:", err)
		os.Exit(1)
	}
}

// run makes the bucket and the program, starts it and puts it under load.
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
	if c.binary == "" {
		c.binary = filepath.Join(tmp, "larder")
		build := exec.CommandContext(ctx, "go", "build", "-o", c.binary, "larder/cmd/larder")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build larder: %w\n%s", err, out)
		}
		c.note("larder after %s", time.Since(start).Round(time.Second))
	}
	return c.load(ctx, bucket, filepath.Join(tmp, "data"))
}

// dashboardSeries is the size of the block that half of the small queries are about.
const dashboardSeries = 40_000

// makeBucket writes the blocks, unless they are there.
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
