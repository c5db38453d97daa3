package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"larder/benchmarks/bench/report"
	"larder/benchmarks/objectstore"
	"larder/benchmarks/scenario"
	"larder/internal/budget"
	"larder/store"
)

// Options configure a Runner. Document, Budgets and either Start or Endpoint are required.
type Options struct {
	Document *scenario.Document
	Budgets  *budget.Document
	// Start starts a gateway whose memory is empty, whose blocks are known and whose index headers
	// are on disk. The Runner closes it before it starts another one.
	Start func(ctx context.Context, disk Disk) (*Target, error)
	// HasDisk says that the gateways of Start may have a disk cache. Without one, scenarios that
	// restart with it are skipped.
	HasDisk bool
	// Endpoint is a gateway that runs already. Its caches cannot be emptied, therefore cold
	// scenarios are skipped.
	Endpoint *Target
	// Replay are requests to send instead of scenarios, nil for none.
	Replay *Replay
	// Only selects scenarios by name; nil: all.
	Only *regexp.Regexp
	// Duration replaces the durations of the scenarios that have one; 0: does not.
	Duration time.Duration
	// Seed determines the requests.
	Seed uint64
	// Timeout bounds a request; default 1 minute.
	Timeout time.Duration
	// Subject is what an earlier Runner found out about the bucket: see Runner.Subject. nil: the
	// Runner looks for itself.
	Subject *scenario.Subject
	// Progress gets lines about the progress; default: none.
	Progress io.Writer
}

// Disk says what is in the disk cache of a gateway that starts.
type Disk int

const (
	// DiskKept has what earlier gateways wrote, and prefetch.
	DiskKept Disk = iota
	// DiskEmptied is empty at the start, and prefetch reads indexes into it.
	DiskEmptied
	// DiskBare is empty, and prefetch is off. Therefore nothing but requests uses the bucket and
	// the CPU.
	DiskBare
)

// Runner runs scenarios. Use it once.
type Runner struct {
	opts    Options
	target  *Target
	disk    Disk // of target
	current atomic.Pointer[recorder]
	// progress is set by Run.
	progress *progress
	subject  *scenario.Subject
}

// New returns a Runner.
func New(o Options) *Runner {
	o.Timeout = cmp.Or(o.Timeout, time.Minute)
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	return &Runner{opts: o, target: o.Endpoint, subject: o.Subject}
}

// Subject returns what Run has found out about the bucket.
func (r *Runner) Subject() *scenario.Subject { return r.subject }

// Finished records a request of a gateway that Start has started: see store.Options.
func (r *Runner) Finished(f store.Finished) {
	if rec := r.current.Load(); rec != nil {
		rec.finished(f)
	}
}

// selected returns the scenarios to run.
func (r *Runner) selected() []*scenario.Scenario {
	var out []*scenario.Scenario
	for i := range r.opts.Document.Scenarios {
		s := r.opts.Document.Scenarios[i]
		if r.opts.Only != nil && !r.opts.Only.MatchString(s.Name) {
			continue
		}
		if r.opts.Duration > 0 && s.Duration > 0 {
			s.Duration = r.opts.Duration
		}
		out = append(out, &s)
	}
	return out
}

// Run runs the scenarios in their order. After an error or once ctx has ended it returns what it
// has so far.
func (r *Runner) Run(ctx context.Context) (rep *report.Report, err error) {
	rep = &report.Report{
		Created: time.Now().UTC(), CPUs: runtime.GOMAXPROCS(0), Seed: r.opts.Seed,
		Quantile: r.opts.Budgets.Quantile,
	}
	if r.opts.Replay != nil {
		return rep, r.runReplay(ctx, rep)
	}
	all := r.selected()
	if len(all) == 0 {
		return rep, fmt.Errorf("--only: no scenario is selected: the scenarios are %s",
			strings.Join(r.opts.Document.Names(), ", "))
	}
	if r.opts.Start != nil {
		defer func() { err = errors.Join(err, r.stop()) }()
	}
	if err := r.look(ctx, all); err != nil {
		return rep, err
	}
	p := newProgress(r.opts.Progress, all)
	r.progress = p
	for _, s := range all {
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		end := p.begin(s)
		result, err := r.scenario(ctx, s)
		end()
		if err != nil {
			return rep, fmt.Errorf("scenario %s: %w", s.Name, err)
		}
		rep.Scenarios = append(rep.Scenarios, *result)
	}
	rep.Notes = r.notes()
	return rep, ctx.Err()
}

