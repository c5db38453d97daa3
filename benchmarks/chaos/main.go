package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"larder/benchmarks/process"

	"github.com/alecthomas/kingpin/v2"
)

// config contains the flags.
type config struct {
	seed      uint64
	binary    string
	only      []string
	injectFor time.Duration
	soak      time.Duration
	diskSoak  time.Duration // 0: none
	workers   int
	size      int // of the bucket
	questions int
	inARow    int           // answers in a row that count as recovery
	recoverIn time.Duration // maximum time of a recovery
	settle    time.Duration // time for the process to release its resources, see idleFor
}

// idleFor is longer than larder keeps idle connections: 90 s to the bucket, a minute to memcached.
const idleFor = 2 * time.Minute

func main() {
	c := config{inARow: 50}
	var only string
	app := kingpin.New(
		"chaos", "Break what larder depends on under load, and compare its answers.")
	app.Flag("seed", "Seed of the bucket, the questions and the faults.").
		Default("1").Uint64Var(&c.seed)
	app.Flag("binary", "Path of the larder binary to test. Built from source by default.").
		StringVar(&c.binary)
	app.Flag("fault",
		"Faults to inject, comma-separated; all by default: "+process.Names(allFaults())+".").
		StringVar(&only)
	app.Flag("for", "Duration of each fault.").Default("10s").DurationVar(&c.injectFor)
	app.Flag("soak",
		"Inject random faults for this time instead of rounds, and compare the memory.").
		DurationVar(&c.soak)
	app.Flag("disk-soak",
		"Inject nothing for this time, with a disk cache that is smaller than what is asked for, "+
			"and watch its writes, hits, files and memory.").
		DurationVar(&c.diskSoak)
	app.Flag("workers", "Number of parallel requests.").Default("6").IntVar(&c.workers)
	app.Flag("size", "Size of the bucket; 1 is 11,000 series.").Default("4").IntVar(&c.size)
	app.Flag("questions", "Different requests.").Default("150").IntVar(&c.questions)
	app.Flag("recover-in", "Time limit until requests succeed again.").
		Default("30s").DurationVar(&c.recoverIn)
	app.Flag("settle", "Time limit for an idle process to release its resources.").
		Default(idleFor.String()).DurationVar(&c.settle)
	kingpin.MustParse(app.Parse(os.Args[1:]))
	if only != "" {
		c.only = strings.Split(only, ",")
	}

	process.Main("chaos", func(ctx context.Context) error { return run(ctx, c, os.Stdout) })
}

var errFailed = errors.New("a promise was not kept, see above")

func run(ctx context.Context, c config, out io.Writer) (err error) {
	faults, err := process.Choose("fault", allFaults(), c.only)
	if err != nil {
		return err
	}
	start := time.Now()
	w, err := newWorld(ctx, c, out)
	if err != nil {
		return err
	}
	defer w.close()
	w.printf("seed %d, ready after %s\n", c.seed, time.Since(start).Round(time.Millisecond))
	if c.diskSoak > 0 {
		return w.diskSoak(ctx)
	}
	if c.soak > 0 {
		return w.soak(ctx, faults)
	}
	results, err := w.rounds(ctx, faults)
	w.printf("\n")
	if err := errors.Join(err, printTable(out, results)); err != nil {
		return err
	}
	w.printf("seed %d, %s in all\n", c.seed, time.Since(start).Round(time.Second))
	if failed(results) {
		return errFailed
	}
	return nil
}
