package membership

import (
	"github.com/oklog/ulid/v2"

	"larder/shard"
)

// Snapshot is what the process decided. It is immutable.
type Snapshot struct {
	// Ready says that the process may answer Queriers. If not, Reason says why.
	Ready  bool
	Reason string
	// Ownership decides which blocks are served. Number grows with each change of it.
	Ownership shard.Ownership
	Number    uint64
	// Epoch is the newest epoch that is known to be committed.
	Epoch uint64
}

// Snapshot returns the current snapshot.
func (d *Driver) Snapshot() *Snapshot { return d.snapshot.Load() }

// Ownership returns which blocks the process serves, and the number of that decision.
func (d *Driver) Ownership() (owns func(ulid.ULID) bool, number uint64) {
	s := d.Snapshot()
	return s.Ownership.Owns, s.Number
}

// publish replaces the snapshot if anything changed, and tells what changed.
func (d *Driver) publish() {
	old := d.Snapshot()
	s := &Snapshot{
		Ownership: d.member.Ownership(), Number: old.Number, Epoch: d.member.Committed(),
	}
	moved := !s.Ownership.Equal(old.Ownership)
	if moved {
		s.Number++
		if !s.Ownership.Continues(old.Ownership) {
			d.must = s.Number
		}
	}
	s.Ready, s.Reason = d.member.Ready()
	if s.Ready && d.applied < d.must {
		s.Ready, s.Reason = false, "is loading the blocks of its epoch"
	}
	if !moved && s.Ready == old.Ready && s.Reason == old.Reason && s.Epoch == old.Epoch {
		return
	}
	d.snapshot.Store(s)
	if moved {
		d.opts.OnOwnership()
	}
	if s.Ready != old.Ready || s.Reason != old.Reason {
		d.log.Info("shard readiness changed", "ready", s.Ready, "reason", s.Reason)
		d.opts.OnReady(s.Ready, s.Reason)
	}
}
