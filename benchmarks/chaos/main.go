package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// config is what the flags say.
type config struct {
	seed      uint64
	binary    string
	only      []string
	injectFor time.Duration
	soak      time.Duration
	workers   int
	size      int // of the bucket
	questions int
	inARow    int           // answers in a row that are a recovery
	recoverIn time.Duration // time that it may take
	settle    time.Duration // time that the process gets to let go of what it held
}

func main() {
	c := config{inARow: 50}
	var only string
	app := kingpin.New(
		"chaos", "Break what larder depends on while it is asked, and compare its answers.")
	app.Flag("seed", "Decides the bucket, what is asked and what is broken.").Default("1").
		Uint64Var(&c.seed)
	app.Flag("binary", "The larder to be tested. By default it is built.").StringVar(&c.binary)
	app.Flag("fault", "Rounds to run, separated by commas: "+strings.Join(names(allFaults()),
		", ")+". By default all.").
		StringVar(&only)
	app.Flag("for", "How long each thing is broken.").Default("10s").DurationVar(&c.injectFor)
	app.Flag(
		"soak", "Instead of rounds, break things at random for so long, and compare the memory.").
		DurationVar(&c.soak)
	app.Flag("workers", "Requests at a time.").Default("6").IntVar(&c.workers)
	app.Flag("size", "Of the bucket; 1 is 11,000 series.").Default("4").IntVar(&c.size)
	app.Flag("questions", "Different requests.").Default("150").IntVar(&c.questions)
	app.Flag("recover-in", "How long it may take until requests succeed again.").Default("30s").
		DurationVar(&c.recoverIn)
	app.Flag("settle", "How long a process may take to let go of what it held.").Default("20s").
		DurationVar(&c.settle)
	kingpin.MustParse(app.Parse(os.Args[1:]))
	if only != "" {
		c.only = strings.Split(only, ",")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, c, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

var errFailed = errors.New("a promise does not hold, see above")

func run(ctx context.Context, c config, out io.Writer) (err error) {
	faults, err := chosen(allFaults(), c.only)
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

func names(faults []fault) []string {
	var out []string
	for _, f := range faults {
		out = append(out, f.name)
	}
	return out
}

// chosen picks faults by name; none stands for all.
func chosen(all []fault, only []string) ([]fault, error) {
	if len(only) == 0 {
		return all, nil
	}
	var out []fault
	for _, name := range only {
		i := slices.IndexFunc(all, func(f fault) bool { return f.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no fault %q; there are %s", name,
				strings.Join(names(all), ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}
