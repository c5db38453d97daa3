package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

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
		"Attacks to run, comma-separated; all by default: "+
			strings.Join(names(allAttacks()), ", ")+".").
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

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, c, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1)
	}
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
	attacks, err := chosen(allAttacks(), c.only)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "larder-attack-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := c.build(ctx, dir); err != nil {
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

// build builds larder into a folder unless a binary is given.
func (c *config) build(ctx context.Context, dir string) error {
	if c.binary != "" {
		return nil
	}
	c.binary = filepath.Join(dir, "larder")
	build := exec.CommandContext(ctx, "go", "build", "-o", c.binary, "larder/cmd/larder")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build larder: %w\n%s", err, text)
	}
	return nil
}

func names(attacks []attack) []string {
	var out []string
	for _, a := range attacks {
		out = append(out, a.name)
	}
	return out
}

// chosen selects attacks by name; no name selects all.
func chosen(all []attack, only []string) ([]attack, error) {
	if len(only) == 0 {
		return all, nil
	}
	var out []attack
	for _, name := range only {
		i := slices.IndexFunc(all, func(a attack) bool { return a.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("unknown attack %q; known are %s", name,
				strings.Join(names(all), ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}
