package shard

import (
	"fmt"
	"strings"
	"time"
)

// Progress says how far a hand-over is, for people.
type Progress struct {
	// Leaving is the number of blocks that the member hands over.
	Leaving int `json:"leaving"`
	// Lacking are the members that have not persisted the next epoch, as far as is known.
	Lacking []ID `json:"lacking,omitempty"`
	// Unconfirmed are the new owners that have not confirmed every block.
	Unconfirmed []ID `json:"unconfirmed,omitempty"`
	// Duplicates are the members of which two processes run.
	Duplicates []ID `json:"duplicates,omitempty"`
	// Silent are the addresses of peers that do not answer.
	Silent []string `json:"silent,omitempty"`
	// Waits is what the next step waits for, empty for nothing.
	Waits string `json:"waits,omitempty"`
	// Left is the rest of the Querier wait, if Waits is that.
	Left time.Duration `json:"left,omitempty"`
	// Queued is the epoch of the configuration, if it waits for the end of the change in progress.
	Queued uint64 `json:"queued,omitempty"`
	// Alone says that the process started without a record and without a peer.
	Alone bool `json:"alone,omitempty"`

	restarted []ID // members that restarted, or may be duplicates
}

// Progress returns how far the member is.
func (m *Member) Progress() Progress {
	p := Progress{Alone: m.alone, Leaving: len(m.leaving())}
	for _, s := range m.silent {
		p.Silent = append(p.Silent, s.Address)
	}
	if m.twin {
		p.Duplicates = append(p.Duplicates, m.id)
	}
	for _, peer := range m.peers {
		if peer.both {
			p.Duplicates = append(p.Duplicates, peer.id)
		} else if peer.twin {
			p.restarted = append(p.restarted, peer.id)
		}
	}
	if m.want.Next.IsZero() {
		if m.file.Epoch > m.want.epoch() {
			p.Waits = "a peer, or the time to start without one"
		}
		return p
	}
	if m.file.Epoch > m.want.epoch() {
		p.Queued = m.file.Epoch
	}
	p.Lacking = m.lacking()
	for _, ordinal := range m.targets() {
		for _, id := range m.receivers(ordinal) {
			if peer := m.peer(id); ordinal != m.id.Ordinal && (peer == nil || !peer.confirming) {
				p.Unconfirmed = append(p.Unconfirmed, id)
			}
		}
	}
	p.Waits, p.Left = m.waits(p)
	return p
}

// waits returns what the next step of the epoch in progress waits for.
func (m *Member) waits(p Progress) (string, time.Duration) {
	names := func(ids []ID) string {
		const shown = 5
		var all []string
		for _, id := range ids[:min(len(ids), shown)] {
			all = append(all, id.String())
		}
		if len(ids) > shown {
			all = append(all, fmt.Sprintf("%d more", len(ids)-shown))
		}
		return strings.Join(all, ", ")
	}
	silent := m.unexplained()
	switch {
	case !m.want.equal(m.state):
		return "the disk, to persist the epoch", 0
	case m.dead:
		return "a new epoch: a peer has persisted another one, and this one can never be committed",
			0
	case !m.want.Committed:
		return "members that have not persisted the epoch: " + names(p.Lacking), 0
	case len(p.Duplicates) > 0:
		return "the end of duplicate processes of " + names(p.Duplicates), 0
	case len(p.restarted) > 0:
		return fmt.Sprintf("signs of duplicate processes, for %s after the restart of %s",
			m.opts.twinWindow(), names(p.restarted)), 0
	case len(silent) > 0:
		return "addresses of peers that do not answer: " + strings.Join(silent, ", "), 0
	case len(p.Unconfirmed) > 0:
		return "new owners that have not confirmed every block: " + names(p.Unconfirmed), 0
	}
	since := m.committedAt
	for _, ordinal := range m.targets() {
		for _, id := range m.receivers(ordinal) {
			if peer := m.peer(id); peer != nil && peer.confirming {
				since = max(since, peer.confirmed)
			}
		}
	}
	if left := since + m.wait() - m.now; left > 0 {
		return "the end of the Querier wait", left
	}
	return "reports of all members of the group and of the new owners, " +
		"and Queriers that have not asked the new owners for Info yet", 0
}

// Released reports whether no epoch that the member knows needs its process, and if not, why. The
// caller also has to know that of the peers.
func (m *Member) Released() (bool, string) {
	switch {
	case m.want.isZero():
		return false, "no epoch is known yet"
	case !m.want.equal(m.state):
		return false, "the last epoch is not on disk yet"
	case !m.want.Next.IsZero():
		return false, fmt.Sprintf("the change to epoch %d has not ended", m.want.Next.Epoch)
	case m.want.Current.Has(m.id):
		return false, fmt.Sprintf("epoch %d has %d ordinals in %q: change the count first",
			m.want.Current.Epoch, m.want.Current.Count, m.want.Current.Zones)
	}
	return true, ""
}

// ID returns which member this is.
func (m *Member) ID() ID { return m.id }

// State returns what the member has persisted.
func (m *Member) State() State { return m.state }

// Settled reports whether the member in this state has dropped all epochs before the given one.
func (s State) Settled(epoch uint64) bool {
	return s.Next.IsZero() && s.Current.Epoch >= epoch
}

// Committed returns the newest epoch that is known to be committed, 0 for none.
func (m *Member) Committed() uint64 { return m.want.committed().Epoch }

// Epochs returns the configuration whose blocks the member serves, and the one that it takes on,
// which is zero if there is none.
func (m *Member) Epochs() (current, next Config) { return m.want.Current, m.want.Next }
