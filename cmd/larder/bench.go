package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	"larder/benchmarks"
	"larder/benchmarks/bench"
	"larder/benchmarks/bench/report"
	"larder/benchmarks/objectstore"
	"larder/benchmarks/scenario"
	"larder/internal/budget"
	"larder/internal/config"
)

// benchCommand is `larder bench`: it sends the requests of scenarios to a gateway and holds the
// times to budgets.
type benchCommand struct {
	measure, compare *kingpin.CmdClause
	curves           *curvesCommand

	profile, dir       string
	yaml               content // of the user's bucket
	endpoint           string
	metricsURL         string
	scenarios, budgets string
	replay             string
	speed              float64
	only               *regexp.Regexp
	seed               uint64
	duration, timeout  time.Duration
	jsonPath, htmlPath string
	model              string
	firstByte          time.Duration
	spread             float64
	bandwidth          int64
	errors, maxRate    float64
	storeArgs          []string
	tune               tuneConfig
	given              map[string]*bool // flags that need another one to have an effect
	reportA, reportB   string
	budget             *kingpin.CmdClause
	runs               []string // results to derive budgets from
}

func registerBench(app *kingpin.Application) *benchCommand {
	b := &benchCommand{given: map[string]*bool{}}
	group := app.Command("bench", "Measure a gateway, and hold it to latency budgets.")
	b.measure = group.Command("run", "Run the scenarios. This is what bench does by default.").
		Default()
	f := b.measure
	note := func(name string, c *kingpin.FlagClause) {
		b.given[name] = new(bool)
		c.IsSetByUser(b.given[name])
	}
	note("profile", flag(f, "profile", "small", &b.profile, oneOf(profiles()...),
		"Bucket to generate and measure: "+strings.Join(profiles(), ", ")+"."))
	note("dir", flag(f, "dir", "", &b.dir, text,
		"Folder for the bucket and the gateway's own files. It is kept, and the next run uses it "+
			"again. Default: a temporary folder that is removed at the end."))
	contentFlags(f, &b.yaml, "objstore.config",
		"the configuration of a bucket of your own, as for larder store. It is only read.")
	flag(f, "endpoint", "", &b.endpoint, text,
		"host:port of a running StoreAPI endpoint to measure, without TLS. "+
			"Scenarios that need empty caches are skipped.")
	flag(f, "metrics-url", "", &b.metricsURL, text,
		"URL of the metrics of --endpoint, for stages, cache hits and costs. "+
			"Without it only the client's times are known.")
	flag(f, "scenarios", "", &b.scenarios, text,
		"Path to a YAML file with queries and scenarios. Default: those of larder.")
	flag(f, "replay", "", &b.replay, text,
		"Path to the log of a gateway. Its slow and failed requests are sent again, at the times "+
			"at which they began, instead of scenarios.")
	note("replay-speed", flag(f, "replay-speed", "1", &b.speed, notNegative,
		"Factor of the speed of --replay. 2 = in half of the time."))
	flag(f, "budgets", "", &b.budgets, text,
		"Path to a YAML file with budgets and prices. Default: those of larder for the generated "+
			"bucket, and none for another bucket.")
	flag(f, "only", "", &b.only, regexp.Compile,
		"Regular expression of the names of the scenarios to run. Default: all.")
	flag(f, "seed", "1", &b.seed, count, "Seed of the bucket, the requests and the model.")
	flag(f, "duration", "0s", &b.duration, goDuration,
		"Duration of each scenario that has one. 0 = as the scenario says.")
	flag(f, "request-timeout", "1m", &b.timeout, positive(goDuration),
		"Time after which a request counts as failed.")
	flag(f, "json", "", &b.jsonPath, text, "Path to write the result to as JSON, for compare.")
	flag(f, "html", "", &b.htmlPath, text, "Path to write the result to as one HTML page.")
	flag(f, "model", "", &b.model, oneOf("s3", "none"),
		"Object store to model over the bucket: s3 or none. "+
			"Default: s3 over the generated bucket, none over another bucket.")
	note("model.first-byte", flag(f, "model.first-byte", "20ms", &b.firstByte, goDuration,
		"Median time to the first byte of an answer of the modelled store."))
	note("model.spread", flag(f, "model.spread", "0.5", &b.spread, notNegative,
		"Tail of that time: the standard deviation of its logarithm. 0.5 puts the 99th percentile "+
			"at 3.2 times the median. 0 = no tail."))
	note("model.bandwidth", flag(f, "model.bandwidth", "80MB", &b.bandwidth, config.ParseSize,
		"Bytes that one answer of the modelled store delivers in a second. 0 = no limit."))
	note("model.errors", flag(f, "model.errors", "0", &b.errors, notNegative,
		"Share of the requests that the modelled store answers with HTTP 500."))
	note("model.max-rate", flag(f, "model.max-rate", "0", &b.maxRate, notNegative,
		"Requests in a second above which the modelled store answers with HTTP 503 SlowDown. "+
			"0 = no limit."))
	b.tuneFlags(f)
	f.Arg("store-flag", "Flags of larder store for the measured gateway, after --.").
		StringsVar(&b.storeArgs)

	b.compare = group.Command("compare", "Compare two results that were written with --json.")
	b.compare.Arg("a", "Result to compare with.").Required().StringVar(&b.reportA)
	b.compare.Arg("b", "Result to compare.").Required().StringVar(&b.reportB)
	b.curves = registerCurves(group)
	b.budget = group.Command("budgets",
		"Print budgets that follow from results written with --json: twice the median of runs, "+
			"which may differ in their seeds.")
	b.budget.Arg("result", "Results of the same scenarios.").Required().StringsVar(&b.runs)
	return b
}

