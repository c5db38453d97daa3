package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"larder/benchmarks/dataset"
	"larder/benchmarks/tour"
)

// demoCommand is `larder demo`: a generated bucket, the gateway in front of it, and a client that
// shows what it does.
type demoCommand struct {
	cmd                      *kingpin.CmdClause
	dir                      string
	once                     bool
	grpcAddress, httpAddress string
	memcached                string
}

func registerDemo(app *kingpin.Application) *demoCommand {
	d := &demoCommand{
		cmd: app.Command(
			"demo",
			"Make a bucket, serve it, ask it questions, print the answers and how long they took.",
		),
	}
	d.cmd.Flag("dir", "Folder for the bucket and the gateway's own files, kept and used again the next time. By default a temporary one that is removed at the end.").
		StringVar(&d.dir)
	d.cmd.Flag("once", "Stop after the answers. By default the gateway goes on serving until it is interrupted.").
		BoolVar(&d.once)
	d.cmd.Flag("grpc-address", "Where the gateway serves the StoreAPI; with --once, a free port unless this is given.").
		PlaceHolder("127.0.0.1:10901").
		StringVar(&d.grpcAddress)
	d.cmd.Flag("http-address", "Where the gateway serves metrics and probes; with --once, a free port unless this is given.").
		PlaceHolder("127.0.0.1:10902").
		StringVar(&d.httpAddress)
	d.cmd.Flag("memcached", "A memcached that keeps pages and expanded postings too, so that the next demo over the same --dir finds them there.").
		PlaceHolder("127.0.0.1:11211").
		StringVar(&d.memcached)
	return d
}

// demoSeed decides the demo's data, together with when it is made.
const demoSeed = 1

// demoReadyTimeout is how long the gateway may take until it serves. It takes far less than a
// second.
const demoReadyTimeout = time.Minute

func (d *demoCommand) run(stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := d.show(ctx, stdout, stderr)
	if ctx.Err() != nil {
		return nil // Interrupted: that is how a demo ends.
	}
	return err
}

func (d *demoCommand) show(ctx context.Context, stdout, stderr io.Writer) (err error) {
	dir := d.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "larder-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	bucket := filepath.Join(dir, "bucket")
	// The gateway is made before the bucket: a port that is taken should not be found out after the
	// wait.
	conf, err := parseStore(d.storeArgs(dir, bucket)...)
	if err != nil {
		return err
	}
	g, err := newGateway(conf, stderr)
	if err != nil {
		return err
	}
	defer g.close()
	if err := makeDemoBucket(ctx, bucket, stdout); err != nil {
		return err
	}
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	stopped := make(chan error, 1)
	go func() { stopped <- g.run(serving) }()

	address := g.rpcListener.Addr().String()
	fmt.Fprintf(
		stdout, "Serving: StoreAPI on %s, metrics on http://%s/metrics\n\n", address,
		g.http[0].listener.Addr(),
	)
	err = takeTour(ctx, address, stdout)
	if err == nil && d.memcached != "" {
		err = printSources(stdout, g.metrics)
	}
	if err == nil && !d.once {
		fmt.Fprintf(
			stdout,
			"\nStill serving. Point a Querier at it, and open http://localhost:9090:\n\n"+
				"  thanos query --http-address=0.0.0.0:9090 --grpc-address=127.0.0.1:10911 --endpoint=%s \\\n"+
				"    --query.replica-label=replica --query.auto-downsampling\n\n"+
				"Ctrl-C ends it.\n",
			address,
		)
		select {
		case <-ctx.Done():
		case err := <-stopped:
			return err
		}
	}
	stopServing()
	return errors.Join(err, <-stopped)
}

