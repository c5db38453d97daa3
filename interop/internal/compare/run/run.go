// Package run carries out the comparison: it starts the systems over each data set, checks that
// their answers are equal, and measures them in turns.
package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"larder/interop/internal/compare/client"
	"larder/interop/internal/compare/dataset"
	"larder/interop/internal/compare/floor"
	"larder/interop/internal/compare/price"
	"larder/interop/internal/compare/server"
	"larder/interop/internal/compare/workload"
	"larder/interop/internal/gateway"
)

// Options say what to compare.
type Options struct {
	// Root is larder's repository.
	Root string
	// Cache is where data sets are kept.
	Cache string
	// Launcher starts the systems; its larder binary is built if it has none.
	Launcher server.Launcher
	// Systems are the systems to measure; larder and Thanos are always started, because their
	// answers are compared.
	Systems []string
	// Given is a query of a bucket that is there, which is measured instead of the data sets; nil
	// without one.
	Given *Given
	// Sets, Queries and Modes choose what is measured; nil is all. Queries are names.
	Sets, Queries, Modes []string
	// Concurrency is how many clients ask at once, each value by itself.
	Concurrency []int
	// Rounds is how often each system has its turn.
	Rounds int
	// RowTime ends a row before it has had all rounds: after three of them, or after one of a query
	// that takes seconds.
	RowTime time.Duration
	// Time is about how long the run may take. If the rows that remain are expected to take longer,
	// they have less time than RowTime. 0 is no bound.
	Time time.Duration
	// Short uses the short form of the data sets.
	Short bool
	// Untimed counts requests, bytes and trips and measures no time.
	Untimed bool
	// Starts measures starts with an empty data directory.
	Starts bool
	// Latency is that of the bucket behind S3.
	Latency server.Latency
	Prices  price.List
	// Progress gets a line for each step.
	Progress io.Writer
	// Save, unless nil, is called with the results so far after each row, so that a run that fails
	// does not lose them.
	Save func(*Results) error
}

// Given is a query of a folder that is a bucket.
type Given struct {
	Dir   string
	Query workload.Query
}

// system is a system under measurement over one data set.
type system struct {
	name   string
	server *server.Server
	client *client.Client
	bucket *server.Bucket // nil in mode fs
}

// runner is the state of a run.
type runner struct {
	Options
	maker     dataset.Maker
	bucketBin string
	tmp       string
	results   *Results
	begun     time.Time
	done      int
	total     int
	plan      plan
	planned   time.Time // when the data sets were there
}

