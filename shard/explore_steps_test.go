package shard

import (
	"fmt"
	"slices"
)

// say returns the name of a step while a history is told.
func (x *model) say(format string, args ...any) string {
	if !x.telling {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// start returns the first world: epoch 1 with 3 shards, at rest, or epoch 2 with 5.
func (x *model) start() world {
	w := world{groups: 3, faults: uint8(x.faults.budget)}
	rec, members, file := State{Current: epochs()[1]}, 2, uint32(1)
	if x.grown {
		file, w.groups, w.crowd = 2, 5, crowdDid2
		rec, members = State{Previous: epochs()[1], Current: epochs()[2]}, twin
	}
	for slot := range slots {
		n := node{}
		if slot < members {
			n.rec = rec
		}
		w.nodes[slot] = x.intern(n, slot)
		if slot < members {
			x.run(&w, slot, stepStart, 0)
			x.run(&w, slot, stepConfig, file)
		}
	}
	for range 3 {
		for slot := range members {
			x.pollAll(&w, &w, slot)
			x.ask(&w, slot)
			x.asked(&w, slot)
		}
		for slot := range members {
			x.run(&w, slot, stepTick, 0)
		}
	}
	if x.ahead {
		for slot := range twin {
			if slot > 1 && !(slot == 3 && x.rules.commitPartly) {
				x.run(&w, slot, stepStart, 0)
			}
			if x.up(&w, slot) {
				x.run(&w, slot, stepConfig, 2)
			}
		}
	}
	if x.gone > 0 {
		x.run(&w, x.gone-1, stepStop, 0)
	}
	return w
}

// pollAll lets a member ask every other one as it was in before, its own zone first.
func (x *model) pollAll(w, before *world, slot int) {
	for other := range slots {
		if slotID(slot, int(w.dup)-1).Zone == "b" {
			other = mirrorSlot(other)
		}
		x.poll(w, before, slot, other)
	}
	x.pollCrowd(w, slot)
	x.silence(w, before, slot)
}

// silence tells a member that asks all peers whether an address is silent: that of a process which
// no member reaches. It matters only if another process answers for the same ordinal. Otherwise its
// report is missing, which delays as much.
func (x *model) silence(w, before *world, slot int) {
	cut := int(w.cut) - 1
	if !x.up(w, slot) || slot == cut {
		return
	}
	silent := cut >= 0 && int(w.dup)-1 == cut && x.up(before, cut)
	if known := len(x.nodes[w.nodes[slot]].m.silent) > 0; known != (silent || x.gone > 0) {
		arg := uint32(0)
		if silent {
			arg = 1
		}
		if x.gone > 0 {
			arg = uint32(x.gone) + 1 // its address stays in the DNS
		}
		x.run(w, slot, stepSilent, arg)
	}
}

// pollCrowd lets a member ask the bystanders.
func (x *model) pollCrowd(w *world, slot int) {
	if !x.up(w, slot) || slot == int(w.cut)-1 {
		return
	}
	arg := uint32(w.crowd)
	if w.groups == 5 {
		arg |= 256
	}
	if w.mixed {
		arg |= 512
	}
	x.run(w, slot, stepCrowd, arg)
}

// next calls yield for each world that can follow w.
func (x *model) next(w world, yield func(what string, w world)) {
	x.surroundings(w, yield)
	for slot := range slots {
		x.member(w, slot, yield)
	}
	x.crowd(w, yield)
	x.querier(w, yield)
	if w.faults > 0 {
		x.fault(w, yield)
	}
}

// surroundings lets the network heal, and the compactor delete.
func (x *model) surroundings(w world, yield func(string, world)) {
	if w.cut > 0 {
		n := w
		n.cut = 0
		yield("the network heals", n)
	}
	if w.views == 1 && x.listed(&w) {
		n := w
		n.views = 2
		yield("the block that was replaced leaves", n)
	}
}

// listed reports whether each member that runs has seen the new block of the compaction. The
// compactor deletes the old one days later.
func (x *model) listed(w *world) bool {
	for slot := range slots {
		if x.up(w, slot) && len(x.nodes[w.nodes[slot]].m.blocks) < 3 {
			return false
		}
	}
	return true
}

// done reports whether all members have done their drops of an epoch.
func (x *model) done(w *world, epoch uint64) bool {
	for slot := range twin {
		if slot == x.gone-1 {
			continue
		}
		if s := x.saved(w, slot); s.Current.Epoch != epoch || !s.Next.IsZero() {
			return false
		}
	}
	return w.crowd == crowdDid3 && epoch == 3 || w.crowd == crowdDid2 && epoch == 2
}

// saved returns what a process has on disk.
func (x *model) saved(w *world, slot int) State {
	if n := &x.nodes[w.nodes[slot]]; n.up {
		return n.m.state
	} else {
		return n.rec
	}
}

// file returns the index of the configuration that a member reads at an epoch.
func (x *model) file(w *world, slot int, epoch uint8) uint32 {
	if w.mixed && epoch == 2 && slot%2 == 1 {
		return 4
	}
	if epoch == 3 {
		return uint32(x.third)
	}
	return uint32(epoch)
}

// member lets one member act.
func (x *model) member(w world, slot int, yield func(string, world)) {
	n := &x.nodes[w.nodes[slot]]
	name := slotID(slot, int(w.dup)-1)
	if slot == twin && w.dup == 0 || slot == x.gone-1 {
		return
	}
	if !n.up {
		x.starts(w, slot, yield)
		return
	}
	if slot == twin {
		to := w
		x.run(&to, slot, stepStop, 0)
		yield(x.say("the duplicate of %s ends", name), to)
	}
	for e := uint8(n.m.file.Epoch) + 1; e <= x.last; e++ {
		to := w
		x.run(&to, slot, stepConfig, x.file(&w, slot, e))
		yield(x.say("%s reads epoch %d", name, e), to)
	}
	if x.gone > 0 && n.m.want.Next.Epoch > 0 && len(n.m.want.Forced) == 0 {
		to := w
		x.run(&to, slot, stepForce, 0)
		yield(x.say("%s is forced", name), to)
	}
	if to := w; x.look(&to, slot) {
		yield(x.say("%s lists the bucket", name), to)
	}
	to := w
	x.pollAll(&to, &w, slot)
	if to.nodes != w.nodes {
		yield(x.say("%s polls all", name), to)
	}
	if x.fine {
		for other := range slots {
			to := w
			x.poll(&to, &w, slot, other)
			yield(x.say("%s polls %s", name, slotID(other, int(w.dup)-1)), to)
		}
		to := w
		x.pollCrowd(&to, slot)
		yield(x.say("%s polls the bystanders", name), to)
	}
}

// starts lets a process start, which reads the configuration at once. A duplicate starts once.
func (x *model) starts(w world, slot int, yield func(string, world)) {
	n, name := &x.nodes[w.nodes[slot]], slotID(slot, int(w.dup)-1)
	if w.reduced && name.Ordinal > 2 || slot == twin && n.m != nil {
		return
	}
	start := func(view, epoch uint8, what string) {
		to := w
		x.run(&to, slot, stepStart, uint32(view))
		x.run(&to, slot, stepConfig, x.file(&w, slot, epoch))
		yield(x.say("%s starts with epoch %d%s", name, epoch, what), to)
	}
	for e := uint8(1); e <= x.last; e++ {
		start(w.views, e, "")
		if n.m == nil && name.Ordinal == 3 && slot != twin {
			// A block that is younger than the list that a new pod reads. Later lists have it, of a
			// later process too.
			start(3, e, " and an old list")
		}
	}
}

// look lets a member list the bucket, and reports whether it saw something new.
func (x *model) look(w *world, slot int) bool {
	before := w.nodes[slot]
	if x.up(w, slot) {
		x.run(w, slot, stepView, uint32(w.views))
	}
	return w.nodes[slot] != before
}

// crowd lets the bystanders go one step on. They drop as soon as they may, which is the worst case.
func (x *model) crowd(w world, yield func(string, world)) {
	acked := func(c Config) bool {
		for slot := range twin {
			if s := x.saved(&w, slot); slot != x.gone-1 && !s.has(c) &&
				s.Current.Epoch <= c.Epoch {
				return false
			}
		}
		return true
	}
	c := epochs()
	c[3] = c[x.third]
	var may bool
	switch w.crowd {
	case crowdRests:
		if x.last == 3 {
			to := w
			to.crowd = crowdSkipped
			yield("the bystanders read epoch 3 and miss 2", to)
		}
		may = true
	case crowdHas2:
		if w.mixed {
			if x.last == 3 {
				w.crowd = crowdSkipped
				yield("the bystanders replace epoch 2", w)
			}
			return
		}
		may = acked(c[2])
	case crowdDid2:
		may = x.last == 3
	case crowdHas3, crowdSkipped:
		if may = acked(c[3]); may && w.crowd == crowdSkipped {
			w.crowd = crowdHas3
		}
	}
	if may {
		w.crowd++
		yield(x.say("the bystanders go on to %d", w.crowd), w)
	}
}

// querier lets the Querier act. A tick is the Querier wait: in each one the Querier reads the
// endpoint file, and asks one member of each group, as chance has it. An answer that is as old as
// possible is the worst case, so that the coarse form has no other calls.
func (x *model) querier(w world, yield func(string, world)) {
	if x.fine {
		for _, groups := range x.files(&w) {
			to := w
			x.reload(&to, groups)
			yield("the Querier reads the endpoint file", to)
		}
		for _, ordinal := range []int{0, 3} {
			for _, slot := range x.answering(&w, ordinal) {
				if slot < 0 {
					continue
				}
				to := w
				x.ask(&to, slot)
				x.asked(&to, slot)
				yield(x.say("the Querier asks %s", slotID(slot, int(w.dup)-1)), to)
			}
		}
	}
	// A member that waits for a peer asks them all many times in a tick.
	for range 2 {
		before := w
		for slot := range slots {
			if x.up(&w, slot) && !x.nodes[w.nodes[slot]].m.heard {
				x.pollAll(&w, &before, slot)
			}
		}
	}
	for _, groups := range x.files(&w) {
		last := w
		x.reload(&last, groups)
		for _, first := range x.answering(&last, 0) {
			for _, second := range x.answering(&last, 3) {
				to := last
				x.ask(&to, first)
				x.ask(&to, second)
				for slot := range slots {
					if x.up(&to, slot) {
						x.run(&to, slot, stepTick, 0)
					}
				}
				x.asked(&to, first)
				x.asked(&to, second)
				x.meet(to, to, 0, func(to world) {
					yield(x.say("the wait passes; the Querier has %d groups and asks slots %d, %d",
						groups, first, second), to)
				})
			}
		}
	}
}

// files returns how many groups the endpoint file may have that the Querier reads. The operator
// takes groups away when all members have done their drops.
func (x *model) files(w *world) []uint8 {
	if w.groups == 5 && !(x.last == 3 && x.done(w, 3)) {
		return []uint8{5}
	}
	return []uint8{3, 5}
}

// unread reports whether no member has taken on epoch 2.
func (x *model) unread(w *world) bool {
	for slot := range twin {
		if x.saved(w, slot).epoch() > 1 {
			return false
		}
	}
	return w.crowd == crowdRests
}

// answering returns the slots of a group that answer the Querier, or -1 alone if there is none.
func (x *model) answering(w *world, ordinal int) []int {
	if ordinal < int(w.groups) {
		found := slices.DeleteFunc(group(w, ordinal), func(slot int) bool {
			return !x.ready(w, slot)
		})
		if len(found) > 0 {
			return found
		}
	}
	return []int{-1}
}

// meet lets the members from slot on see two processes of one ordinal, as they do many times in a
// tick.
func (x *model) meet(w, before world, slot int, yield func(world)) {
	if w.dup == 0 || slot == slots {
		yield(w)
		return
	}
	to := w
	x.poll(&to, &before, slot, int(w.dup)-1)
	x.poll(&to, &before, slot, twin)
	x.knew(to, w, slot, func(to world) { x.meet(to, before, slot+1, yield) })
}

// polled calls yield for each way in which the members from slot other on may have polled a member,
// just before it stops or is cut off: not at all, or now, or before it went on to what it says now.
func (x *model) polled(w, before world, slot, other int, yield func(world)) {
	if other == slots {
		yield(w)
		return
	}
	x.polled(w, before, slot, other+1, yield)
	if x.fine {
		return
	}
	to := w
	if x.poll(&to, &before, other, slot); to.nodes != w.nodes {
		x.knew(to, w, other, func(to world) { x.polled(to, before, slot, other+1, yield) })
	}
	n := &x.nodes[w.nodes[other]]
	if n.up && other != slot && n.m.awaits() && x.saved(&before, slot).has(n.m.want.Next) {
		was := to.nodes
		to = w
		x.run(&to, other, stepAcked, uint32(slot))
		if to.nodes != w.nodes && to.nodes != was {
			x.polled(to, before, slot, other+1, yield)
		}
	}
}

// knew calls yield for each way in which a member may have polled others before one poll. That
// matters if the poll made it hand over, because what peers confirm counts from then on.
func (x *model) knew(w, before world, slot int, yield func(world)) {
	if x.nodes[before.nodes[slot]].busy || !x.nodes[w.nodes[slot]].busy {
		yield(w)
		return
	}
	for set := range 1 << slots {
		to := w
		for other := range twin {
			if set>>other&1 == 1 {
				x.poll(&to, &before, slot, other)
			}
		}
		if set>>twin&1 == 1 {
			x.pollCrowd(&to, slot)
		}
		yield(to)
	}
}

// fault lets something go wrong.
func (x *model) fault(w world, yield func(string, world)) {
	w.faults--
	for slot := range twin {
		name := slotID(slot, 0)
		if x.up(&w, slot) {
			x.polled(w, w, slot, 0, func(last world) { x.lost(last, w, slot, yield) })
		}
		if x.faults.stray && x.up(&w, slot) {
			to := w
			x.run(&to, slot, stepStray, 0)
			yield(x.say("%s hears of an epoch of another cluster", name), to)
		}
		if x.faults.duplicate && w.dup == 0 {
			to := w
			to.dup = uint8(slot) + 1
			yield(x.say("%s gets a duplicate", name), to)
		}
	}
	if x.faults.mixed && !w.mixed && x.unread(&w) {
		to := w
		to.mixed = true
		yield("zone b has another count", to)
	}
	if x.faults.compact && w.views == 0 {
		to := w
		to.views = 1
		yield("a compaction", to)
	}
	if x.faults.reduce && !w.reduced && x.last == 3 {
		to := w
		to.reduced = true
		for _, slot := range []int{2, 3} {
			if x.up(&to, slot) {
				x.run(&to, slot, stepStop, 0)
			}
		}
		yield("the operator deletes the pods of ordinals 3 and 4", to)
	}
}

// lost lets a member stop, or be cut off.
func (x *model) lost(w, before world, slot int, yield func(string, world)) {
	name := slotID(slot, 0)
	for _, f := range []struct {
		on   bool
		kind uint8
		what string
	}{
		{x.faults.crash, stepStop, "crashes"},
		{x.faults.lose, stepLose, "crashes and loses its disk"},
	} {
		if f.on {
			to := w
			x.run(&to, slot, f.kind, 0)
			yield(x.say("%s %s", name, f.what), to)
		}
	}
	if !x.faults.cut || w.cut != 0 {
		return
	}
	to := w
	to.cut = uint8(slot) + 1
	yield(x.say("no member reaches %s", name), to)
	to = w
	if x.pollAll(&to, &before, slot); to.nodes != w.nodes {
		to.cut = uint8(slot) + 1
		yield(x.say("%s polls all, and no member reaches it", name), to)
	}
}
