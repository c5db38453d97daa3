// Command headblocks writes the blocks of a Prometheus server that watches a small fleet: samples
// go through a head of the TSDB, and its compactor cuts blocks of two hours.
//
// One program serves two versions of Prometheus. In this module it is built with the version that
// Thanos pins. From the repository's root the same files are built with the version that larder
// pins:
//
//	go run -tags current ./interop/cmd/headblocks/main.go ./interop/cmd/headblocks/fleet.go ./interop/cmd/headblocks/current.go --dir=DIR
//
// Only the second version knows start timestamps and XOR2. With the same flags both make the same
// samples.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// blockMillis is the range of a block.
const blockMillis = 2 * 60 * 60 * 1000

type options struct {
	dir  string
	from int64
	// blocks is the number of blocks to write.
	blocks int
	fleet  fleet
	newest bool
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "the folder that blocks are written to")
	flag.Int64Var(
		&o.from, "from", 0, "start of the first block in milliseconds; a multiple of two hours",
	)
	flag.IntVar(&o.blocks, "blocks", 3, "how many blocks")
	flag.Uint64Var(&o.fleet.seed, "seed", 1, "decides every sample")
	flag.IntVar(
		&o.fleet.replica, "replica", 0,
		"number of the server among those that watch the same fleet; each has its own scrape times and gaps",
	)
	flag.IntVar(&o.fleet.pods, "pods", 300, "how many pods there are besides the services")
	flag.BoolVar(
		&o.newest, "newest", false,
		"write the newest encodings of the TSDB: XOR2, histograms with start timestamps",
	)
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "headblocks:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.dir == "" || o.from%blockMillis != 0 {
		return fmt.Errorf("--dir is required, and --from must be a multiple of %d", blockMillis)
	}
	all := o.fleet.series(o.from, o.from+int64(o.blocks)*blockMillis)
	for i := range o.blocks {
		id, err := o.block(ctx, all, o.from+int64(i)*blockMillis)
		if err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
		fmt.Println(id)
	}
	return nil
}

// block writes the samples of two hours into a head and compacts it.
func (o options) block(ctx context.Context, all []series, from int64) (id ulid.ULID, err error) {
	scratch, err := os.MkdirTemp("", "headblocks-")
	if err != nil {
		return id, err
	}
	defer os.RemoveAll(scratch)
	opts := tsdb.DefaultHeadOptions()
	opts.ChunkRange = blockMillis
	opts.ChunkDirRoot = scratch
	if o.newest {
		if err := useNewest(opts); err != nil {
			return id, err
		}
	}
	head, err := tsdb.NewHead(nil, promslog.NewNopLogger(), nil, nil, opts, tsdb.NewHeadStats())
	if err != nil {
		return id, err
	}
	defer head.Close()
	if err := head.Init(from); err != nil {
		return id, err
	}
	if err := appendAll(ctx, head.Appender(ctx), all, from, from+blockMillis); err != nil {
		return id, err
	}
	compactor, err := tsdb.NewLeveledCompactor(
		ctx, nil, promslog.NewNopLogger(), []int64{blockMillis}, chunkenc.NewPool(), nil,
	)
	if err != nil {
		return id, err
	}
	ids, err := compactor.Write(o.dir, head, from, from+blockMillis, nil)
	if err != nil {
		return id, err
	}
	if len(ids) != 1 {
		return id, fmt.Errorf("%d blocks were written", len(ids))
	}
	return ids[0], nil
}

func appendAll(ctx context.Context, app storage.Appender, all []series, from, to int64) error {
	for _, s := range all {
		var ref storage.SeriesRef
		for _, x := range s.samples(from, to) {
			var err error
			switch {
			case x.h != nil || x.fh != nil:
				ref, err = app.AppendHistogram(ref, s.labels, x.t, x.h, x.fh)
			default:
				ref, err = app.Append(ref, s.labels, x.t, x.v)
			}
			if err != nil {
				return fmt.Errorf("%s at %d: %w", s.labels, x.t, err)
			}
		}
	}
	return app.Commit()
}

// series is one series with all its samples in order of time.
type series struct {
	labels labels.Labels
	all    []sample
}

func (s series) samples(from, to int64) []sample {
	var out []sample
	for _, x := range s.all {
		if x.t >= from && x.t < to {
			out = append(out, x)
		}
	}
	return out
}
