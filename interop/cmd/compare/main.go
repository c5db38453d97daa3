// Command compare measures larder against Thanos's BucketStore: one Series request over one bucket,
// each gateway a process of its own, in turns, with a client that counts bytes and decodes nothing.
// The answers are decoded once before, and must be equal.
//
//	go run -tags slicelabels ./cmd/compare --bucket=/data/bucket '{__name__="http_requests_total"}'
//
// Flags after a second "--" are larder's own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/thanos-io/thanos/pkg/store/storepb"

	"larder/interop/internal/answer"
	"larder/interop/internal/gateway"
	"larder/interop/internal/query"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == serveCommand {
		err = serveThanos(ctx, os.Args[2:])
	} else {
		err = compare(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

type options struct {
	bucket   string
	selector string
	rounds   int
	warm     int
	req      storepb.SeriesRequest
	root     string
	cache    int64
	larder   []string
}

func parse(args []string) (*options, error) {
	o := &options{}
	if i := slices.Index(args, "--"); i >= 0 {
		args, o.larder = args[:i], args[i+1:]
	}
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	fs.StringVar(&o.bucket, "bucket", "", "the bucket's folder")
	fs.IntVar(&o.rounds, "rounds", 7, "how often each gateway is asked")
	fs.IntVar(&o.warm, "warm", 2, "how often each gateway is asked before that, unmeasured")
	fs.StringVar(&o.root, "larder", "..", "larder's repository; LARDER_BIN names a binary instead")
	fs.Int64Var(&o.cache, "index-cache-size", 0, "bytes of Thanos's index cache; 0 is its default")
	fs.Int64Var(&o.req.MinTime, "min-time", math.MinInt64, "the request's first millisecond")
	fs.Int64Var(&o.req.MaxTime, "max-time", math.MaxInt64, "the request's last millisecond")
	fs.Int64Var(&o.req.ResponseBatchSize, "response-batch-size", 64, "series per frame")
	fs.Int64Var(&o.req.MaxResolutionWindow, "max-resolution-window", 0, "milliseconds")
	fs.BoolVar(&o.req.SkipChunks, "skip-chunks", false, "ask for labels only")
	without := fs.String("without-replica-labels", "", "labels to remove, separated by commas")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if o.bucket == "" || fs.NArg() != 1 {
		return nil, errors.New("usage: compare --bucket=DIR [flags] SELECTOR [-- larder's flags]")
	}
	o.selector = fs.Arg(0)
	if *without != "" {
		o.req.WithoutReplicaLabels = strings.Split(*without, ",")
	}
	o.req.Aggregates = []storepb.Aggr{storepb.Aggr_COUNT, storepb.Aggr_SUM}
	ms, err := parser.ParseMetricSelector(o.selector)
	if err != nil {
		return nil, fmt.Errorf("selector %q: %w", o.selector, err)
	}
	if o.req.Matchers, err = storepb.PromMatchersToMatchers(ms...); err != nil {
		return nil, err
	}
	if o.bucket, err = filepath.Abs(o.bucket); err != nil {
		return nil, err
	}
	return o, nil
}

func compare(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin, err := gateway.BuildLarder(ctx, o.root)
	if err != nil {
		return err
	}
	lard, err := gateway.StartLarder(
		ctx,
		bin,
		gateway.Bucket{Dir: o.bucket, DataDir: filepath.Join(dir, "larder")},
		o.larder...)
	if err != nil {
		return err
	}
	defer lard.Close()
	than, err := startThanos(ctx, o.bucket, filepath.Join(dir, "thanos"), o.cache)
	if err != nil {
		return err
	}
	defer than.close()

	thanos, larder := &subject{
		name: "thanos",
		addr: than.addr,
		pid:  than.pid(),
	}, &subject{
		name: "larder",
		addr: lard.Addr,
		pid:  lard.PID(),
	}
	if err := equal(ctx, thanos, larder, &o.req); err != nil {
		return err
	}
	for i := range o.warm + o.rounds {
		order := []*subject{thanos, larder}
		if i%2 == 1 {
			// Neither may always find the machine as the other left it.
			slices.Reverse(order)
		}
		for _, s := range order {
			m, err := s.ask(ctx, &o.req)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if i >= o.warm {
				s.rounds = append(s.rounds, m)
			}
		}
	}
	fmt.Printf(
		"%s, %d rounds each, response_batch_size %d\n\n", o.selector, o.rounds,
		o.req.ResponseBatchSize,
	)
	report(os.Stdout, thanos, larder)
	return nil
}

// equal asks both once and decodes: what is measured must be the same answer.
func equal(ctx context.Context, thanos, larder *subject, req *storepb.SeriesRequest) error {
	var as [2]*answer.Answer
	for i, s := range []*subject{thanos, larder} {
		c, err := gateway.Dial(s.addr)
		if err != nil {
			return err
		}
		defer c.Close()
		if as[i], err = answer.Ask(ctx, c, &query.Query{Series: req}); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for _, d := range answer.Diff(as[0], as[1], answer.Options{BatchSize: req.ResponseBatchSize}) {
		// A series larger than a frame comes in pieces; joined they are compared.
		if d.Field != answer.Pieces {
			return fmt.Errorf("the answers differ: %s", d)
		}
	}
	if as[0].Code != 0 {
		return fmt.Errorf("both gateways refuse: %s", as[0].Message)
	}
	chunks := 0
	for _, s := range as[0].Series {
		chunks += len(s.Chunks)
	}
	fmt.Printf("equal answers: %d series, %d chunks\n", len(as[0].Series), chunks)
	if len(as[0].Series) == 0 {
		return errors.New("the answer is empty: nothing to measure")
	}
	return nil
}

// round is one measured request.
type round struct {
	cpu, wall, first time.Duration
	bytes            int64
	frames           int
	peak             int64
}
