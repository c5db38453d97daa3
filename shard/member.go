package shard

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

// Options of a Member. The zero value is usable.
type Options struct {
	// QuerierWait is how long a block stays served after its new owners have confirmed it: the
	// Querier's reload of its endpoint file, the refresh of DNS, two calls of Info and the longest
	// query. Shorter is only safe with shorter intervals there. 0: 10 minutes.
	QuerierWait time.Duration
	// StartWait is how long a member waits for a peer before it is ready without one. Shorter
	// starts sooner without peers; longer is safer if peers are slow to be reached. 0: 5 minutes.
	StartWait time.Duration
	// TwinWindow is how long a process counts as running after its last report. Two processes with
	// one ID within it are reported as duplicates. 0: one minute.
	TwinWindow time.Duration
}

func (o Options) querierWait() time.Duration { return orDefault(o.QuerierWait, 10*time.Minute) }
func (o Options) startWait() time.Duration   { return orDefault(o.StartWait, 5*time.Minute) }
func (o Options) twinWindow() time.Duration  { return orDefault(o.TwinWindow, time.Minute) }

// askWindow is how long an address counts as a Querier of a group after its last call of Info.
func (o Options) askWindow() time.Duration { return o.querierWait() }

func orDefault(d, other time.Duration) time.Duration {
	if d == 0 {
		return other
	}
	return d
}

// Block is a block of the bucket, as the catalog knows it before ownership is applied.
type Block struct {
	ID ulid.ULID
	// Covers are the blocks that this one replaces.
	Covers []ulid.ULID
	// Warm says that the block can be served and that the budget for warming it is spent.
	Warm bool
}

// Member decides for one process. See the package comment. It is not safe for concurrent use.
type Member struct {
	opts     Options
	rules    rules
	id       ID
	instance uint64
	started  time.Duration
	now      time.Duration

	state State // as persisted
	want  State // as decided, equal to state once it has been persisted
	file  Config
	dead  bool // want.Next can never be committed

	peers   []peer // sorted by ID
	silent  []Silence
	heard   bool   // a peer reported an epoch
	highest Config // committed, of all reports
	pending uint64 // the highest epoch of all reports
	twin    bool   // another process with this ID reported, at twinAt
	twinAt  time.Duration
	alone   bool // started without a record and without a peer
	met     bool // alone, and reached a member that has an epoch, at metAt
	metAt   time.Duration

	blocks []Block
	loaded bool
	asks   []ask // sorted by address
	ready  bool  // since readyAt

	readyAt time.Duration

	committedAt time.Duration // when this process learnt that want.Next is committed
	frozen      bool          // no more blocks of want.Current alone are taken on
	kept        []ulid.ULID   // if frozen: those that it had
}

// NewMember returns the member of a process that starts at the time now of a monotonic clock.
// record is what LoadState returned, or zero. instance must differ from that of any other process
// and not be 0.
func NewMember(opts Options, id ID, instance uint64, record State, now time.Duration) *Member {
	m := &Member{
		opts: opts, id: id, instance: instance, started: now, now: now, state: record, want: record,
		committedAt: now,
	}
	return m
}

// pass sets the time, and forgets what is too old to count.
func (m *Member) pass(now time.Duration) {
	m.now = now
	if m.twin && now-m.twinAt >= m.opts.twinWindow() {
		m.twin = false
	}
	if m.met && now-m.metAt >= m.opts.querierWait() {
		m.alone, m.met = false, false // the Queriers have asked it since
	}
	for i := range m.peers {
		p := &m.peers[i]
		if p.twin && now-p.twinAt >= m.opts.twinWindow() {
			p.twin, p.both = false, false
		}
		if now-p.at >= m.opts.querierWait() {
			p.asks, p.watched, p.open = nil, 0, false
		}
	}
	m.peers = slices.DeleteFunc(m.peers, func(p peer) bool {
		return now-p.at > m.opts.querierWait() && !m.knows(p.id)
	})
	m.asks = slices.DeleteFunc(m.asks, func(a ask) bool { return now-a.at > m.opts.askWindow() })
}