// look surveys the bucket.
func (r *Runner) look(ctx context.Context, all []*scenario.Scenario) error {
	if r.subject != nil {
		return nil
	}
	if r.target == nil {
		if err := r.restart(ctx, DiskKept); err != nil {
			return err
		}
	}
	vars := false
	for _, s := range all {
		vars = vars || r.opts.Document.NeedsSurvey(s)
	}
	var err error
	r.subject, err = survey(ctx, r.target, vars, r.opts.Seed)
	if err == nil && vars {
		fmt.Fprintf(r.opts.Progress, "metric %s, ${label} is %s (%d values), ${other} is %s\n",
			r.subject.Metric, r.subject.Label, len(r.subject.Values), r.subject.Other)
	}
	return err
}

// notes say what the figures do not contain.
func (r *Runner) notes() []string {
	var out []string
	switch t := r.target; {
	case t == nil:
	case t.Bucket != nil:
		out = append(out, "the gateway runs in the process of bench: CPU, allocations and memory "+
			"contain the client, which does not decode answers")
	case t.Gather == nil:
		out = append(out, "only the client's times are known, and for Series requests what the "+
			"answers tell (query statistics): give --metrics-url for stages, cache hits and costs")
	default:
		out = append(
			out,
			"stage times are upper bounds from the gateway's histograms, which count "+
				"all of its requests, also those of other clients. So do its other metrics",
		)
	}
	return out
}

// stop stops the gateway that Start has started.
func (r *Runner) stop() error {
	t := r.target
	r.target = nil
	if t == nil || t.Close == nil {
		return nil
	}
	return t.Close()
}

// restart starts a gateway with empty memory.
func (r *Runner) restart(ctx context.Context, disk Disk) error {
	if err := r.stop(); err != nil {
		return err
	}
	runtime.GC() // the caches of the former one are garbage
	t, err := r.opts.Start(ctx, disk)
	if err != nil {
		return fmt.Errorf("starting the gateway: %w", err)
	}
	r.target, r.disk = t, disk
	return nil
}

// scenario runs one scenario.
func (r *Runner) scenario(
	ctx context.Context, s *scenario.Scenario,
) (*report.Scenario, error) {
	out := &report.Scenario{Name: s.Name, About: r.about(s), Load: loadText(s)}
	if s.Cache == scenario.Cold && r.opts.Start == nil {
		out.Skipped = "the caches of a gateway that runs already cannot be emptied"
		return out, nil
	}
	if s.Cache == scenario.Restart && !(r.opts.Start != nil && r.opts.HasDisk) {
		out.Skipped = "there is no disk cache to fill: give --disk-cache-size after --"
		return out, nil
	}
	requests, err := r.opts.Document.Schedule(s, r.subject, r.opts.Seed)
	if err != nil {
		return nil, err
	}
	var calls []call
	for i := range requests {
		c, err := encode(&requests[i], r.opts.Start == nil)
		if err != nil {
			return nil, err
		}
		calls = append(calls, c)
	}
	if s.Duration == 0 {
		n := s.Requests
		switch s.Cache {
		case scenario.Warm:
			n += len(calls) // each once before
		case scenario.Restart:
			n *= 1 + fills
		}
		r.progress.expect(n)
	}
	m := &measured{rec: newRecorder()}
	m.rec.pause(true)
	r.current.Store(m.rec)
	defer r.current.Store(nil)
	peakKnown := r.opts.Start != nil && resetPeak()
	if s.Fresh() {
		err = r.fresh(ctx, s, calls, m)
	} else {
		err = r.steady(ctx, s, calls, m)
	}
	if err != nil {
		return nil, err
	}
	if peakKnown {
		m.peak, m.hasPeak = peak()
	}
	r.fill(out, s, m)
	return out, nil
}

// measured is what was measured of a scenario.
type measured struct {
	rec     *recorder
	usage   usage
	seconds float64
	trips   float64
	hasTrip bool
	busy    time.Duration
	peak    float64
	hasPeak bool
}

// fresh makes each call of a gateway with empty caches of its own.
func (r *Runner) fresh(
	ctx context.Context, s *scenario.Scenario, calls []call, m *measured,
) error {
	for i := range calls {
		if err := r.restart(ctx, DiskBare); err != nil {
			return err
		}
		b := r.target.Bucket
		one := *s
		one.Requests = 1
		if err := r.part(ctx, &one, calls[i:i+1], m); err != nil {
			return err
		}
		if b != nil {
			m.trips += float64(objectstore.Trips(b.Reads()))
			m.hasTrip = true
		}
	}
	return nil
}