// profiles are the layouts to measure. small is the bucket of the demo, as of a fixed time.
func profiles() []string {
	return []string{"small", "medium", "large", "many", "downsampled", "churn", "histograms"}
}

// check rejects flags that would have no effect.
func (b *benchCommand) check() error {
	own := b.yaml.inline != "" || b.yaml.path != ""
	if own && b.endpoint != "" {
		return errors.New("--objstore.config and --endpoint are mutually exclusive: " +
			"an endpoint has its bucket")
	}
	if b.metricsURL != "" && b.endpoint == "" {
		return errors.New("--metrics-url needs --endpoint: " +
			"the metrics of a gateway that bench starts are known")
	}
	switch {
	case b.replay == "" && *b.given["replay-speed"]:
		return errors.New("--replay-speed needs --replay")
	case b.replay != "" && (b.only != nil && b.only.String() != "" || b.scenarios != ""):
		return errors.New("--only and --scenarios have no effect with --replay: " +
			"it sends what the log says")
	case b.speed == 0:
		return errors.New("--replay-speed must be above 0")
	}
	var without string
	switch {
	case b.endpoint != "":
		without = "--endpoint"
	case own:
		without = "--objstore.config"
	}
	if without != "" && *b.given["profile"] {
		return fmt.Errorf(
			"--profile has no effect with %s: it says which bucket to generate",
			without,
		)
	}
	if b.endpoint != "" {
		if b.model != "" || *b.given["dir"] || len(b.storeArgs) > 0 {
			return errors.New("--model, --dir and flags of larder store have no effect with " +
				"--endpoint: that gateway runs already")
		}
	}
	if b.model == "" && without == "" {
		b.model = "s3"
	}
	if b.model != "s3" {
		for name, given := range b.given {
			if strings.HasPrefix(name, "model.") && *given {
				return fmt.Errorf("--%s needs --model=s3", name)
			}
		}
	}
	if err := b.checkTune(); err != nil {
		return err
	}
	if b.errors > 1 {
		return fmt.Errorf("--model.errors: %v is a share, want at most 1", b.errors)
	}
	return nil
}

