package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"larder/benchmarks/dataset"
	"larder/benchmarks/process"
)

// config contains the flags.
type config struct {
	workload
	dir   string
	pace  time.Duration
	costs bool
}

func main() {
	var c config
	app := kingpin.New(
		"eviction", "Compare memory caches by the pages that dashboards and scans read.")
	app.Flag("seed", "Seed of the data and the queries.").Default("1").Uint64Var(&c.seed)
	app.Flag("regions", "Copies of the demo's clusters; 75 MB each.").
		Default("6").IntVar(&c.regions)
	app.Flag("visits", "Number of times that a dashboard is opened.").
		Default("1500").IntVar(&c.visits)
	app.Flag("scans", "Number of scans in between. 0 = none.").Default("12").IntVar(&c.scans)
	scan := app.Flag("scan-bytes", "Bytes of archived chunks that a scan reads.").
		Default("256MiB").Bytes()
	app.Flag("pace",
		"Minimum time per page in the paced replay. A gateway needs about 50 µs per page of chunks.").
		Default("10us").DurationVar(&c.pace)
	app.Flag("costs", "Measure the cost of operations and the memory too.").
		Default("true").BoolVar(&c.costs)
	app.Flag("dir",
		"Folder for the bucket, reused for the same seed and regions. A temporary one by default.").
		StringVar(&c.dir)
	kingpin.MustParse(app.Parse(os.Args[1:]))
	c.duration, c.scanBytes = 10*hour, int64(*scan)

	process.Main("eviction", func(ctx context.Context) error {
		return c.run(ctx, os.Stdout)
	})
}

func (c config) run(ctx context.Context, w io.Writer) (err error) {
	tmp, err := os.MkdirTemp("", "larder-eviction-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	bucket := filepath.Join(tmp, "bucket")
	if c.dir != "" {
		bucket = filepath.Join(c.dir, fmt.Sprintf("seed%d-regions%d", c.seed, c.regions))
	}
	if err := makeBucket(ctx, bucket, demoRegions(c.seed, c.regions)); err != nil {
		return err
	}
	g, err := openGateway(ctx, bucket, filepath.Join(tmp, "data"))
	if err != nil {
		return err
	}
	start := time.Now()
	traces, err := c.record(ctx, g)
	g.Close()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "recorded in %s\n", time.Since(start).Round(time.Second))
	for _, t := range traces {
		if err := c.print(ctx, w, t); err != nil {
			return err
		}
	}
	if !c.costs {
		return nil
	}
	fmt.Fprint(w, "\ncost of an operation\n")
	if err := printCosts(w); err != nil {
		return err
	}
	fmt.Fprint(w, "\na burst of 100,000 pages, as shares of the size\n")
	return printBurst(w)
}

// makeBucket writes the layout, unless the folder exists.
func makeBucket(ctx context.Context, dir string, l dataset.Layout) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	if _, err := l.Write(ctx, partial, dataset.WriteOptions{}); err != nil {
		return err
	}
	return os.Rename(partial, dir)
}

// minCache is the size of the smallest cache compared: in smaller ones, fixed parts of some
// candidates would dominate.
const minCache = 2 << 20

// print replays a trace against all candidates at several sizes.
func (c config) print(ctx context.Context, w io.Writer, t *trace) error {
	s := t.summary()
	fmt.Fprintf(
		w,
		"\n%s: %d fetches, of %d pages by dashboards (%.0f %% of their bytes needed) and "+
			"%d by scans; distinct: %.1f MB by dashboards (%.1f MB once only), "+
			"%.1f MB by scans only; trace %016x\n",
		t.kind, s.accesses, s.dashboardPages, percent(s.neededBytes, s.dashboardBytes), s.scanPages,
		mb(s.workingSet), mb(s.once), mb(s.scanned), s.hash,
	)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(
		tw,
		"%% found\tpaced:\tdashboards\tbytes\tall\tbytes\tflat out:\tdashboards\tbytes\tall\tbytes\t\n",
	)
	for _, share := range []int64{5, 10, 25, 50} {
		size := s.workingSet * share / 100
		if size < minCache {
			continue
		}
		fmt.Fprintf(tw, "%d %%, %.1f MB%s\n", share, mb(size), strings.Repeat("\t", 11))
		d, a := optimum(t, size)
		fmt.Fprintf(tw, "optimum (knows the future)\t\t%s\t\t%s\t\n", ratios(d, a), ratios(d, a))
		for _, cand := range candidates() {
			var cells [2]string
			for i, pace := range []time.Duration{c.pace, 0} {
				if i == 1 && cand.exact {
					cells[i] = cells[0]
					continue
				}
				if cand.exact {
					pace = 0
				}
				x := cand.make(size)
				d, a, err := replay(ctx, t, x, pace)
				x.close()
				if err != nil {
					return fmt.Errorf("%s: %w", cand.name, err)
				}
				cells[i] = ratios(d, a)
			}
			fmt.Fprintf(tw, "%s\t\t%s\t\t%s\t\n", cand.name, cells[0], cells[1])
		}
	}
	return tw.Flush()
}

func ratios(dashboards, all hits) string {
	return fmt.Sprintf("%.1f\t%.1f\t%.1f\t%.1f", dashboards.ratio(), dashboards.byteRatio(),
		all.ratio(), all.byteRatio())
}

func mb(n int64) float64 { return float64(n) / 1e6 }