// steady makes the calls of one gateway, of which a cold scenario starts a new one.
func (r *Runner) steady(
	ctx context.Context, s *scenario.Scenario, calls []call, m *measured,
) error {
	if err := r.ready(ctx, s, calls, m); err != nil {
		return err
	}
	defer r.sampled(ctx, m)()
	if s.Cache == scenario.Warm {
		if err := r.ask(ctx, s, calls, m, 1); err != nil {
			return err
		}
	}
	return r.part(ctx, s, calls, m)
}

// ask asks all calls before those that are measured, to fill the caches.
func (r *Runner) ask(
	ctx context.Context, s *scenario.Scenario, calls []call, m *measured, times int,
) error {
	return r.connected(ctx, func(conn *grpc.ClientConn) error {
		l := r.load(conn, calls, m.rec)
		l.closed(ctx, min(max(s.Clients(), 1), warmers), times*len(calls), 0)
		return ctx.Err()
	})
}

// fills is how often each request is asked to fill the disk cache, which keeps chunks that are used
// a second time.
const fills = 2

// ready starts the gateway of a scenario, unless the one that runs fits.
func (r *Runner) ready(
	ctx context.Context, s *scenario.Scenario, calls []call, m *measured,
) error {
	switch {
	case s.Cache == scenario.Cold:
		return r.restart(ctx, DiskBare)
	case s.Cache == scenario.Restart:
		if err := r.restart(ctx, DiskEmptied); err != nil {
			return err
		}
		if err := r.settled(ctx); err != nil {
			return err
		}
		if err := r.ask(ctx, s, calls, m, fills); err != nil {
			return err
		}
		if err := r.restart(ctx, DiskKept); err != nil { // the end has written what waited
			return err
		}
	case r.target == nil || r.opts.HasDisk && r.disk == DiskBare:
		if err := r.restart(ctx, DiskKept); err != nil {
			return err
		}
	}
	return r.settled(ctx)
}

// settled waits until a gateway of Start has read all indexes that it wants on its disk. A disk
// that is not written to ends the wait, because it may stay so.
func (r *Runner) settled(ctx context.Context) error {
	if !r.opts.HasDisk || r.target.Gather == nil {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		got, err := r.target.Gather(within)
		if err != nil {
			return err
		}
		// Not a number before the blocks are known.
		pending, ok := families(got).sum("larder_index_prefetch_pending_blocks", nil)
		paused, _ := families(got).sum("larder_index_prefetch_paused", nil)
		if !ok || pending == 0 || paused == 1 {
			return nil
		}
		if err := wait(within, settlePoll); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("prefetch into the disk cache has not ended within %s: %v blocks "+
				"are left", settleTimeout, pending)
		}
	}
}

const (
	settlePoll    = 20 * time.Millisecond
	settleTimeout = 10 * time.Minute
)

// sampled samples the memory of an endpoint until the returned function is called.
func (r *Runner) sampled(ctx context.Context, m *measured) (end func()) {
	if r.opts.Start != nil || r.target.Gather == nil {
		return func() {}
	}
	sampling, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	var sampled sampler
	go func() {
		defer close(done)
		sampled.run(sampling, r.target)
	}()
	return func() {
		stop()
		<-done
		m.peak, m.hasPeak = sampled.peak()
	}
}

// load returns the load of calls to a connection.
func (r *Runner) load(conn *grpc.ClientConn, calls []call, rec *recorder) *load {
	return &load{
		ask: func(ctx context.Context, c *call) (answer, error) {
			defer r.progress.answered.Add(1)
			return do(ctx, conn, c)
		},
		calls: calls, rec: rec, timeout: r.opts.Timeout,
	}
}

// warmers is the largest number of clients that fill the caches.
const warmers = 4

// connected calls f with a connection to the target.
func (r *Runner) connected(ctx context.Context, f func(*grpc.ClientConn) error) (err error) {
	conn, err := r.target.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	within, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	if err := connect(within, conn); err != nil {
		return fmt.Errorf("connecting to %s: %w", r.target.Address, err)
	}
	return f(conn)
}

// part runs the load of a scenario and measures it.
func (r *Runner) part(
	ctx context.Context, s *scenario.Scenario, calls []call, m *measured,
) error {
	return r.measure(ctx, calls, m, func(l *load) { l.run(ctx, s, r.opts.Seed) })
}