// storeArgs are the arguments of `larder store` that serve the bucket.
func (d *demoCommand) storeArgs(dir, bucket string) []string {
	grpcAddress, httpAddress := "127.0.0.1:10901", "127.0.0.1:10902"
	if d.once {
		grpcAddress, httpAddress = "127.0.0.1:0", "127.0.0.1:0"
	}
	if d.grpcAddress != "" {
		grpcAddress = d.grpcAddress
	}
	if d.httpAddress != "" {
		httpAddress = d.httpAddress
	}
	args := []string{
		"--log.level=warn",
		"--data-dir=" + filepath.Join(dir, "data"),
		// YAML strings in double quotes have JSON's escapes, which are Go's for a path.
		fmt.Sprintf("--objstore.config={type: FILESYSTEM, config: {directory: %q}}", bucket),
		"--grpc-address=" + grpcAddress,
		"--http-address=" + httpAddress,
	}
	if d.memcached != "" {
		// A folder answers sooner than any memcached, which would not be waited for.
		tiers := fmt.Sprintf(
			"={type: TIERED, config: {memcached: {addresses: [%q], timeout: 10s, min_timeout: 10s}}}",
			d.memcached,
		)
		args = append(args, "--index-cache.config"+tiers, "--store.caching-bucket.config"+tiers)
	}
	return args
}

// printSources says where the pages came from that the questions needed: what is in memcached is
// not read from the bucket.
func printSources(stdout io.Writer, metrics prometheus.Gatherer) error {
	families, err := metrics.Gather()
	if err != nil {
		return err
	}
	from := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "larder_pages_fetched_total":
				from["bucket"] += m.GetCounter().GetValue()
			case "larder_pages_hits_total":
				for _, l := range m.GetLabel() {
					if l.GetName() == "tier" {
						from[l.GetValue()] += m.GetCounter().GetValue()
					}
				}
			}
		}
	}
	_, err = fmt.Fprintf(
		stdout,
		"\nPages of index and chunks: %.0f from memory, %.0f from memcached, %.0f from the bucket.\n",
		from["memory"], from["memcached"], from["bucket"],
	)
	return err
}

// makeDemoBucket writes the demo's blocks, unless the folder is there already. It appears only when
// it is complete, so that a demo that was interrupted leaves no half of a bucket to the next one.
func makeDemoBucket(ctx context.Context, dir string, stdout io.Writer) error {
	if found, err := filepath.Glob(filepath.Join(dir, "*", "meta.json")); err != nil {
		return err
	} else if len(found) > 0 {
		fmt.Fprintf(stdout, "Found a bucket of %d blocks in %s\n", len(found), dir)
		return nil
	}
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	start := time.Now()
	// Blocks reach a bucket some minutes after their last sample.
	layout := dataset.Demo(demoSeed, start.Add(-15*time.Minute))
	fmt.Fprintf(stdout, "Writing a bucket of %d blocks into %s\n", len(layout.Blocks), dir)
	var reported time.Time
	metas, err := layout.Write(
		ctx,
		partial,
		dataset.WriteOptions{Progress: func(p dataset.Progress) {
			if now := time.Now(); p.Blocks == p.TotalBlocks || now.Sub(reported) >= time.Second/2 {
				reported = now
				fmt.Fprintf(
					stdout, "  %2d of %d blocks, %d series\n", p.Blocks, p.TotalBlocks, p.Series,
				)
			}
		}},
	)
	if err != nil {
		return err
	}
	if err := os.Rename(partial, dir); err != nil {
		return err
	}
	var bytes int64
	var samples, chunks uint64
	for _, m := range metas {
		samples += m.Stats.NumSamples
		chunks += m.Stats.NumChunks
		for _, f := range m.Thanos.Files {
			bytes += f.SizeBytes
		}
	}
	fmt.Fprintf(
		stdout, "  %d samples in %d chunks, %.0f MB, in %.1f s\n", samples, chunks,
		float64(bytes)/1e6, time.Since(start).Seconds(),
	)
	return nil
}

// takeTour asks the gateway at address all questions and prints the answers.
func takeTour(ctx context.Context, address string, stdout io.Writer) (err error) {
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	t := tour.New(conn)
	ready, cancel := context.WithTimeout(ctx, demoReadyTimeout)
	defer cancel()
	if err := t.WaitReady(ready); err != nil {
		return err
	}
	results, err := t.Take(ctx, tour.Questions())
	if err != nil {
		return err
	}
	if err := tour.Print(stdout, results); err != nil {
		return err
	}
	return tour.Check(results)
}
