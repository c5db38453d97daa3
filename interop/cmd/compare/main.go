// Command compare measures larder beside Thanos's store gateway and beside the least that a gRPC
// server can do. `make compare` runs it; docs/performance.md explains its tables.
//
//	go run -tags slicelabels ./cmd/compare --queries=Q1,Q3 --modes=fs
//	go run -tags slicelabels ./cmd/compare --bucket=/data/bucket '{__name__="up"}'
//
// Flags after "--" are larder's own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"larder/interop/internal/compare/dataset"
	"larder/interop/internal/compare/price"
	"larder/interop/internal/compare/report"
	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/server"
	"larder/interop/internal/compare/workload"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	served, err := server.Serve(ctx, os.Args[1:])
	if !served {
		err = compare(ctx, os.Args[1:])
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	run  run.Options
	out  string
	docs string
	list bool
	// results are those of an earlier run to print instead of running; first is an earlier run to
	// set beside them. Both may be nil.
	results, first *run.Results
	query          adHoc
}

func parse(args []string) (o options, err error) {
	if i := slices.Index(args, "--"); i >= 0 {
		o.run.Launcher.LarderFlags, args = args[i+1:], args[:i]
	}
	o.run.Progress = os.Stderr
	o.run.Prices = price.Default()
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	fs.BoolVar(&o.list, "list", false, "print the data sets and queries, and exit")
	fs.StringVar(
		&o.run.Root, "larder", "..", "larder's repository; LARDER_BIN names a binary instead",
	)
	fs.StringVar(
		&o.run.Cache, "cache-dir", filepath.Join(os.TempDir(), "larder-compare"),
		"folder that keeps the data sets; about 3 GB",
	)
	fs.StringVar(
		&o.out, "out", "",
		"folder for results.json, table.md and plots; default: print the table only",
	)
	fs.StringVar(
		&o.docs, "docs", "",
		"Markdown page whose marked parts are replaced by the results; default: none",
	)
	fs.IntVar(&o.run.Rounds, "rounds", 7, "turns of each system in a row of the table")
	fs.DurationVar(
		&o.run.RowTime, "row-time", time.Minute,
		"ends a row before it has had all rounds, but not before three; slow queries after one",
	)
	fs.DurationVar(
		&o.run.Time,
		"time",
		25*time.Minute,
		"about how long the run may take; if it would take longer, rows get fewer rounds; "+
			"0 is no bound",
	)
	fs.BoolVar(&o.run.Short, "short", false, "use the short form of the data sets")
	fs.BoolVar(&o.run.Starts, "starts", true, "measure starts with an empty data directory")
	fs.Int64Var(
		&o.run.Launcher.ThanosIndexCache, "thanos-index-cache-size", 0,
		"bytes of Thanos's index cache; 0 is its default of 250 MB",
	)
	fs.DurationVar(
		&o.run.Latency.FirstByte, "first-byte", 20*time.Millisecond, "latency of the S3 bucket",
	)
	fs.Int64Var(
		&o.run.Latency.BytesPerSecond, "bytes-per-second", 80_000_000,
		"bandwidth of one request to the S3 bucket; 0 is no limit",
	)
	o.query.flags(fs)
	against := fs.String(
		"against", "", "results.json of an earlier run; prints how the figures moved since",
	)
	results := fs.String("results", "", "results.json to print again, instead of a run")
	sets := fs.String("sets", "", "data sets, separated by commas; default: all")
	queries := fs.String("queries", "", "queries, separated by commas; default: all")
	modes := fs.String("modes", "", "fs, s3-cold, s3-warm, s3-disk, separated by commas; "+
		"default: all")
	systems := fs.String("systems", "thanos,larder,floor", "systems to measure")
	concurrency := fs.String("concurrency", "1,8,32", "numbers of clients, each measured by itself")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if o.run.Given, err = o.query.parse(fs.Args()); err != nil {
		return o, err
	}
	if o.first, err = read("--against", *against); err != nil {
		return o, err
	}
	if o.results, err = read("--results", *results); err != nil {
		return o, err
	}
	o.run.Sets, o.run.Queries, o.run.Modes = split(*sets), split(*queries), split(*modes)
	o.run.Systems = split(*systems)
	for _, s := range split(*concurrency) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return o, fmt.Errorf("--concurrency: %q is not a number of clients", s)
		}
		o.run.Concurrency = append(o.run.Concurrency, n)
	}
	return o, o.check()
}

// read returns the results in a file; nil if there is no name.
func read(flag, name string) (*run.Results, error) {
	if name == "" {
		return nil, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	res := new(run.Results)
	if err := json.Unmarshal(b, res); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", flag, name, err)
	}
	return res, nil
}

// check finds names that do not exist.
func (o *options) check() error {
	var sets, queries []string
	for _, s := range dataset.All() {
		sets = append(sets, s.Name)
	}
	for _, q := range workload.All() {
		queries = append(queries, q.Name)
	}
	for _, c := range []struct {
		flag         string
		given, known []string
	}{
		{"--sets", o.run.Sets, sets},
		{"--queries", o.run.Queries, queries},
		{"--modes", o.run.Modes, run.Modes()},
		{"--systems", o.run.Systems, []string{server.Thanos, server.Larder, server.Floor}},
	} {
		for _, g := range c.given {
			if !slices.Contains(c.known, g) {
				return fmt.Errorf("%s: %q is not one of %s", c.flag, g, strings.Join(c.known, ", "))
			}
		}
	}
	return nil
}

// split returns the parts of a list; nil if it is empty.
func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func compare(ctx context.Context, args []string) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if o.list {
		for _, s := range dataset.All() {
			fmt.Printf("%s: %s\n", s.Name, s.Holds)
			for _, q := range workload.All() {
				if q.Set == s.Name {
					fmt.Printf("  %-8s %s\n", q.Name, q.Meaning)
				}
			}
		}
		return nil
	}
	res := o.results
	if res == nil {
		if o.out != "" {
			o.run.Save = func(res *run.Results) error { return saveResults(o.out, res) }
		}
		if res, err = run.Run(ctx, o.run); err != nil {
			return err
		}
	}
	report.Write(os.Stdout, res)
	if o.first != nil {
		fmt.Print("\n### From run to run\n\n")
		report.Moves(os.Stdout, o.first, res)
	}
	if o.out != "" {
		if err := save(o.out, res); err != nil {
			return err
		}
	}
	if o.docs != "" {
		return report.Page(o.docs, res, o.first)
	}
	return nil
}

// saveResults writes results.json, which is always whole, because a run that is interrupted must
// leave what it has measured.
func saveResults(dir string, res *run.Results) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	b, err := json.MarshalIndent(res, "", " ")
	if err != nil {
		return err
	}
	name := filepath.Join(dir, "results.json")
	if err := os.WriteFile(name+".new", b, 0o666); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// save writes the results, their tables and plots into a folder.
func save(dir string, res *run.Results) error {
	if err := saveResults(dir, res); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "table.md"))
	if err != nil {
		return err
	}
	report.Write(f, res)
	return errors.Join(f.Close(), report.Plots(dir, res))
}