// run measures, prints the result and writes the files. An overrun is an error.
func (b *benchCommand) run(stdout, stderr io.Writer) error {
	if err := b.check(); err != nil {
		return err
	}
	opts, err := b.options()
	if err != nil {
		return err
	}
	if err := checkOutputs(b.outputs(&report.Report{})...); err != nil {
		return err
	}
	opts.Progress = stderr
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rep, err := b.measured(ctx, opts, stderr)
	if err != nil && ctx.Err() != nil {
		err = errors.New("stopped by a signal: the result is not complete")
	}
	if rep != nil && (len(rep.Scenarios) > 0 || rep.Tuning != nil) {
		err = errors.Join(err, b.write(rep, stdout))
	}
	if err != nil {
		return err
	}
	if rep.Tuning != nil && rep.Tuning.Failure != "" {
		return errors.New("--tune: " + rep.Tuning.Failure)
	}
	if n := len(rep.Overruns()); n > 0 {
		return fmt.Errorf("budgets or requests that failed: %d, see Not kept", n)
	}
	return nil
}

// options reads the documents.
func (b *benchCommand) options() (o bench.Options, err error) {
	o.Only, o.Seed, o.Duration, o.Timeout = b.only, b.seed, b.duration, b.timeout
	document := func(flag, path string, builtIn []byte, parse func([]byte) error) error {
		text := builtIn
		if path != "" {
			if text, err = os.ReadFile(path); err != nil {
				return fmt.Errorf("--%s: %w", flag, err)
			}
		}
		if err := parse(text); err != nil {
			return fmt.Errorf("--%s %s: %w", flag, path, err)
		}
		return nil
	}
	err = document("scenarios", b.scenarios, benchmarks.Scenarios(), func(t []byte) (err error) {
		o.Document, err = scenario.Parse(t)
		return err
	})
	if err != nil {
		return o, err
	}
	builtIn, err := budget.Parse(benchmarks.Budgets(), nil)
	if err != nil {
		return o, err
	}
	err = document("budgets", b.budgets, benchmarks.Budgets(), func(t []byte) (err error) {
		o.Budgets, err = budget.Parse(t, builtIn) // which has the prices
		return err
	})
	if err != nil {
		return o, err
	}
	if b.budgets == "" && (b.model == "none" || b.endpoint != "" || b.yaml.inline != "" ||
		b.yaml.path != "" || b.profile != "small") {
		o.Budgets.Budgets = nil // they are for the generated bucket behind the model
	}
	names := o.Document.Names()
	if b.replay != "" {
		names = append(names, bench.ReplayName)
		if o.Replay, err = readReplay(b.replay, b.speed); err != nil {
			return o, fmt.Errorf("--replay %s: %w", b.replay, err)
		}
	}
	if missing := o.Budgets.Except(names); b.budgets != "" && len(missing) > 0 {
		return o, fmt.Errorf("--budgets %s: there are no scenarios %s",
			b.budgets, strings.Join(missing, ", "))
	}
	return o, nil
}

// readReplay reads the requests of a gateway's log.
func readReplay(path string, speed float64) (_ *bench.Replay, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	log, err := scenario.ReadLog(f)
	if err != nil {
		return nil, err
	}
	about := "requests of the log " + filepath.Base(path)
	if why := log.Reasons(); why != "" {
		about += ". " + why
	}
	return &bench.Replay{Requests: log.Requests, Speed: speed, About: about}, nil
}

