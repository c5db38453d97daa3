package shard

import (
	"math/bits"
	"slices"
)

// The reductions below map many worlds to one. Each is sound because the worlds behave the same:
// every history of one is a history of the other, with the same answers to Queriers.
// TestReductionsLoseNothing compares them with an exploration that has none (model.plain).
//
// Accepted risk: a member may know a part of what it could know of others just before a fault. Of
// the worlds that differ in that, few are lost: the test finds none in the first 20,000 with each
// fault, and the most and the least knowledge are always explored.
//
//   - Zones are exchanged: model.mirror.
//   - What a poll would tell again is forgotten: model.forget.
//   - Processes get the lowest numbers that members can still tell apart: model.renumber.
//   - The block of a compaction that all members have takes the name of the one before it:
//     model.rejoin.
//   - Fields that no decision reads are left out of a node: appendMember.
//   - Of worlds that differ in the number of faults left, the one with the most is followed:
//     visited. It can do all that the others can.
//   - A published configuration or endpoint file has no state. That it is not published is the same
//     as that it was not read. A member that cannot take on an epoch yet reads it later.

// reduce maps a world to the one that stands for all that behave the same.
func (x *model) reduce(w *world) {
	if x.fine || x.plain {
		return
	}
	x.forget(w)
	x.renumber(w)
	x.rejoin(w)
}

// forget takes from each member what it knows of a peer, if the peer would tell it again.
//
// INVARIANT: for each history in which the member keeps that knowledge there is one in which it
// forgets it, and polls again just before it takes a decision, or before the peer can no longer
// tell it. No decision follows from old knowledge without a poll: it would have been taken at the
// poll. A Querier wait makes all of it too old, except what a peer has persisted and since when it
// confirms blocks: the peer tells the one again, and the other is kept. A peer that stops, or is
// cut off, may have been polled just before: see model.polled.
func (x *model) forget(w *world) {
	cut := int(w.cut) - 1
	for slot := range slots {
		if !x.up(w, slot) {
			continue
		}
		peers := uint32(0)
		if slot != cut {
			peers |= 1 << twin // the bystanders
		}
		for other := range twin {
			if slot != cut && other != slot && other != cut && x.up(w, other) &&
				x.tellsAgain(w.nodes[slot], w.nodes[other]) {
				peers |= 1 << other
			}
		}
		x.run(w, slot, stepForget, peers|uint32(w.dup)<<8)
	}
}

// tellsAgain reports whether a poll would tell a member again all that it knows of another.
func (x *model) tellsAgain(member, other uint32) bool {
	key := uint64(member)<<32 | uint64(other) | 1<<63
	if known := x.toldAgain.get(key); known > 0 {
		return known == 2
	}
	answer := uint32(1)
	m, r := x.nodes[member].m, x.nodes[other].m.Report(nil)
	if p := m.peer(r.ID); p == nil || m.toldBy(p, r) {
		answer = 2
	}
	x.toldAgain.put(key, answer)
	return answer == 2
}

// toldBy reports whether a report tells at least what is known of its sender.
func (m *Member) toldBy(p *peer, r Report) bool {
	switch {
	case p.acked && m.awaits() && !r.State.has(m.want.Next):
	case !m.decides() || p.at < m.now:
		return true
	case p.instance != r.Instance:
	case p.watched >= tick && r.Watching < tick:
	case p.open && r.ReadyFor < tick:
	case p.watched < tick && len(p.asks) == 0:
		return true // it was polled before the commit, and cannot count yet
	default:
		return m.heardOf(p.id, p.asks) == m.heardOf(r.ID, r.Asks)
	}
	return false
}

// heardOf returns what a member that hands over makes of the calls of Info that a peer had: 0
// nothing, 1 it knows the Querier, 2 the Querier has asked it since the commit.
func (m *Member) heardOf(id ID, asks []Ask) byte {
	switch {
	case len(asks) == 0:
		return 0
	case id.Ordinal != m.id.Ordinal && slices.ContainsFunc(asks, func(a Ask) bool {
		return a.Epoch >= m.want.Next.Epoch
	}):
		return 2
	}
	return 1
}