// measure measures what run does with the load of calls.
func (r *Runner) measure(
	ctx context.Context, calls []call, m *measured, run func(*load),
) error {
	return r.connected(ctx, func(conn *grpc.ClientConn) error {
		before, err := used(ctx, r.target, true)
		if err != nil {
			return err
		}
		l := r.load(conn, calls, m.rec)
		if r.target.Bucket != nil {
			r.target.Bucket.Record(true)
		}
		start := time.Now()
		m.rec.pause(false)
		run(l)
		m.rec.pause(true)
		m.seconds += time.Since(start).Seconds()
		if err := ctx.Err(); err != nil {
			return err
		}
		after, err := used(ctx, r.target, false)
		if err != nil {
			return err
		}
		m.usage.add(&before, &after)
		if r.target.Bucket != nil {
			m.busy += objectstore.Busy(r.target.Bucket.Reads())
		}
		return nil
	})
}

// about describes a scenario.
func (r *Runner) about(s *scenario.Scenario) string {
	if s.Mix != "" {
		return "mix " + s.Mix
	}
	for _, q := range r.opts.Document.Queries {
		if q.Name == s.Query {
			return strings.NewReplacer("${label}", r.subject.Label, "${other}", r.subject.Other,
				"${metric}", r.subject.Metric).Replace(cmp.Or(q.About, q.Name))
		}
	}
	return s.Query
}

// loadText describes the load of a scenario.
func loadText(s *scenario.Scenario) string {
	cache := strings.ToUpper(s.Cache[:1]) + s.Cache[1:]
	if s.Rate > 0 {
		return fmt.Sprintf("%s, open loop, %g requests a second", cache, s.Rate)
	}
	clients := "1 client"
	if n := s.Clients(); n > 1 {
		clients = fmt.Sprintf("%d clients", n)
	}
	if s.Fresh() {
		return cache + ", a new gateway for each request"
	}
	return cache + ", closed loop, " + clients
}

// fill writes what was measured into the result.
func (r *Runner) fill(out *report.Scenario, s *scenario.Scenario, m *measured) {
	rec, u := m.rec, &m.usage
	rec.mu.Lock()
	defer rec.mu.Unlock()
	out.Requests, out.Errors, out.Seconds = rec.requests, rec.errors, m.seconds
	if rec.err != nil {
		out.Error = rec.err.Error()
	}
	out.Rows = rec.rows(r.opts.Budgets.Quantile, r.opts.Budgets.Budgets[s.Name],
		u.stageRows(r.opts.Budgets.Quantile))
	out.Curve = rec.curve()
	n := float64(max(rec.requests, 1))
	mean := func(v float64) *float64 {
		v /= n
		return &v
	}
	out.AnswerBytes = float64(rec.bytes) / n
	out.Hits = u.hits(max(rec.requests, 1))
	var gets, lists float64
	switch local := r.opts.Start != nil; {
	case local:
		c := u.bucket
		// A request for a size or a whole object costs as much as a read.
		gets, lists = float64(c.Reads+c.Others), float64(c.Lists)
		out.Reads, out.Others = mean(float64(c.Reads)), mean(float64(c.Lists+c.Others))
		out.ReadBytes, out.BusySeconds = mean(float64(c.Bytes)), mean(m.busy.Seconds())
		if rec.seriesRequests == rec.requests {
			out.Series = mean(float64(rec.series))
		}
	case u.hasCounters:
		gets = u.counters["reads"]
		out.Reads, out.ReadBytes = mean(gets), mean(u.counters["bytes"])
	case rec.withStats > 0 && rec.withStats == rec.requests:
		st := &rec.stats
		gets = float64(st.PostingsFetchCount + st.SeriesFetchCount + st.ChunksFetchCount)
		out.Reads, out.ReadBytes = mean(gets), mean(float64(st.DataDownloadedSizeSum))
	}
	if rec.withStats > 0 && rec.withStats == rec.requests {
		out.Series = mean(float64(rec.stats.MergedSeriesCount))
	}
	if m.hasTrip {
		out.Trips = mean(m.trips)
	}
	if u.hasCPU {
		out.CPUSeconds = mean(u.cpu.Seconds())
		out.AllocBytes, out.Allocs = mean(u.allocBytes), mean(u.allocs)
	}
	if m.hasPeak {
		out.PeakBytes = &m.peak
	}
	if r.target.Bucket != nil {
		if c := r.target.Bucket.Counts(); c.ApartReads > 0 {
			reads, bytes := float64(c.ApartReads), float64(c.ApartBytes)
			out.PrefetchReads, out.PrefetchBytes = &reads, &bytes
		}
	}
	if u.hasCPU && out.Reads != nil {
		p := r.opts.Budgets.Prices
		cpu := time.Duration(*out.CPUSeconds * float64(time.Second))
		usd := p.Thousand(cpu, gets/n, lists/n, *out.ReadBytes)
		out.USD = &usd
	}
}
