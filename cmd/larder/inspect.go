package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"

	"larder/internal/bucket"
	"larder/internal/bucket/retry"
	"larder/internal/bucket/slots"
	"larder/internal/localfs"
	"larder/internal/panics"
	"larder/internal/telemetry"
	"larder/store/catalog"
	"larder/store/inspection"
)

// inspectCommand is `larder inspect`: reports about a bucket, which it only reads.
type inspectCommand struct {
	shards, block, bucket *kingpin.CmdClause

	process *processConfig // of the application
	conf    bucketConfig
	blocks  blocksConfig

	output       string
	progress     bool
	count, to    int
	id           string
	labels       int
	measure      bool
	checkSeries  bool
	checkIndexes bool
	minGap       time.Duration
}

func registerInspect(app *kingpin.Application, process *processConfig) *inspectCommand {
	c := &inspectCommand{process: process}
	group := app.Command("inspect", "Report on the blocks of a bucket. The bucket is only read.")
	c.conf.objstoreFlags(group)
	c.blocks.selectionFlags(group)
	flag(group, "output", "table", &c.output, oneOf("table", "json"),
		"Format of the report: table or json.")
	boolFlag(group, "progress", "false", &c.progress,
		"Print progress to stderr even if that is no terminal.")

	c.shards = group.Command("shards",
		"Show how blocks, bytes and series spread over shards, and what a change would move.")
	flag(c.shards, "shards", "0", &c.count, between(0, inspection.MaxShards),
		"Number of shards now. 0 = none, report on the hashmod rules of "+
			"--selector.relabel-config alone.")
	flag(c.shards, "to", "0", &c.to, between(0, inspection.MaxShards),
		"Number of shards after a change. 0 = no change.")

	c.block = group.Command("block",
		"Show what one block consists of, its largest labels, and what it costs a gateway.")
	c.conf.priceFlag(c.block)
	flag(c.block, "labels", "10", &c.labels, integer(1), "Maximum number of labels to show.")
	boolFlag(c.block, "measure", "true", &c.measure,
		"Measure the bucket with 32 reads, of at most 256 KiB each.")
	boolFlag(c.block, "check-series", "false", &c.checkSeries,
		"Read all series of the index and report whether they are out of order.")
	c.block.Arg("block", "ULID of the block.").Required().StringVar(&c.id)

	c.bucket = group.Command("bucket",
		"Show label sets, resolutions, gaps, overlaps, partial uploads, marks and bad blocks.")
	flag(c.bucket, "min-gap", "1m", &c.minGap, promDuration,
		"Length from which a time without a block counts as a gap. 0 = any length.")
	boolFlag(c.bucket, "check-indexes", "false", &c.checkIndexes,
		"Read the series of every index and report blocks whose series or labels are out of "+
			"order. This reads most of each index file.")
	return c
}

// commands returns what to run for each name.
func (c *inspectCommand) commands(stdout, stderr io.Writer) map[string]func() error {
	return map[string]func() error{
		c.shards.FullCommand(): func() error { return c.run(c.inspectShards, stdout, stderr) },
		c.block.FullCommand():  func() error { return c.run(c.inspectBlock, stdout, stderr) },
		c.bucket.FullCommand(): func() error { return c.run(c.inspectBucket, stdout, stderr) },
	}
}

// target is the bucket that an inspection reads.
type target struct {
	stack    *bucket.Stack
	logger   *slog.Logger
	progress *progressLines
}

// run opens the bucket, and ends with the first interrupt.
func (c *inspectCommand) run(
	inspect func(ctx context.Context, t target, out *reportWriter) error, stdout, stderr io.Writer,
) (err error) {
	if err := c.blocks.load(time.Now()); err != nil {
		return err
	}
	if err := c.conf.loadBucket(); err != nil {
		return err
	}
	logger, err := telemetry.NewLogger(stderr, c.process.logLevel, c.process.logFormat)
	if err != nil {
		return err
	}
	t := target{logger: logger, progress: newProgressLines(stderr, c.progress)}
	t.stack, err = bucket.Open(c.conf.parsed, bucket.Options{
		Limiter: slots.New(slots.Options{}), Logger: logger,
	})
	if err != nil {
		return c.conf.yaml.wrap(err)
	}
	defer func() { err = errors.Join(err, t.stack.Close()) }()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	silence := make(chan error, 1)
	silent, heard := context.WithCancel(ctx)
	go func() {
		silence <- panics.Contained(func() error {
			t.stack.ReportSilence(silent)
			return nil
		})()
	}()
	err = inspect(ctx, t, &reportWriter{w: stdout, json: c.output == "json"})
	heard()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return errors.Join(err, <-silence)
}