// measured runs the scenarios.
func (b *benchCommand) measured(
	ctx context.Context, o bench.Options, stderr io.Writer,
) (rep *report.Report, err error) {
	describe := func(target, bucket string) {
		if rep != nil {
			rep.Larder, rep.Target, rep.Bucket = version.Version, target, bucket
			if rep.Larder == "" {
				rep.Larder = "without version"
			}
		}
	}
	if b.endpoint != "" {
		o.Endpoint = &bench.Target{Address: b.endpoint}
		if b.metricsURL != "" {
			o.Endpoint.Gather = bench.MetricsFrom(b.metricsURL)
		}
		rep, err = bench.New(o).Run(ctx)
		describe("endpoint "+b.endpoint, "bucket of the endpoint")
		return rep, err
	}
	dir := b.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "larder-bench-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	g := &benchGateway{stderr: stderr, model: b.objectStore()}
	bucket, generate := "own bucket", func() error { return nil }
	if b.yaml.inline == "" && b.yaml.path == "" {
		bucket = fmt.Sprintf("generated bucket %s, seed %d", b.profile, b.seed)
		folder := filepath.Join(dir, fmt.Sprintf("bucket-%s-%d", b.profile, b.seed))
		generate = func() error { return makeBenchBucket(ctx, b.profile, b.seed, folder, stderr) }
		b.yaml.inline = fmt.Sprintf("{type: FILESYSTEM, config: {directory: %q}}", folder)
	}
	g.args = b.gatewayArgs(dir)
	if err := g.try(); err != nil {
		return nil, err
	}
	if err := generate(); err != nil {
		return nil, err
	}
	if o.HasDisk, err = g.hasDisk(); err != nil {
		return nil, err
	}
	o.Start = g.start
	target := strings.Join(append([]string{"gateway within bench"}, b.storeArgs...), " ")
	if b.tune.on {
		rep, err = b.tuned(ctx, o, g, dir, stderr)
		describe(target, bucket+", "+g.describeModel())
		return rep, err
	}
	r := bench.New(o)
	g.finished = r.Finished
	rep, err = r.Run(ctx)
	describe(target, bucket+", "+g.describeModel())
	return rep, err
}

// gatewayArgs are the arguments of `larder store` for the measured gateway.
func (b *benchCommand) gatewayArgs(dir string) []string {
	args := []string{
		"--log.level=error", "--data-dir=" + filepath.Join(dir, "data"),
		"--grpc-address=127.0.0.1:0", "--http-address=127.0.0.1:0",
		// Caches are empty after a start, and index headers are not part of what is measured.
		"--warm.max-time=0", "--wait-headers=200y",
	}
	if b.yaml.path != "" {
		args = append(args, "--objstore.config-file="+b.yaml.path)
	}
	if b.yaml.inline != "" {
		args = append(args, "--objstore.config="+b.yaml.inline)
	}
	return slices.Concat(args, b.storeArgs)
}

// objectStore returns the model of the flags.
func (b *benchCommand) objectStore() objectstore.Model {
	if b.model != "s3" {
		return objectstore.Model{}
	}
	return objectstore.Model{
		FirstByte: b.firstByte, Spread: b.spread, BytesPerSecond: b.bandwidth,
		Errors: b.errors, MaxRate: b.maxRate, Seed: b.seed,
	}
}

// write prints the result and writes the files.
func (b *benchCommand) write(rep *report.Report, stdout io.Writer) error {
	return errors.Join(rep.WriteText(stdout), writeFiles(b.outputs(rep)...))
}

// outputs are the files of a report.
func (b *benchCommand) outputs(rep *report.Report) []output {
	return []output{{"json", b.jsonPath, rep.WriteJSON}, {"html", b.htmlPath, rep.WriteHTML}}
}

// output is a file to write, unless its path is empty.
type output struct {
	flag, path string
	write      func(io.Writer) error
}

// checkOutputs creates the files that are not there, so that a path that cannot be written is an
// error before a long run.
func checkOutputs(outputs ...output) error {
	for _, out := range outputs {
		if out.path == "" {
			continue
		}
		f, err := os.OpenFile(out.path, os.O_WRONLY|os.O_CREATE, 0o644)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return fmt.Errorf("--%s: %w", out.flag, err)
		}
	}
	return nil
}

func writeFiles(outputs ...output) (err error) {
	for _, out := range outputs {
		if out.path == "" {
			continue
		}
		f, e := os.Create(out.path)
		if e == nil {
			e = errors.Join(out.write(f), f.Close())
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("--%s: %w", out.flag, e))
		}
	}
	return err
}

// deriveBudgets prints budgets that follow from results.
func (b *benchCommand) deriveBudgets(stdout io.Writer) error {
	var all []*report.Report
	for _, path := range b.runs {
		r, err := report.ReadRun(path)
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	return report.WriteBudgets(stdout, all)
}

func (b *benchCommand) compareReports(stdout io.Writer) error {
	x, err := report.ReadRun(b.reportA)
	if err != nil {
		return err
	}
	y, err := report.ReadRun(b.reportB)
	if err != nil {
		return err
	}
	return report.Compare(stdout, x, y)
}