// forgotten takes from a member what it knows of peers that will tell it again, what does not
// matter to it, and the file, if it can read that again before it may take on the epoch. dup is the
// member of which two processes run.
func (m *Member) forgotten(again func(ID) bool, dup ID) {
	if m.drained() {
		// What counts is when it last heard of any peer.
		latest := m.started
		for _, p := range m.peers {
			if m.state.Current.Has(p.id) {
				latest = max(latest, p.at)
			}
		}
		m.peers = []peer{{id: ID{Zone: m.id.Zone, Ordinal: 1}, at: latest}}
		return
	}
	m.peers = slices.DeleteFunc(m.peers, func(p peer) bool {
		return !m.watches(&p, dup) && (again(p.id) && !(m.handsOver() && m.takesFrom(&p)) ||
			!m.takesFrom(&p) && !(p.acked && m.awaits()) && !(m.decides() && p.at == m.now))
	})
	for i := range m.peers {
		p := &m.peers[i]
		if again(p.id) {
			p.at, p.asks, p.watched, p.open, p.acked = m.now-2*tick, nil, 0, false, false
		}
		if !m.takesFrom(p) && !m.watches(p, dup) {
			p.instance = 0
		}
	}
}

// watches reports whether it matters to a member which process a peer was, although that confirms
// nothing: two processes of the peer run, or did until now.
func (m *Member) watches(p *peer, dup ID) bool {
	return m.handsOver() && p.id == dup || m.decides() && p.twin
}

// takesFrom reports whether a peer confirms blocks that the member is to hand to it.
func (m *Member) takesFrom(p *peer) bool {
	return p.confirming && !m.want.Next.IsZero() && m.want.Current.Has(m.id) &&
		slices.Contains(m.targets(), p.id.Ordinal)
}

// awaits reports whether the member waits for others to persist an epoch.
func (m *Member) awaits() bool { return !m.want.Committed && !m.want.Next.IsZero() }

// handsOver reports whether the member has blocks of an epoch that ends.
func (m *Member) handsOver() bool { return m.want.Committed && m.want.Current.Has(m.id) }

// decides reports whether the member may drop before the next Querier wait ends. If not, what it
// knows of peers is too old when it may, except what they confirm.
func (m *Member) decides() bool {
	return m.handsOver() && m.now >= m.committedAt+m.wait() && m.now-m.started >= m.wait()
}

// bystander is the number of the processes of all bystanders.
const bystander = 100

// knownLives returns the processes that a node knows, itself included, as bits.
func (n *node) knownLives() uint32 {
	if n.m == nil {
		return 0
	}
	bits := uint32(1) << (n.m.instance - 1)
	for i := range n.m.peers {
		if p := n.m.peers[i].instance; n.up && p > 0 && p < bystander {
			bits |= 1 << (p - 1)
		}
	}
	return bits
}

// livesOf returns the bits of all processes of a slot.
func livesOf(slot int) uint32 {
	return 1<<slot | 1<<(slot+slots) | 1<<(slot+2*slots)
}

// renumber gives the processes of each slot the lowest numbers.
//
// INVARIANT: members compare the numbers of processes for equality only. The last process of a slot
// differs from all that ended, and one that ended never reports again. Hence of those that ended
// only matters which member knows one.
func (x *model) renumber(w *world) {
	known, last := uint32(0), uint32(0)
	for _, i := range w.nodes {
		known |= x.nodes[i].lives
		if m := x.nodes[i].m; m != nil {
			last |= 1 << (m.instance - 1)
		}
	}
	if w.dup != 0 && !x.up(w, twin) && bits.OnesCount32(known&livesOf(twin)) == 1 &&
		last&livesOf(twin) != 0 {
		// The duplicate ended, and no member knows it.
		w.dup, w.nodes[twin] = 0, x.intern(node{}, twin)
	}
	arg, same := uint32(0), true
	for slot := range slots {
		from := uint32(bits.TrailingZeros32((last&livesOf(slot))>>slot|1<<31)) / slots
		to := uint32(min(bits.OnesCount32(known&livesOf(slot)), 2) - 1)
		if last&livesOf(slot) == 0 {
			continue
		}
		same = same && from == to
		arg |= (from<<1 | to) << (3 * slot)
	}
	for slot, i := range w.nodes {
		if !same && x.nodes[i].m != nil {
			x.run(w, slot, stepRenumber, arg)
		}
	}
}

