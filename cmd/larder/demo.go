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
	memcached, diskCacheSize string
}

func registerDemo(app *kingpin.Application) *demoCommand {
	d := &demoCommand{
		cmd: app.Command(
			"demo",
			"Make a bucket, serve it, ask it questions, and print how long the answers took.",
		),
	}
	d.cmd.Flag("dir", "Folder for the bucket and the gateway's own files. It is kept, and the next demo uses it again. Default: a temporary folder that is removed at the end.").
		StringVar(&d.dir)
	d.cmd.Flag("once", "Stop after the answers. Default: keep serving until Ctrl-C.").
		BoolVar(&d.once)
	d.cmd.Flag("grpc-address", "Listen host:port for gRPC. Default with --once: a free port.").
		PlaceHolder("127.0.0.1:10901").
		StringVar(&d.grpcAddress)
	d.cmd.Flag("http-address", "Listen host:port for HTTP: pages, metrics and probes. Default with --once: a free port.").
		PlaceHolder("127.0.0.1:10902").
		StringVar(&d.httpAddress)
	d.cmd.Flag("memcached", "host:port of a memcached to cache in as well. The next demo with the same --dir then reads from it instead of the bucket.").
		PlaceHolder("127.0.0.1:11211").
		StringVar(&d.memcached)
	d.cmd.Flag("disk-cache-size", "Cache on disk as well, up to this size. "+
		"The next demo with the same --dir then reads from there instead of the bucket.").
		PlaceHolder("1GB").
		StringVar(&d.diskCacheSize)
	return d
}

// demoSeed decides the demo's data, together with when it is made.
const demoSeed = 1

// demoReadyTimeout bounds the time until the gateway serves. It needs far less than a second.
const demoReadyTimeout = time.Minute

func (d *demoCommand) run(stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := d.show(ctx, stdout, stderr)
	if ctx.Err() != nil {
		return nil // Ctrl-C is how a demo ends.
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
	// The gateway is made before the bucket, so that a port in use is an error before the wait.
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

	address, web := g.rpcListener.Addr().String(), g.http[0].listener.Addr().String()
	fmt.Fprintf(stdout, "Serving it: gRPC on %s, pages on http://%s/\n", address, web)
	err = takeTour(ctx, address, stdout)
	if err == nil && (d.memcached != "" || d.diskCacheSize != "") {
		err = printSources(stdout, g.metrics)
	}
	if err == nil && !d.once {
		printNext(stdout, address, web)
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
	if d.diskCacheSize != "" {
		args = append(args, "--disk-cache-size="+d.diskCacheSize)
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

// printNext prints what to try while the gateway serves.
func printNext(stdout io.Writer, address, web string) {
	fmt.Fprintf(stdout, `
Still serving. Try next, in another terminal or a browser:

  See what it serves and how it uses memory:
    http://%[2]s/

  Read its metrics:
    curl http://%[2]s/metrics

  Ask it over gRPC (github.com/fullstorydev/grpcurl):
    grpcurl -plaintext %[1]s thanos.info.Info/Info
    grpcurl -plaintext -d '{"label": "namespace", "start": 0, "end": 9000000000000}' \
      %[1]s thanos.Store/LabelValues

  Query it with PromQL (github.com/thanos-io/thanos), then open http://localhost:9090/:
    thanos query --http-address=0.0.0.0:9090 --grpc-address=127.0.0.1:10911 \
      --endpoint=%[1]s --query.replica-label=replica --query.auto-downsampling
    Graph over 12 hours: sum by (namespace) (rate(http_requests_total[5m]))

  Serve a bucket of your own: larder store --objstore.config-file=bucket.yml

Ctrl-C ends it.
`, address, web)
}

// printSources prints where the pieces of the blocks came from that the answers needed.
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
		"\nPieces of blocks read (16 KiB of indexes, 8 KiB of chunks): %.0f from memory, "+
			"%.0f from disk, %.0f from memcached, %.0f from the bucket.\n",
		from["memory"], from["disk"], from["memcached"], from["bucket"],
	)
	return err
}

// makeDemoBucket writes the demo's blocks, unless the folder exists. The folder gets its name only
// when it is complete. A demo that was interrupted therefore leaves no half of a bucket.
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
	fmt.Fprintf(
		stdout, "Writing a bucket of %d blocks into %s\n"+
			"(a block holds the samples of one Prometheus for some hours or days)\n",
		len(layout.Blocks), dir,
	)
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

// legend explains the table of answers.
const legend = `
Asking every question twice. Cold: the first time, from the bucket, or from a disk or memcached that
an earlier demo has filled. Warm: again, from memory.

  first    time until the first part of the answer arrived
  all      time until the whole answer arrived
  series   number of time series in the answer
  chunks   compressed pieces of these series; a chunk holds up to 120 samples or so
  samples  number of values in these chunks
  KB       size of the answer

`

// meaning says how to read the figures.
const meaning = `
What the figures mean: a small "first" means that larder sends while it still reads. A warm time
below a cold one is what the cache saves. The bucket of this demo is a folder, which answers at
once; an object store adds 20 to 100 ms to each read of a cold answer, and nothing to a warm one.
The last question has a mistake on purpose: larder says what is wrong.
`

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
	if _, err := io.WriteString(stdout, legend); err != nil {
		return err
	}
	if err := tour.Print(stdout, results); err != nil {
		return err
	}
	if err := tour.Check(results); err != nil {
		return err
	}
	_, err = io.WriteString(stdout, meaning)
	return err
}