// Run compares.
func Run(ctx context.Context, o Options) (res *Results, err error) {
	used := clock()
	r := &runner{
		Options: o, begun: time.Now(),
		maker: dataset.Maker{Root: o.Root, Cache: o.Cache, Short: o.Short, Progress: o.Progress},
		results: &Results{
			Started: time.Now().UTC(), Machine: machine(), Rounds: o.Rounds, Short: o.Short,
			FirstByte: o.Latency.FirstByte, BytesPerSecond: o.Latency.BytesPerSecond,
			Prices: o.Prices,
		},
	}
	if r.Launcher.LarderBin == "" {
		if r.Launcher.LarderBin, err = gateway.BuildLarder(ctx, o.Root); err != nil {
			return nil, err
		}
	}
	r.results.Larder = commit(ctx, o.Root)
	if r.bucketBin, err = gateway.Build(ctx, o.Root, "./benchmarks/bucketserver"); err != nil {
		return nil, err
	}
	if r.tmp, err = os.MkdirTemp("", "larder-compare-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.tmp)) }()

	jobs := r.jobs()
	for i := range jobs {
		if j := &jobs[i]; j.dir == "" {
			if j.dir, err = r.maker.Make(ctx, j.set); err != nil {
				return nil, err
			}
		}
		for _, mode := range Modes() {
			if chosen(o.Modes, mode) {
				r.total += len(r.cells(jobs[i].queries, mode))
			}
		}
	}
	r.plan, r.planned = r.expected(jobs), time.Now()
	r.progress("%d rows; this takes about %s", r.total, rough(r.plan.left))
	for _, j := range jobs {
		if err := r.set(ctx, j); err != nil {
			return nil, fmt.Errorf("data set %s: %w", j.set.Name, err)
		}
	}
	r.results.Others = clock().others(used)
	return r.results, r.save()
}

// save offers the results so far.
func (r *runner) save() error {
	r.results.Took = time.Since(r.planned)
	if r.Save == nil {
		return nil
	}
	return r.Save(r.results)
}

// job is what is measured of one data set.
type job struct {
	set     dataset.Set
	dir     string // empty: to be made
	queries []workload.Query
	starts  int // blocks; 0: starts are not measured
}

// jobs are what the options ask for.
func (r *runner) jobs() []job {
	if g := r.Given; g != nil {
		return []job{{
			set: dataset.Set{Name: "given"}, dir: g.Dir, queries: []workload.Query{g.Query},
		}}
	}
	var jobs []job
	for _, set := range dataset.All() {
		if !chosen(r.Sets, set.Name) {
			continue
		}
		j := job{set: set}
		for _, q := range workload.All() {
			if q.Set == set.Name && chosen(r.Queries, q.Name) {
				j.queries = append(j.queries, q)
			}
		}
		if r.Starts {
			j.starts = startBlocks(set, r.Short)
		}
		if len(j.queries) > 0 || j.starts > 0 {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

func chosen(list []string, name string) bool { return list == nil || slices.Contains(list, name) }

// set measures a data set.
func (r *runner) set(ctx context.Context, j job) error {
	set, dir, qs := j.set, j.dir, j.queries
	if j.starts > 0 {
		if err := r.starts(ctx, set, dir, j.starts); err != nil {
			return err
		}
		r.plan.passed(r.startsTime(j))
	}
	if len(qs) == 0 {
		return nil
	}
	defer func() { r.plan.passed(r.setupTime(j)) }()
	checked := false
	for _, mode := range Modes() {
		cells := r.cells(qs, mode)
		if !chosen(r.Modes, mode) || len(cells) == 0 {
			continue
		}
		err := func() (err error) {
			s, err := r.open(ctx, set, dir, mode)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			if !checked {
				if err := r.equal(ctx, s, r.measuredOf(qs)); err != nil {
					return err
				}
				checked = true
			}
			for _, c := range cells {
				if err := r.cell(ctx, s, c); err != nil {
					return fmt.Errorf("%s, mode %s: %w", c.query.Name, mode, err)
				}
			}
			if mode == S3Disk && r.Queries == nil {
				return r.volume(ctx, s)
			}
			return nil
		}()
		if err != nil {
			return err
		}
	}
	return nil
}

// cell is a row that is to be measured.
type cell struct {
	query       *workload.Query
	mode        string
	concurrency int
}

// cells lists the rows of a mode.
func (r *runner) cells(qs []workload.Query, mode string) []cell {
	var out []cell
	for i := range qs {
		q := &qs[i]
		if q.Grows != "" && mode != FS || q.Set == "crowded" && mode != S3Cold ||
			q.Goal == nil && mode == S3Disk {
			continue
		}
		for _, n := range r.Concurrency {
			if n > 1 && mode == S3Disk {
				continue
			}
			if n == 1 || q.Concurrent && (mode == FS || q.ConcurrentS3) {
				out = append(out, cell{q, mode, n})
			}
		}
	}
	return out
}

// measuredOf returns the queries that have a row in some mode.
func (r *runner) measuredOf(qs []workload.Query) []workload.Query {
	return slices.DeleteFunc(slices.Clone(qs), func(q workload.Query) bool {
		return !slices.ContainsFunc(Modes(), func(mode string) bool {
			return chosen(r.Modes, mode) && len(r.cells([]workload.Query{q}, mode)) > 0
		})
	})
}

// session is the systems of one data set in one mode.
type session struct {
	r       *runner
	mode    string
	dir     string // of the data set
	work    string // of the systems
	systems []*system
	flags   []string // of larder, for this session
}

// work is the folder with the data directories of the systems in a mode.
func (r *runner) work(set dataset.Set, mode string) string {
	return filepath.Join(r.tmp, set.Name+"-"+mode)
}

// open starts the systems. Their data directories are kept between restarts.
func (r *runner) open(
	ctx context.Context, set dataset.Set, dir, mode string,
) (s *session, err error) {
	s = &session{r: r, mode: mode, dir: dir, work: r.work(set, mode)}
	if mode == S3Disk {
		s.flags = []string{diskSize}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	names := []string{server.Thanos, server.Larder}
	if slices.Contains(r.Systems, server.Floor) && mode == FS {
		names = append(names, server.Floor)
	}
	for _, name := range names {
		sys := &system{name: name}
		s.systems = append(s.systems, sys)
		if mode != FS {
			sys.bucket, err = server.StartBucket(ctx, r.bucketBin, dir, r.Latency)
			if err != nil {
				return s, err
			}
		}
		r.progress("%s: starting %s, mode %s", set.Name, name, mode)
		if err := s.start(ctx, sys); err != nil {
			return s, err
		}
		if mode == S3Disk && name == server.Larder {
			if err := s.prefetched(ctx, sys); err != nil {
				return s, err
			}
		}
	}
	return s, nil
}

// start starts a system and connects to it.
func (s *session) start(ctx context.Context, sys *system) (err error) {
	b := gateway.Bucket{Dir: s.dir, DataDir: filepath.Join(s.work, sys.name)}
	if sys.bucket != nil {
		b.Config = sys.bucket.Config
	}
	switch sys.name {
	case server.Larder:
		sys.server, err = s.r.Launcher.Larder(ctx, b, true, s.flags...)
	case server.Thanos:
		sys.server, err = s.r.Launcher.Thanos(ctx, b)
	default:
		if err := os.MkdirAll(b.DataDir, 0o777); err != nil {
			return err
		}
		sys.server, err = s.r.Launcher.Floor(ctx, b.DataDir)
	}
	if err != nil {
		return err
	}
	if sys.client, err = client.Dial(sys.server.Addr); err != nil {
		return err
	}
	if sys.name == server.Floor {
		return nil
	}
	// The connection is part of no measurement.
	_, err = sys.client.Do(ctx, client.Call{Method: "/thanos.info.Info/Info"}, nil)
	return err
}

// stop ends a system's process; its bucket stays.
func (sys *system) stop() error {
	var errs []error
	if sys.client != nil {
		errs = append(errs, sys.client.Close())
	}
	if sys.server != nil {
		errs = append(errs, sys.server.Close())
	}
	sys.client, sys.server = nil, nil
	return errors.Join(errs...)
}

func (s *session) close() error {
	var errs []error
	for _, sys := range s.systems {
		errs = append(errs, sys.stop())
		if sys.bucket != nil {
			errs = append(errs, sys.bucket.Close())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(s.work))...)
}

func (s *session) system(name string) *system {
	for _, sys := range s.systems {
		if sys.name == name {
			return sys
		}
	}
	return nil
}

// measured are the systems that the user wants to see. Only larder has a disk cache.
func (s *session) measured() []*system {
	return slices.DeleteFunc(slices.Clone(s.systems), func(sys *system) bool {
		return !slices.Contains(s.r.Systems, sys.name) ||
			s.mode == S3Disk && sys.name != server.Larder
	})
}

// equal checks that larder and Thanos give the same answers, and records them for the floor.
func (r *runner) equal(ctx context.Context, s *session, qs []workload.Query) error {
	larder, thanos := s.system(server.Larder), s.system(server.Thanos)
	for i := range qs {
		q := &qs[i]
		what, err := sameAnswers(ctx, thanos.server.Addr, larder.server.Addr, &q.Ask)
		if err != nil {
			return fmt.Errorf("%s: %w", q.Name, err)
		}
		r.progress("%s: equal answers, %s", q.Name, what)
		if f := s.system(server.Floor); f != nil {
			call, err := q.Call()
			if err != nil {
				return err
			}
			answers := filepath.Join(s.work, f.name)
			if err := floor.Record(ctx, answers, larder.client, call); err != nil {
				return fmt.Errorf("%s: record the answer: %w", q.Name, err)
			}
		}
	}
	return nil
}

// progress prints a line with the time since the start.
func (r *runner) progress(format string, args ...any) {
	at := time.Since(r.begun).Round(time.Second)
	fmt.Fprintf(r.Progress, "%7s  %s\n", at, fmt.Sprintf(format, args...))
}