// knows reports whether a member is in any configuration that may count.
func (m *Member) knows(id ID) bool {
	return slices.ContainsFunc(
		[]Config{m.want.Previous, m.want.Current, m.want.Next, m.file},
		func(c Config) bool { return c.Has(id) },
	)
}

// HandleTime tells the member the time. The caller does so every few seconds.
func (m *Member) HandleTime(now time.Duration) {
	m.pass(now)
	m.advance()
}

// HandleConfig takes the content of the flags or of the configuration file. The caller has
// validated it.
func (m *Member) HandleConfig(now time.Duration, c Config) {
	m.pass(now)
	m.file = c
	m.advance()
}

// HandlePersisted tells the member that a state, which Persist returned, is on disk.
func (m *Member) HandlePersisted(now time.Duration, s State) {
	m.pass(now)
	if !s.Current.Equal(m.state.Current) {
		m.frozen, m.kept = false, nil
	}
	m.state = s
	m.advance()
}

// Persist returns the state to write, and false if it is on disk already.
func (m *Member) Persist() (State, bool) { return m.want, !m.want.equal(m.state) }

// HandleBlocks takes the blocks of a complete view of the bucket, sorted by ID.
func (m *Member) HandleBlocks(now time.Duration, blocks []Block) {
	m.pass(now)
	before := m.blocks
	m.blocks, m.loaded = blocks, true
	for _, b := range blocks {
		if find(before, b.ID) || !m.leaves(b.ID) {
			continue
		}
		// The new owners have not confirmed a block that is new.
		for i := range m.peers {
			if p := &m.peers[i]; p.id.Ordinal == Owner(b.ID, m.want.Next.Count) {
				p.confirming = false
			}
		}
	}
	m.advance()
}

// HandleAsk records that a client asked for Info, which only a ready member answers.
func (m *Member) HandleAsk(now time.Duration, address string) {
	m.pass(now)
	i, ok := slices.BinarySearchFunc(m.asks, address, func(a ask, address string) int {
		switch {
		case a.address < address:
			return -1
		case a.address > address:
			return 1
		}
		return 0
	})
	if !ok {
		m.asks = slices.Insert(m.asks, i, ask{address: address})
	}
	m.asks[i].at, m.asks[i].epoch = now, m.want.committed().Epoch
	m.advance()
}

// Silence is an address in the peers' DNS that did not answer.
type Silence struct {
	Address string
	// Of is the member that answered there last, zero if none has.
	Of ID
	// Name says that it is a name that cannot be looked up. It may have any number of addresses.
	Name bool
}

// HandleSilent takes the addresses that did not answer. Any process may be behind one, so nothing
// is dropped until all answer or are gone, except those of forced members.
func (m *Member) HandleSilent(now time.Duration, addresses []Silence) {
	m.pass(now)
	m.silent = addresses
	m.advance()
}

// Forcible returns an error if a member in this state cannot do without the given ones for an
// epoch. self is the member.
func (s State) Forcible(self ID, epoch uint64, without []ID) error {
	if s.Next.Epoch != epoch || s.Next.IsZero() {
		return fmt.Errorf("epoch %d is not the one in progress, which is %d (0 is none)", epoch,
			s.Next.Epoch)
	}
	if len(without) == 0 {
		return errors.New("no member was named that the epoch should do without")
	}
	for _, id := range without {
		switch {
		case id == self:
			return fmt.Errorf("%s is this process: name members that are gone", id)
		case !s.Current.Has(id) && !s.Next.Has(id):
			return fmt.Errorf("%s takes part neither in epoch %d nor in epoch %d: "+
				"the epoch does not wait for it", id, s.Current.Epoch, s.Next.Epoch)
		}
	}
	return nil
}

// Force makes the member do without others for the epoch that it takes on. It returns an error if
// that is not the given epoch, or if one of the others takes no part in it. AtRisk says which
// blocks may be lost.
func (m *Member) Force(now time.Duration, epoch uint64, without []ID) error {
	m.pass(now)
	if err := m.want.Forcible(m.id, epoch, without); err != nil {
		return err
	}
	ids := append(slices.Clone(m.want.Forced), without...)
	slices.SortFunc(ids, compareIDs)
	m.want.Forced = slices.Compact(ids)
	m.advance()
	return nil
}
