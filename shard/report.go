package shard

import (
	"errors"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

// Report is what a member tells a peer that asks it.
type Report struct {
	ID ID `json:"id"`
	// Instance differs between any two processes.
	Instance uint64 `json:"instance"`
	// State is what the member has persisted, so that it is an acknowledgement of its epochs.
	State State `json:"state"`
	// Serves are those of the blocks in the question that the member serves and has warmed. Another
	// block that covers one counts.
	Serves []ulid.ULID `json:"serves,omitempty"`
	// Asks are the addresses that asked this member for Info during the last Querier wait.
	Asks []Ask `json:"asks,omitempty"`
	// Watching is the time for which the process has recorded Asks.
	Watching time.Duration `json:"watching"`
	// ReadyFor is the time for which the process has been ready, so that each Querier could ask it.
	ReadyFor time.Duration `json:"ready_for"`
}

// Ask is a client that asked for Info.
type Ask struct {
	// Address is the client's host, without the port.
	Address string `json:"address"`
	// Epoch is the newest epoch that the member knew as committed at its last call.
	Epoch uint64 `json:"epoch"`
}

// Validate returns an error for a report that no member makes.
func (r *Report) Validate() error {
	if r.ID.Validate() != nil || r.Instance == 0 {
		return errors.New("it does not say which member it is of")
	}
	if r.State.isZero() {
		return nil
	}
	return r.State.validate()
}

// Report answers a peer that asks about blocks.
func (m *Member) Report(question []ulid.ULID) Report {
	r := Report{
		ID: m.id, Instance: m.instance, State: m.state, Watching: m.now - m.started,
		ReadyFor: m.readyFor(),
	}
	r.Serves = m.confirmed(question)
	for _, a := range m.asks {
		r.Asks = append(r.Asks, Ask{Address: a.address, Epoch: a.epoch})
	}
	return r
}

// confirmed returns those of the given blocks that the member serves, or of which it serves a block
// that covers them, if that is warm. Only persisted epochs count, because a restart forgets the
// others.
func (m *Member) confirmed(question []ulid.ULID) []ulid.ULID {
	if len(question) == 0 {
		return nil
	}
	asked := make(map[ulid.ULID]bool, len(question)) // true once confirmed
	for _, block := range question {
		asked[block] = false
	}
	confirm := func(block ulid.ULID) {
		if _, ok := asked[block]; ok {
			asked[block] = true
		}
	}
	o := m.Ownership()
	for _, b := range m.blocks {
		if !b.Warm || !o.in(m.state, b.ID) {
			continue
		}
		confirm(b.ID)
		for _, covered := range b.Covers {
			confirm(covered)
		}
	}
	return slices.DeleteFunc(slices.Clone(question), func(block ulid.ULID) bool {
		return !asked[block]
	})
}

// Question returns the blocks that the member wants to hand to an ordinal, in the order of their
// ULIDs. The caller asks every member of the ordinal about them.
func (m *Member) Question(ordinal int) []ulid.ULID {
	if m.state.Next.IsZero() || !m.state.has(m.want.Next) ||
		!slices.Contains(m.targets(), ordinal) { // finding owners is what costs
		return nil
	}
	var blocks []ulid.ULID
	for _, b := range m.blocks {
		if m.leaves(b.ID) && Owner(b.ID, m.state.Next.Count) == ordinal {
			blocks = append(blocks, b.ID)
		}
	}
	return blocks
}

// peer is what a member knows of another: facts of its reports that decisions need.
type peer struct {
	id       ID
	instance uint64
	at       time.Duration // when its last report was asked for
	// twin is set if the instance changed, at twinAt: by a restart, or because two processes have
	// this ID. It is both if a former instance reported again. former are the last of these.
	twin, both bool
	twinAt     time.Duration
	former     []uint64
	// blank says that its last report had no epochs.
	blank bool
	// acked says that it has persisted the next epoch of this member.
	acked bool
	// confirming says that since the time confirmed each report confirmed every block that this
	// member hands to it.
	confirming bool
	confirmed  time.Duration
	// asks and watched are those of its last report; only of members to which, or with which, this
	// one hands over.
	asks    []Ask
	watched time.Duration
	open    bool // it has been ready for the Querier wait
}

// maxFormer bounds the instances of a member that are remembered.
const maxFormer = 8

// HandleQuestion takes which process asked this one. A duplicate may have an address that is not
// among those of the peers, and then it only asks.
func (m *Member) HandleQuestion(now time.Duration, id ID, instance uint64) {
	m.pass(now)
	if id == m.id && instance != m.instance {
		m.twin, m.twinAt = true, now
	} else if p := m.peer(id); p != nil {
		p.meet(instance, now)
	}
	m.advance()
}

// meet records which process of the member answered or asked, after the time at. A process that
// restarted never does so again. That it does is therefore the sign of two processes. It returns
// false if another process was met after that time.
func (p *peer) meet(instance uint64, at time.Duration) bool {
	if p.twin && at < p.twinAt && instance != p.instance {
		return false
	}
	if p.instance != 0 && p.instance != instance {
		p.both = p.both || slices.Contains(p.former, instance)
		p.twin, p.twinAt = true, at
		p.confirming = false
		former := append([]uint64{p.instance}, p.former...)
		p.former = former[:min(len(former), maxFormer)]
	}
	p.instance = instance
	return true
}

// ask is the last call of Info by an address.
type ask struct {
	address string
	at      time.Duration
	epoch   uint64 // as Ask.Epoch
}

// peer returns the entry of a member, or nil.
func (m *Member) peer(id ID) *peer {
	i, ok := slices.BinarySearchFunc(m.peers, id, func(p peer, id ID) int {
		return compareIDs(p.id, id)
	})
	if !ok {
		return nil
	}
	return &m.peers[i]
}

// addPeer returns the entry of a member, which it makes if there is none.
func (m *Member) addPeer(id ID) *peer {
	i, ok := slices.BinarySearchFunc(m.peers, id, func(p peer, id ID) int {
		return compareIDs(p.id, id)
	})
	if !ok {
		m.peers = slices.Insert(m.peers, i, peer{id: id})
	}
	return &m.peers[i]
}

// HandleReport takes the report of a peer. sent is when the question was sent, so that what the
// report says is at most as old. question is what was asked.
func (m *Member) HandleReport(now, sent time.Duration, question []ulid.ULID, r Report) {
	m.pass(now)
	if r.ID == m.id {
		if r.Instance != m.instance {
			m.twin, m.twinAt = true, sent
		}
		m.advance()
		return
	}
	p := m.addPeer(r.ID)
	if !p.meet(r.Instance, sent) {
		m.advance() // another process of the member was met since
		return
	}
	p.at, p.blank = sent, r.State.isZero()
	m.learn(r)
	p.acked = p.acked || r.State.has(m.want.Next)
	m.heed(p, question, r)
	p.asks, p.watched, p.open = nil, 0, false
	if m.want.Committed && m.want.Current.Has(m.id) &&
		(r.ID.Ordinal == m.id.Ordinal || slices.Contains(m.targets(), r.ID.Ordinal)) {
		p.watched, p.open = r.Watching, r.ReadyFor >= m.opts.querierWait()
		p.asks = r.Asks
	}
	m.advance()
}

// heed records whether a report confirms all that this member hands to the peer. A block that is
// new since the question was sent takes the confirmation back.
func (m *Member) heed(p *peer, question []ulid.ULID, r Report) {
	wanted := m.Question(r.ID.Ordinal)
	confirms := r.State.has(m.want.Next) && has(question, wanted) && has(r.Serves, wanted)
	switch {
	case !confirms:
		p.confirming = false
	case !p.confirming:
		p.confirming, p.confirmed = true, p.at
	}
}

// has reports whether blocks, in the order of their ULIDs, have all those that are wanted, in the
// same order.
func has(blocks, wanted []ulid.ULID) bool {
	for _, id := range wanted {
		for len(blocks) > 0 && blocks[0].Compare(id) < 0 {
			blocks = blocks[1:]
		}
		if len(blocks) == 0 || blocks[0] != id {
			return false
		}
	}
	return true
}

// learn takes the epochs of a report.
func (m *Member) learn(r Report) {
	s := r.State
	if s.isZero() {
		return
	}
	m.heard = true
	done := s.committed()
	if done.Epoch > m.highest.Epoch {
		m.highest = done
	}
	m.pending = max(m.pending, s.epoch())
	base := m.alone && !s.Current.IsZero() // the epoch before the one that it started with
	if base && !m.met {
		m.met, m.metAt = true, m.now
	}
	next := m.want.Next
	if m.rules.readyBelow && done.Epoch != next.Epoch {
		return
	}
	switch {
	case m.want.isZero(), base && m.want.Current.IsZero():
		m.inherit(s)
	case m.missed(done):
		// Only force commits an epoch without a member, or a lost record makes it seem so. A
		// process of another cluster reports such an epoch too. A member with a record therefore
		// keeps what it has until its own configuration is as new.
		if m.want.Lost || m.rules.inheritAny || m.confirms(done) {
			m.inherit(s)
		}
	case done.Equal(next) && !next.IsZero():
		m.commit()
	case m.want.Lost && next.IsZero() && s.Next.Epoch > m.want.Current.Epoch:
		// An earlier process may have acknowledged it.
		m.take(s.Next)
	case !next.IsZero() && !m.want.Committed && !s.Lost && m.required(r.ID) &&
		s.Current.Epoch < next.Epoch && s.Next.Epoch >= next.Epoch && !s.Next.Equal(next):
		// The peer has persisted another one without this one, and never goes back.
		m.dead = true
	}
}

// missed reports whether an epoch that is committed is news to this member: it did not take it on,
// or took on another content.
func (m *Member) missed(done Config) bool {
	return done.Epoch > m.want.epoch() || !done.IsZero() && !m.want.Committed &&
		done.Epoch == m.want.Next.Epoch && !done.Equal(m.want.Next)
}

// confirms reports whether the configuration that this process read is as new as an epoch that a
// peer has committed.
func (m *Member) confirms(done Config) bool {
	return m.file.Equal(done) || m.file.Epoch > done.Epoch
}

// inherit starts from the epochs of a peer.
func (m *Member) inherit(s State) {
	lost := m.want.Lost || m.want.isZero()
	m.want = s.inherited()
	if m.rules.inheritNewest {
		m.want = State{Current: s.committed()}
		if !s.Committed {
			m.want.Next = s.Next
		}
	}
	m.want.Lost = lost
	m.forget()
}
