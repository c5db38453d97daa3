package shard

import (
	"slices"

	"github.com/oklog/ulid/v2"
)

// Ownership decides which blocks a member serves. It is immutable, so that other goroutines can use
// it while the member goes on. The zero value owns nothing.
type Ownership struct {
	id          ID
	state, want State
	// frozen says that state.Current adds only the blocks in kept, which are sorted.
	frozen bool
	kept   []ulid.ULID
}

// Ownership returns which blocks the member serves now. A block that the catalog finds later is
// served by the same rules.
func (m *Member) Ownership() Ownership {
	return Ownership{id: m.id, state: m.state, want: m.want, frozen: m.frozen, kept: m.kept}
}

// Owns reports whether the member serves a block. It costs up to four calls of Owner.
func (o Ownership) Owns(block ulid.ULID) bool { return o.in(o.state, block) || o.in(o.want, block) }

// in reports whether a member in state s owns a block.
func (o Ownership) in(s State, block ulid.ULID) bool {
	if s.Next.Owns(o.id, block) {
		return true
	}
	if !s.Current.Owns(o.id, block) {
		return false
	}
	if !o.frozen || !s.Current.Equal(o.state.Current) {
		return true
	}
	_, kept := slices.BinarySearchFunc(o.kept, block, ulid.ULID.Compare)
	return kept
}

// Receives reports whether the member takes a block over, and from which ordinal.
func (o Ownership) Receives(block ulid.ULID) (from int, receives bool) {
	current := o.want.Current
	if current.IsZero() || current.Owns(o.id, block) || !o.want.Next.Owns(o.id, block) {
		return 0, false
	}
	return Owner(block, current.Count), true
}

// Equal reports whether both own the same blocks, whatever blocks there are.
func (o Ownership) Equal(other Ownership) bool {
	same := func(a, b State) bool { return a.Current.Equal(b.Current) && a.Next.Equal(b.Next) }
	return o.id == other.id && same(o.state, other.state) && same(o.want, other.want) &&
		o.frozen == other.frozen && slices.Equal(o.kept, other.kept)
}

// Continues reports whether o differs from an earlier ownership only by a step of a hand-over: the
// member took on another epoch, froze the blocks that leave, or dropped them. A process that still
// serves the blocks of earlier then serves all that its peers rely on.
func (o Ownership) Continues(earlier Ownership) bool {
	if o.want.Committed && !o.want.Next.Equal(earlier.want.Next) {
		return false // it learnt of an epoch that its peers have committed without it
	}
	current := earlier.want.Current
	if current.IsZero() {
		first := earlier.want.Next
		return !first.IsZero() && (o.want.Next.Equal(first) || o.want.Current.Equal(first))
	}
	return o.want.Current.Equal(current) ||
		earlier.want.Committed && o.want.Current.Equal(earlier.want.Next)
}
