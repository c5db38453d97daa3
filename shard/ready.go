package shard

import (
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"
)

// Ready reports whether the member may answer Queriers, and if not, why. A member that is not
// ready must refuse every call, Info too: the Querier then asks another member of the group.
func (m *Member) Ready() (bool, string) {
	if m.want.isZero() {
		switch {
		case m.file.IsZero():
			return false, "has no configuration"
		default:
			return false, "has no record of epochs, and waits for a peer that has one"
		}
	}
	if !m.configured() && !m.drained() {
		return false, fmt.Sprintf("member %s is not configured: epoch %d has %d ordinals in %q",
			m.id, m.newest().Epoch, m.newest().Count, m.newest().Zones)
	}
	if !m.loaded {
		return false, "does not know the blocks of the bucket yet"
	}
	if m.rules.readyBelow {
		return true, ""
	}
	if !m.heard && !m.allBlank() && len(m.others()) > 0 &&
		m.now-m.started < m.opts.startWait() {
		return false, "waits for a peer to say which epoch is the highest"
	}
	if m.missed(m.highest) {
		return false, fmt.Sprintf("is at epoch %d, and peers have committed epoch %d with %d "+
			"ordinals in %q without it: waits for that epoch in its configuration, which has "+
			"epoch %d", m.want.epoch(), m.highest.Epoch, m.highest.Count, m.highest.Zones,
			m.file.Epoch)
	}
	if (m.want.Lost || m.rules.readyLiterally) && m.pending > m.want.epoch() {
		return false, fmt.Sprintf(
			"is at epoch %d and lost its record, and a peer has persisted %d", m.want.epoch(),
			m.pending)
	}
	return true, ""
}

// newest returns the configuration that the member has taken on last.
func (m *Member) newest() Config {
	if m.want.Next.IsZero() {
		return m.want.Current
	}
	return m.want.Next
}

// configured reports whether any configuration that counts has this member.
func (m *Member) configured() bool {
	return slices.ContainsFunc(
		[]Config{m.state.Current, m.state.Next, m.want.Current, m.want.Next},
		func(c Config) bool { return c.Has(m.id) },
	)
}

// drained reports whether the member has handed over all blocks because its ordinal no longer
// exists. It answers Queriers without blocks until its process ends, because they may go on to ask
// its group. A member whose zone was removed must not: the other zones of its group have blocks.
//
// Without a report of a peer during the last Querier wait it cannot know whether its ordinal exists
// again.
func (m *Member) drained() bool {
	s := m.state
	return m.want.equal(s) && s.Next.IsZero() && !s.Lost && s.Previous.Has(m.id) &&
		m.id.Ordinal >= s.Current.Count &&
		slices.ContainsFunc(m.peers, func(p peer) bool {
			return s.Current.Has(p.id) && m.now-p.at <= m.opts.querierWait()
		})
}

// AtRisk returns the blocks that this member would drop without the confirmation of each new owner,
// if those that have not confirmed are forced.
func (m *Member) AtRisk() []ulid.ULID {
	var blocks []ulid.ULID
	for _, b := range m.leaving() {
		owner := Owner(b, m.want.Next.Count)
		for _, zone := range m.want.Next.Zones {
			p := m.peer(ID{Zone: zone, Ordinal: owner})
			if p == nil || !p.confirming {
				blocks = append(blocks, b)
				break
			}
		}
	}
	return blocks
}