// inventory reads what the bucket has. With hashmod it leaves the rule out that keeps one shard.
func (c *inspectCommand) inventory(
	ctx context.Context, t target, o catalog.InventoryOptions, hashmod *catalog.Hashmod,
) (*catalog.Inventory, error) {
	rules := c.blocks.relabel
	if hashmod != nil {
		rules = hashmod.Others()
	}
	o.Progress = t.progress.report
	return catalog.TakeInventory(ctx, catalog.Options{
		Bucket: t.stack.Bound(), BucketName: t.stack.Name(), FinalError: retry.Final,
		Concurrency: c.blocks.concurrency, MinTime: c.blocks.minTime, MaxTime: c.blocks.maxTime,
		Relabel: rules, ConsistencyDelay: c.blocks.consistencyDelay,
		IgnoreDeletionMarksDelay: c.blocks.deletionMarksDelay,
	}, o)
}

func (c *inspectCommand) inspectShards(ctx context.Context, t target, out *reportWriter) error {
	o := inspection.ShardsOptions{Count: c.count, To: c.to}
	if h, ok := catalog.FindHashmod(c.blocks.relabel); ok {
		if h.Modulus() > inspection.MaxShards {
			return fmt.Errorf("--selector.relabel-config: modulus %d is above %d", h.Modulus(),
				inspection.MaxShards)
		}
		o.Hashmod = &h
	}
	if o.Count == 0 && o.Hashmod == nil {
		return errors.New("--shards: give the number of shards, or a --selector.relabel-config " +
			"with a hashmod rule and a rule that keeps its result")
	}
	inv, err := c.inventory(ctx, t, catalog.InventoryOptions{}, o.Hashmod)
	if err != nil {
		return err
	}
	r := inspection.Shards(inv, t.stack.Name(), o)
	return errors.Join(out.write(r, func() { out.shards(r) }), complete(r.Complete))
}

// complete returns the error of a report that lacks something.
func complete(ok bool) error {
	if ok {
		return nil
	}
	return errors.New("the bucket failed to return some documents: see the bad blocks of the " +
		"report, and try again")
}

func (c *inspectCommand) inspectBlock(ctx context.Context, t target, out *reportWriter) error {
	id, err := ulid.ParseStrict(c.id)
	if err != nil || id.String() != c.id || id.IsZero() {
		return fmt.Errorf("%.64q is not the ULID of a block", c.id)
	}
	inv, err := c.inventory(ctx, t, catalog.InventoryOptions{Block: id}, nil)
	if err != nil {
		return err
	}
	if len(inv.Entries) == 0 {
		return fmt.Errorf("the bucket %s has no block %s", t.stack.Name(), id)
	}
	e := inv.Entries[0]
	if e.Block == nil {
		return fmt.Errorf("block %s: %w", id, e.Err)
	}
	return c.withInspector(t, func(i *inspection.Inspector) error {
		r, err := i.Block(ctx, e, t.stack.Name(), inspection.BlockOptions{
			Labels: c.labels, Measure: c.measure, Check: c.checkSeries,
		})
		if err != nil {
			return fmt.Errorf("block %s: %w", id, err)
		}
		return out.write(r, func() { out.block(r) })
	})
}

func (c *inspectCommand) inspectBucket(ctx context.Context, t target, out *reportWriter) error {
	inv, err := c.inventory(ctx, t, catalog.InventoryOptions{Files: true}, nil)
	if err != nil {
		return err
	}
	o := inspection.BucketOptions{MinGap: c.minGap}
	if c.checkIndexes {
		var blocks []*catalog.Block
		for _, e := range inv.Entries {
			if e.Block != nil && e.Files.Index {
				blocks = append(blocks, e.Block)
			}
		}
		err := c.withInspector(t, func(i *inspection.Inspector) (err error) {
			o.Irregular, o.Unread, err = i.Check(ctx, blocks, func(done, total int) {
				t.progress.report("reading indexes", done, total)
			})
			return err
		})
		if err != nil {
			return err
		}
	}
	r := inspection.Bucket(inv, t.stack.Name(), o)
	return errors.Join(out.write(r, func() { out.bucket(r) }), complete(r.Complete))
}

// withInspector calls f with an Inspector, whose index headers are in a temporary directory.
func (c *inspectCommand) withInspector(
	t target, f func(*inspection.Inspector) error,
) (err error) {
	dir, err := os.MkdirTemp("", "larder-inspect-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	i, err := inspection.New(inspection.Options{
		Bucket: t.stack.Bound(), Dir: localfs.At(dir), PerRequest: orNone(c.conf.request),
	})
	if err != nil {
		return err
	}
	defer i.Close()
	return f(i)
}

// reportWriter writes a report.
type reportWriter struct {
	w    io.Writer
	json bool
	err  error // the first failed write of a table
}

// write writes r as JSON, or calls tables.
func (o *reportWriter) write(r any, tables func()) error {
	if o.json {
		e := json.NewEncoder(o.w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(r)
	}
	tables()
	return o.err
}