// renumbered returns the new number of a process. arg has the former and the new life of the last
// process of each slot.
func renumbered(instance uint64, arg uint32) uint64 {
	if instance == 0 || instance == bystander {
		return instance
	}
	slot, life := (instance-1)%slots, (instance-1)/slots
	lives := uint64(arg >> (3 * slot) & 7)
	if life == lives>>1 {
		return slot + 1 + lives&1*slots
	}
	return slot + 1
}

// rejoin ends a compaction when all members have its block, and the old one has left: the block
// takes the name of the old one, and another compaction may follow.
//
// INVARIANT: both blocks have the same owners with each count, and no decision depends on a ULID
// otherwise.
func (x *model) rejoin(w *world) {
	if w.views != 2 {
		return
	}
	for _, i := range w.nodes {
		if n := &x.nodes[i]; n.up && (len(n.m.blocks) != 2 || find(n.m.blocks, x.moves)) {
			return
		}
	}
	w.views = 0
	for slot := range w.nodes {
		if x.up(w, slot) {
			x.run(w, slot, stepRejoin, 0)
		}
	}
}

// image returns the world of x for a world of another model.
func (x *model) image(of *model, w world) world {
	for slot, i := range w.nodes {
		w.nodes[slot] = x.intern(of.nodes[i], slot)
	}
	x.reduce(&w)
	return w
}

// mirror returns a world with zones a and b exchanged.
//
// Exploring one of a world and its mirror image is sound, because no decision depends on the names
// of zones: they are compared only for equality, and sorted so that a search finds them. So a
// history of the image is the image of a history, and the law says nothing about names. The one
// place where the model itself has an order is a member that polls all: TestZonesAreSymmetric
// checks that it does not matter. A model with faults.mixed is not symmetric.
func (x *model) mirror(w world) world {
	nodes := w.nodes
	for slot := range slots {
		w.nodes[mirrorSlot(slot)] = x.mirrorNode(nodes[slot], slot)
	}
	for _, principal := range []*uint8{&w.cut, &w.dup} {
		if *principal != 0 {
			*principal = uint8(mirrorSlot(int(*principal)-1)) + 1
		}
	}
	return w
}

// mirrorSlot returns the slot of the same ordinal in the other zone. The twin keeps its slot.
func mirrorSlot(slot int) int {
	if slot == twin {
		return slot
	}
	return slot ^ 1
}

// mirrorNode returns the number of the image of a node. A node belongs to one slot.
func (x *model) mirrorNode(i uint32, slot int) uint32 {
	if int(i) < len(x.mirrored) && x.mirrored[i] != 0 {
		return x.mirrored[i] - 1
	}
	n := x.nodes[i]
	if n.m != nil {
		n.m = mirrorMember(n.m)
	}
	to := x.intern(n, mirrorSlot(slot))
	x.mirrored = append(x.mirrored, make([]uint32, len(x.nodes)-len(x.mirrored))...)
	x.mirrored[i] = to + 1
	return to
}

func mirrorMember(m *Member) *Member {
	zone := func(id *ID) { id.Zone = map[string]string{"a": "b", "b": "a"}[id.Zone] }
	instance := func(n *uint64) {
		if *n == 0 || *n == bystander {
			return
		}
		slot := int(*n-1) % slots
		*n += uint64(mirrorSlot(slot)) - uint64(slot)
	}
	c := clone(m)
	zone(&c.id)
	instance(&c.instance)
	for i := range c.peers {
		zone(&c.peers[i].id)
		instance(&c.peers[i].instance)
	}
	slices.SortFunc(c.peers, func(a, b peer) int { return compareIDs(a.id, b.id) })
	return c
}
