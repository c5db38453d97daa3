package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"larder/benchmarks/process"

	"github.com/alecthomas/kingpin/v2"
)

// config contains the flags.
type config struct {
	seed     uint64
	binary   string
	only     []string
	short    bool
	limit    int64 // memory limit of the process, in bytes
	markdown bool
	verbose  bool
}

func main() {
	if conf := os.Getenv(honestEnv); conf != "" {
		if err := runHonest(conf); err != nil {
			fmt.Fprintln(os.Stderr, "honest client:", err)
			os.Exit(1)
		}
		return
	}
	var c config
	var only string
	app := kingpin.New("attack", "Attack a larder process and report which attacks succeed.")
	app.Flag("seed", "Seed of random choices, mainly of malformed messages.").
		Default("1").Uint64Var(&c.seed)
	app.Flag("binary", "Path of the larder binary to attack. Built from source by default.").
		StringVar(&c.binary)
	app.Flag("attack",
		"Attacks to run, comma-separated; all by default: "+process.Names(allAttacks())+".").
		StringVar(&only)
	app.Flag("short", "Run with small counts and without limits on times.").BoolVar(&c.short)
	limit := app.Flag("limit",
		"Memory limit of larder, set as GOMEMLIMIT and, if possible, as a cgroup.").
		Default("1GiB").Bytes()
	app.Flag("markdown", "Print the table as Markdown.").BoolVar(&c.markdown)
	app.Flag("verbose", "Print larder's log.").BoolVar(&c.verbose)
	kingpin.MustParse(app.Parse(os.Args[1:]))
	c.limit = int64(*limit)
	if only != "" {
		c.only = strings.Split(only, ",")
	}

	process.Main("attack", func(ctx context.Context) error { return run(ctx, c, os.Stdout) })
}

var errGotThrough = errors.New("an attack succeeded, see above")

// run runs the attacks and prints a table.
func run(ctx context.Context, c config, out io.Writer) error {
	start := time.Now()
	results, err := attackAll(ctx, c, func(r result) {
		fmt.Fprintf(out, "%s: %s\n", r.name,
			strings.Join(append([]string{r.verdict()}, r.findings...), "\n    "))
	})
	fmt.Fprintln(out)
	if err := errors.Join(err, c.print(out, results)); err != nil {
		return err
	}
	fmt.Fprintf(out, "seed %d, %s in all\n", c.seed, time.Since(start).Round(time.Second))
	if slices.ContainsFunc(results, func(r result) bool { return len(r.findings) > 0 }) {
		return errGotThrough
	}
	return nil
}

// attackAll runs the chosen attacks one after the other.
func attackAll(ctx context.Context, c config, done func(result)) (results []result, err error) {
	attacks, err := process.Choose("attack", allAttacks(), c.only)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "larder-attack-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if c.binary, err = process.Build(ctx, c.binary, dir); err != nil {
		return nil, err
	}
	for _, a := range attacks {
		r, err := c.attack(ctx, a, filepath.Join(dir, a.name))
		if err != nil {
			return results, fmt.Errorf("%s: %w", a.name, err)
		}
		results = append(results, r)
		done(r)
	}
	return results, nil
}
