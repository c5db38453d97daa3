package membership

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/localfs"
	"larder/internal/panics"
	"larder/shard"
)

// maxAsks bounds the addresses that count as Queriers.
const maxAsks = 2048

// Options of a Driver. ID, Config, Dir and Peers are required; Peers may be empty if the
// configuration has one member.
type Options struct {
	ID     shard.ID
	Config shard.Config // of the flags or the file, valid
	// Identity keeps processes of other clusters from being taken for peers. Zero: any process that
	// answers is a peer.
	Identity Identity
	// Peers are the addresses of all members, this one included or not.
	Peers []Peer
	// Client is how peers are asked; nil is HTTP without TLS and authentication.
	Client *ClientConfig
	// QuerierWait and StartWait: as in shard.Options. 0: 10 and 5 minutes.
	QuerierWait, StartWait time.Duration
	// Dir is where the epochs are kept.
	Dir localfs.Dir
	// LockDir is called before each write. Its error counts as a failed write. nil: no other
	// process uses Dir.
	LockDir func() error
	// Warm reports whether a block can be served and the budget for warming it is spent. It must
	// not wait. nil: every block is warm.
	Warm func(ulid.ULID) bool
	// Heat returns what the new owner of blocks should warm, at most MaxHeat bytes. It must not
	// wait. nil: nothing.
	Heat    func([]ulid.ULID) []byte
	MaxHeat int64
	// OnOwnership is called when the process owns other blocks. It must not wait. nil: no call.
	OnOwnership func()
	// OnReady is called when readiness or its reason changes. It must not wait. nil: no call.
	OnReady func(ready bool, reason string)

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Driver runs a Member. Its methods may be called from any goroutine.
type Driver struct {
	opts     Options
	log      *slog.Logger
	metrics  *metrics
	panics   *panics.Guard
	start    time.Time
	interval time.Duration
	snapshot atomic.Pointer[Snapshot]
	events   chan func()
	asks     chan ask
	ended    chan struct{} // closed when Run ends
	polls    *polls

	// The goroutine of Run owns the following.
	member   *shard.Member
	instance uint64
	blocks   []shard.Block            // of the last HandleBlocks
	asked    map[string]time.Duration // when an address called Info last
	pruned   time.Duration            // when asked was
	must     uint64                   // number of the ownership that a view must have for readiness
	applied  uint64                   // number of the ownership of the published view
	seen     map[string]seen          // by address
	callers  map[uint64]caller        // by instance
	foreign  []string                 // addresses that answered for another cluster, sorted
	diskBad  bool
	released time.Time // since when the process may be removed; zero: it may not
	logged   logged
}

// seen is the last report of a peer, for the status.
type seen struct {
	id       shard.ID
	address  string
	instance uint64
	at       time.Duration
	state    shard.State
	readyFor time.Duration
	client   *http.Client
	base     string // the URL of its Prefix
}

// New reads the record of an earlier process and returns a Driver, which decides nothing before
// Run. It returns an error if the configuration contradicts the record.
func New(opts Options) (*Driver, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.LockDir == nil {
		opts.LockDir = func() error { return nil }
	}
	if opts.Warm == nil {
		opts.Warm = func(ulid.ULID) bool { return true }
	}
	if opts.OnOwnership == nil {
		opts.OnOwnership = func() {}
	}
	if opts.OnReady == nil {
		opts.OnReady = func(bool, string) {}
	}
	if opts.QuerierWait <= 0 {
		opts.QuerierWait = 10 * time.Minute
	}
	if opts.StartWait <= 0 {
		opts.StartWait = 5 * time.Minute
	}
	d := &Driver{
		opts: opts, log: opts.Logger.With("component", "shard", "member", opts.ID.String()),
		panics: panics.New("shard", opts.Logger, opts.Registerer), start: time.Now(),
		// Twenty polls in a Querier wait, so that waiting for reports adds little to it.
		interval: min(max(opts.QuerierWait/20, 100*time.Millisecond), 5*time.Second),
		events:   make(chan func()), asks: make(chan ask, 64), ended: make(chan struct{}),
		asked: map[string]time.Duration{}, seen: map[string]seen{},
		callers: map[uint64]caller{},
	}
	d.metrics = newMetrics(opts.Registerer)
	var err error
	if d.polls, err = newPolls(opts.Peers, opts.Client); err != nil {
		return nil, err
	}
	d.instance = rand.Uint64() | 1
	record, err := shard.LoadState(opts.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		d.metrics.stateFailures.WithLabelValues("read").Inc()
		d.log.Error("record of epochs cannot be read, starting without it", "err", err)
	}
	if err := contradiction(record, opts.Config); err != nil {
		return nil, err
	}
	options := shard.Options{QuerierWait: opts.QuerierWait, StartWait: opts.StartWait,
		TwinWindow: min(time.Minute, max(opts.QuerierWait, 6*d.interval))}
	d.member = shard.NewMember(options, opts.ID, d.instance, record, 0)
	d.member.HandleConfig(0, opts.Config)
	d.snapshot.Store(&Snapshot{Reason: "is starting"})
	d.publish()
	d.note()
	return d, nil
}

// now returns the time of the Member's clock.
func (d *Driver) now() time.Duration { return time.Since(d.start) }

// Run decides until ctx ends.
func (d *Driver) Run(ctx context.Context) {
	defer close(d.ended)
	ctx, stop := context.WithCancel(ctx)
	polled := make(chan struct{})
	go func() {
		defer close(polled)
		for ctx.Err() == nil {
			next := time.NewTimer(d.interval)
			// A panic, of a resolver for instance, costs one poll.
			_ = d.panics.Do(func() error { d.poll(ctx); return nil })
			select {
			case <-ctx.Done():
			case <-next.C:
			}
			next.Stop()
		}
	}()
	defer func() { stop(); <-polled }()
	tick := time.NewTicker(d.interval)
	defer tick.Stop()
	d.settle()
	for {
		event := func() {
			d.member.HandleTime(d.now())
			d.note()
		}
		select {
		case <-ctx.Done():
			return
		case event = <-d.events:
		case a := <-d.asks:
			event = func() { d.handleAsk(a) }
		case <-tick.C:
		}
		_ = d.panics.Do(func() error {
			event()
			d.settle()
			return nil
		})
	}
}

// do runs f in the goroutine of Run and waits for it, and for the state to be on disk. It returns
// false if f panicked, and without a call if ctx or Run has ended.
func (d *Driver) do(ctx context.Context, f func()) bool {
	done, ok := make(chan struct{}), false
	event := func() {
		defer close(done)
		f()
		d.settle()
		ok = true
	}
	select {
	case d.events <- event:
	case <-d.ended:
		return false
	case <-ctx.Done():
		return false
	}
	select {
	case <-done:
		return ok
	case <-d.ended:
		return false
	}
}

// settle persists what the Member wants on disk and publishes what it decided.
func (d *Driver) settle() {
	persisted := false
	for {
		state, wanted := d.member.Persist()
		if !wanted || d.save(state) != nil { // the next event tries again
			break
		}
		d.member.HandlePersisted(d.now(), state)
		persisted = true
	}
	d.publish()
	if persisted {
		d.note()
	}
}

func (d *Driver) save(state shard.State) error {
	err := d.opts.LockDir()
	if err == nil {
		err = shard.SaveState(d.opts.Dir, state)
	}
	if err != nil {
		d.metrics.stateFailures.WithLabelValues("write").Inc()
		if !d.diskBad {
			d.log.Error("epochs cannot be persisted, hand-overs wait", "err", err)
		}
	}
	d.diskBad = err != nil
	return err
}

// Reconfigure replaces the configuration and the name of the cluster. It returns an error, and
// keeps those in use, if the epoch did not grow with a change of the configuration.
func (d *Driver) Reconfigure(ctx context.Context, c shard.Config, cluster string) error {
	err := errors.New("the process is stopping")
	d.do(ctx, func() {
		if err = contradiction(d.member.State(), c); err != nil {
			return
		}
		if err = backwards(d.opts.Config, c); err != nil {
			return
		}
		d.opts.Config, d.opts.Identity.Cluster = c, cluster
		d.member.HandleConfig(d.now(), c)
		d.note()
	})
	return err
}

// HandleBlocks takes the blocks of a view that is about to be published, sorted by ID, as the
// ownership of this number selected them. It returns false if the ownership has changed since: the
// caller selects again. The Driver owns blocks from now on.
func (d *Driver) HandleBlocks(ctx context.Context, blocks []shard.Block, number uint64) bool {
	current := true
	if !d.do(ctx, func() {
		if current = d.Snapshot().Number == number; current {
			d.blocks = blocks
			d.member.HandleBlocks(d.now(), blocks)
			d.publish()
			current = d.Snapshot().Number == number
		}
	}) {
		// After a panic the Member may not know the blocks, and they must not be published. The
		// caller tries again.
		select {
		case <-ctx.Done():
		case <-d.ended:
		case <-time.After(d.interval):
			return false
		}
		return true
	}
	return current
}

// Applied tells that the view that the ownership of this number selected is published.
func (d *Driver) Applied(ctx context.Context, number uint64) {
	d.do(ctx, func() { d.applied = max(d.applied, number) })
}

// Asked records that a client called Info and gets an answer. epoch is that of the Snapshot before
// the answer was made. It does not wait.
func (d *Driver) Asked(client string, epoch uint64) {
	select {
	case d.asks <- ask{client, epoch}:
	default: // the client asks again soon
	}
}

// ask is a call of Info.
type ask struct {
	client string
	epoch  uint64
}

func (d *Driver) handleAsk(a ask) {
	now := d.now()
	if now-d.pruned > d.interval {
		d.pruneAsked(now)
	}
	if a.epoch != d.member.Committed() {
		return // the client asks again soon
	}
	if _, known := d.asked[a.client]; !known && len(d.asked) >= maxAsks {
		d.metrics.unwatched.Inc()
		return
	}
	d.asked[a.client] = now
	d.member.HandleAsk(now, a.client)
}

// pruneAsked forgets addresses that called Info too long ago to count for the Member.
func (d *Driver) pruneAsked(now time.Duration) {
	d.pruned = now
	maps.DeleteFunc(d.asked, func(_ string, at time.Duration) bool {
		return now-at > d.opts.QuerierWait
	})
}

// warmed brings Warm of all blocks up to date.
func (d *Driver) warmed() {
	for i := range d.blocks {
		d.blocks[i].Warm = d.opts.Warm(d.blocks[i].ID)
	}
}
