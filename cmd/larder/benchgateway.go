package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"larder/benchmarks/bench"
	"larder/benchmarks/dataset"
	"larder/benchmarks/objectstore"
	"larder/benchmarks/tour"
	"larder/store"
	"larder/store/prefetch"
)

// benchGateway starts the gateway that `larder bench` measures, wired as `larder store` is, over a
// modelled object store.
type benchGateway struct {
	args     []string
	model    objectstore.Model
	finished func(store.Finished)
	stderr   io.Writer
	// starts is the number of gateways opened. Each has another seed, so that cold requests do not
	// all meet the same times.
	starts uint64
	// memoryLimit and constants are those of hooks.
	memoryLimit int64
	constants   constants
}

// parse parses the flags.
func (b *benchGateway) parse() (*storeConfig, error) {
	conf, err := parseStore(b.args...)
	if err != nil {
		return nil, fmt.Errorf("store flags after --: %w", err)
	}
	return conf, nil
}

// hasDisk reports whether the flags turn on the disk cache.
func (b *benchGateway) hasDisk() (bool, error) {
	conf, err := b.parse()
	return err == nil && conf.caches.Memory.Disk.Total.Bytes > 0, err
}

// emptyDisk removes the files of the disk cache, and what prefetch remembers of it.
func emptyDisk(dataDir string) error {
	own := filepath.Join(dataDir, "larder")
	return errors.Join(os.RemoveAll(filepath.Join(own, "disk")),
		os.RemoveAll(filepath.Join(own, "prefetch.evicted")))
}

// open opens a gateway. bucket is what it reads from.
func (b *benchGateway) open(
	disk bench.Disk,
) (g *gateway, bucket *objectstore.Bucket, err error) {
	conf, err := b.parse()
	if err != nil {
		return nil, nil, err
	}
	if disk != bench.DiskKept {
		if err := emptyDisk(conf.dataDir.path); err != nil {
			return nil, nil, err
		}
	}
	if p := &conf.caches.Memory.Disk.Prefetch; disk == bench.DiskBare {
		p.Given, p.Bytes = true, 0
	}
	model := b.model
	model.Seed += b.starts << 32
	b.starts++
	conf.hooks = hooks{
		beneath: func(c objstore.Bucket) objstore.Bucket {
			bucket = objectstore.Wrap(c, model)
			bucket.CountApart(prefetch.Reading)
			return bucket
		},
		finished:    b.finished,
		memoryLimit: b.memoryLimit, constants: b.constants,
	}
	g, err = newGateway(conf, b.stderr)
	return g, bucket, err
}

// try opens and closes a gateway, so that a mistake in the flags is an error before the first
// scenario.
func (b *benchGateway) try() error {
	g, _, err := b.open(bench.DiskKept)
	if err != nil {
		return err
	}
	g.close()
	return nil
}

// benchReadyTimeout bounds the time until the gateway serves, which includes building index headers
// in the first run.
const benchReadyTimeout = 10 * time.Minute

// start starts a gateway, and waits until it has read the list of blocks from the bucket and built
// its index headers.
func (b *benchGateway) start(ctx context.Context, disk bench.Disk) (*bench.Target, error) {
	g, bucket, err := b.open(disk)
	if err != nil {
		return nil, err
	}
	serving, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- g.run(serving) }()
	closeAll := func() error {
		stop()
		err := <-stopped
		g.close()
		return err
	}
	t := &bench.Target{
		Address: g.rpcListener.Addr().String(), Bucket: bucket, Close: closeAll,
		Gather: func(context.Context) (map[string]*dto.MetricFamily, error) {
			families, err := g.metrics.Gather()
			byName := map[string]*dto.MetricFamily{}
			for _, f := range families {
				byName[f.GetName()] = f
			}
			return byName, err
		},
	}
	within, cancel := context.WithTimeout(ctx, benchReadyTimeout)
	defer cancel()
	if err := waitReady(within, t.Address, g.backend.complete); err != nil {
		return nil, errors.Join(fmt.Errorf("the gateway did not get ready: %w", err), closeAll())
	}
	return t, nil
}

// waitReady waits until the gateway serves a complete list of blocks.
func waitReady(ctx context.Context, address string, complete <-chan struct{}) (err error) {
	conn, err := grpc.NewClient(
		address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := tour.New(conn).WaitReady(ctx); err != nil {
		return err
	}
	select {
	case <-complete:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// describeModel describes the modelled store.
func (b *benchGateway) describeModel() string {
	m := b.model
	if m.FirstByte == 0 && m.BytesPerSecond == 0 && m.Errors == 0 && m.MaxRate == 0 {
		return "no model"
	}
	s := fmt.Sprintf("modelled store with first byte %s (spread %g), %.0f MiB/s", m.FirstByte,
		m.Spread, float64(m.BytesPerSecond)/(1<<20))
	if m.Errors > 0 {
		s += fmt.Sprintf(", %g %% errors", 100*m.Errors)
	}
	if m.MaxRate > 0 {
		s += fmt.Sprintf(", throttled above %g requests/s", m.MaxRate)
	}
	return s
}

// makeBenchBucket writes the blocks of a profile, unless the folder exists. The folder gets its
// name only when it is complete.
func makeBenchBucket(
	ctx context.Context, profile string, seed uint64, dir string, w io.Writer,
) error {
	if found, err := filepath.Glob(filepath.Join(dir, "*", "meta.json")); err != nil {
		return err
	} else if len(found) > 0 {
		fmt.Fprintf(w, "using the bucket in %s\n", dir)
		return nil
	}
	if profile == "small" {
		profile = "demo"
	}
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	layout := dataset.Layouts(0)[profile](seed)
	start := time.Now()
	reported := start
	_, err := layout.Write(ctx, partial, dataset.WriteOptions{
		Progress: func(p dataset.Progress) {
			if now := time.Now(); now.Sub(reported) >= time.Second {
				reported = now
				fmt.Fprintf(w, "writing the bucket: %d of %d blocks, %d series\n",
					p.Blocks, p.TotalBlocks, p.Series)
			}
		},
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "wrote a bucket of %d blocks in %s\n", len(layout.Blocks),
		time.Since(start).Round(time.Second/10))
	return os.Rename(partial, dir)
}
