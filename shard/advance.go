package shard

import (
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

// advance takes the steps that are allowed now, and notes since when the member is ready.
func (m *Member) advance() {
	m.step()
	ready, _ := m.Ready()
	if ready && !m.ready {
		m.readyAt = m.now
	}
	m.ready = ready
}

// readyFor returns for how long the member has been ready.
func (m *Member) readyFor() time.Duration {
	if !m.ready {
		return 0
	}
	return m.now - m.readyAt
}

// step takes the steps that are allowed now. Each waits until the one before it is on disk.
func (m *Member) step() {
	m.accept()
	if m.want.equal(m.state) && !m.want.Committed && m.agreed() {
		m.commit()
	}
	if !m.want.equal(m.state) || !m.want.Committed {
		return
	}
	if !m.want.Current.Has(m.id) {
		m.drop() // there is nothing to hand over
		return
	}
	if !m.frozen && m.reached(m.committedAt) {
		m.kept = m.leaving()
		m.frozen = true
	}
	if m.frozen && m.handedOver() {
		m.drop()
	}
}

// accept takes on the epoch of the file, if it may.
func (m *Member) accept() {
	c := m.file
	switch {
	case c.Epoch <= m.want.epoch():
	case m.missed(m.highest) && m.confirms(m.highest):
		// The next report of a peer says which epochs others still rely on.
	case m.want.isZero():
		switch {
		case m.rules.readyBelow || m.allBlank():
			m.take(c)
		case !m.heard && m.now-m.started >= m.opts.startWait():
			m.alone = true
			m.want.Lost = true
			m.take(c)
		}
	case m.want.Next.IsZero() || m.dead:
		m.take(c)
	case m.rules.acceptEarly:
		if m.want.Committed {
			m.want.Previous, m.want.Current = m.want.Current, m.want.Next
		}
		m.take(c)
	}
}

// take starts with the next epoch.
func (m *Member) take(c Config) {
	m.want.Next, m.want.Committed, m.want.Forced = c, false, nil
	m.forget()
}

// commit records that every member has persisted the next epoch.
func (m *Member) commit() {
	if !m.want.Committed {
		m.want.Committed, m.committedAt = true, m.now
	}
}

// forget drops what was known about the former next epoch.
func (m *Member) forget() {
	m.dead, m.frozen, m.kept, m.committedAt = false, false, nil, m.now
	for i := range m.peers {
		p := &m.peers[i]
		p.acked, p.confirming = false, false
	}
}

// drop ends the hand-over. The blocks stay served until that is on disk.
func (m *Member) drop() {
	m.want = State{Previous: m.want.Current, Current: m.want.Next}
}

// others returns the members that take part in the epoch in progress, without this one and without
// those that the operator overrides.
func (m *Member) others() []ID {
	return slices.DeleteFunc(members(m.want.Current, m.want.Next), func(id ID) bool {
		return id == m.id || slices.Contains(m.want.Forced, id) ||
			m.rules.commitPartly && m.peer(id) == nil && !m.want.Current.Has(id)
	})
}

// required reports whether a member takes part in the epoch in progress.
func (m *Member) required(id ID) bool {
	return m.want.Current.Has(id) || m.want.Next.Has(id)
}

// allBlank reports whether every member of the file has reported, and none knows an epoch.
func (m *Member) allBlank() bool {
	for _, id := range members(m.file, Config{}) {
		if p := m.peer(id); id != m.id && (p == nil || !p.blank) {
			return false
		}
	}
	return m.file.Has(m.id)
}

// agreed reports whether every member has persisted the next epoch.
func (m *Member) agreed() bool {
	return !m.want.Next.IsZero() && len(m.lacking()) == 0
}

// lacking returns the members that have not persisted the next epoch, as far as is known.
func (m *Member) lacking() []ID {
	return slices.DeleteFunc(m.others(), func(id ID) bool {
		p := m.peer(id)
		return p != nil && p.acked
	})
}

// targets returns the ordinals to which blocks of this member may move.
func (m *Member) targets() []int {
	first := m.want.Current.Count
	if !m.want.Next.Has(m.id) {
		first = 0
	}
	var ordinals []int
	for o := first; o < m.want.Next.Count; o++ {
		ordinals = append(ordinals, o)
	}
	return ordinals
}

// receivers returns the members of an ordinal that take over its blocks.
func (m *Member) receivers(ordinal int) []ID {
	return slices.DeleteFunc(m.others(), func(id ID) bool {
		return id.Ordinal != ordinal || !m.want.Next.Has(id)
	})
}

// mates returns the other members of this member's group.
func (m *Member) mates() []ID {
	return slices.DeleteFunc(m.others(), func(id ID) bool { return id.Ordinal != m.id.Ordinal })
}

// wait returns the Querier wait.
func (m *Member) wait() time.Duration {
	if m.rules.dropEarly {
		return 0
	}
	return m.opts.querierWait()
}

// fresh reports whether a peer has reported after the wait that began at since, and lately.
func (m *Member) fresh(p *peer, since time.Duration) bool {
	return p != nil && p.at >= since+m.wait() && m.now-p.at < m.opts.querierWait()
}

// reached reports whether the wait that began at since is over, and each Querier of this group has
// asked every group that receives blocks for Info since the commit. A Querier asks the members of a
// group in turns, so that only all members together know the Queriers.
func (m *Member) reached(since time.Duration) bool {
	if m.now < since+m.wait() || m.now-m.started < m.wait() {
		return false
	}
	var queriers []string
	open := m.opened()
	for _, a := range m.asks {
		queriers = append(queriers, a.address)
	}
	for _, id := range m.mates() {
		p := m.peer(id)
		if !m.fresh(p, since) || p.watched < m.wait() {
			return false
		}
		open = open || p.open
		for _, a := range p.asks {
			queriers = append(queriers, a.Address)
		}
	}
	if !open {
		return false // no Querier could ask the group all the time
	}
	for _, ordinal := range m.targets() {
		if ordinal == m.id.Ordinal {
			continue
		}
		var asked []string
		for _, id := range m.receivers(ordinal) {
			p := m.peer(id)
			if !m.fresh(p, since) {
				return false
			}
			for _, a := range p.asks {
				if a.Epoch >= m.want.Next.Epoch {
					asked = append(asked, a.Address)
				}
			}
		}
		for _, q := range queriers {
			if !m.rules.dropUnasked && !slices.Contains(asked, q) {
				return false
			}
		}
	}
	return true
}

// opened reports whether this process was ready for the Querier wait. A member of the group that
// was forced may have been.
func (m *Member) opened() bool {
	return m.readyFor() >= m.wait() || slices.ContainsFunc(m.want.Forced, func(id ID) bool {
		return id.Ordinal == m.id.Ordinal
	})
}

// unexplained returns the silent addresses behind which a member may be that was not forced. Each
// forced member that never answered this process explains one address that never answered.
func (m *Member) unexplained() []string {
	unknown := 0
	for _, id := range m.want.Forced {
		if m.peer(id) == nil &&
			!slices.ContainsFunc(m.silent, func(s Silence) bool { return s.Of == id }) {
			unknown++
		}
	}
	var addresses []string
	for _, s := range m.silent {
		switch {
		case slices.Contains(m.want.Forced, s.Of):
		case s.Of == ID{} && !s.Name && unknown > 0:
			unknown--
		default:
			addresses = append(addresses, s.Address)
		}
	}
	return addresses
}

// handedOver reports whether every block that leaves has been confirmed by each of its new owners
// for the Querier wait, and the Queriers know.
func (m *Member) handedOver() bool {
	if m.twinned() || len(m.unexplained()) > 0 {
		return false
	}
	since := m.committedAt
	for _, ordinal := range m.targets() {
		for _, id := range m.receivers(ordinal) {
			p := m.peer(id)
			switch {
			case m.rules.dropUnconfirmed:
			case p == nil || !p.confirming:
				return false
			default:
				since = max(since, p.confirmed)
			}
		}
	}
	return m.reached(since)
}

// twinned reports whether two processes have one ID.
func (m *Member) twinned() bool {
	return m.twin || slices.ContainsFunc(m.peers, func(p peer) bool { return p.twin })
}

// leaves reports whether a block has to be handed over.
func (m *Member) leaves(block ulid.ULID) bool {
	return !m.want.Next.IsZero() && m.want.Current.Owns(m.id, block) &&
		!m.want.Next.Owns(m.id, block) && (!m.frozen || slices.Contains(m.kept, block))
}

// leaving returns the blocks that have to be handed over.
func (m *Member) leaving() []ulid.ULID {
	var blocks []ulid.ULID
	for _, b := range m.blocks {
		if m.leaves(b.ID) {
			blocks = append(blocks, b.ID)
		}
	}
	return blocks
}

// find reports whether blocks, sorted, have one with this ID.
func find(blocks []Block, id ulid.ULID) bool {
	_, ok := slices.BinarySearchFunc(blocks, id, func(b Block, id ulid.ULID) int {
		return b.ID.Compare(id)
	})
	return ok
}

// Serves reports whether the member serves and advertises a block.
func (m *Member) Serves(block ulid.ULID) bool {
	return find(m.blocks, block) && m.Ownership().Owns(block)
}
