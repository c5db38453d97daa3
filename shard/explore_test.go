package shard

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// The model of the exploration has two zones. The members of ordinals 0 and 3, between which a
// block moves and comes back, run the shipped code. Those of ordinals 1, 2 and 4 are bystanders:
// they hand nothing over, and all that others learn of them is how far they are. Their reports are
// made from that, and one that is late is the same as a pod that stays Pending.
//
// What a member persists is on disk at once: a crash before it is the same as a decision that was
// not taken, because serving more than necessary harms nothing.
//
// Stale DNS needs no state: the law is checked for every member that is ready, whether or not some
// Querier's DNS answer has it, and one that is not ready refuses.
const (
	twin  = 4 // slots 0 to 3 are a/0 b/0 a/3 b/3, slot 4 is a second process of one of them
	slots = 5
	tick  = time.Minute // the Querier wait
)

// slotID returns the member of a slot. dup is the slot of which slot 4 is a duplicate.
func slotID(slot, dup int) ID {
	if slot == twin {
		slot = max(dup, 0)
	}
	return ID{Zone: []string{"a", "b"}[slot%2], Ordinal: slot / 2 * 3}
}

// epochs are the configurations of the model; epochs[4] is epoch 2 as a zone with another count
// sees it, and epochs[5] an epoch 3 that gives nothing back to ordinal 0.
func epochs() []Config {
	zones := []string{"a", "b"}
	return []Config{
		{},
		{Epoch: 1, Count: 3, Zones: zones},
		{Epoch: 2, Count: 5, Zones: zones},
		{Epoch: 3, Count: 3, Zones: zones},
		{Epoch: 2, Count: 4, Zones: zones},
		{Epoch: 3, Count: 4, Zones: zones},
	}
}

// findBlock returns a ULID that ordinals own with 3 and with 5 shards, and with 4 the second.
func findBlock(tag byte, with3, with5 int) ulid.ULID {
	for n := range 1 << 16 {
		id := ulid.ULID{0: 1, 8: byte(n >> 8), 9: byte(n), 15: tag}
		if Owner(id, 3) == with3 && Owner(id, 5) == with5 && Owner(id, 4) == min(with5, 3) {
			return id
		}
	}
	panic("no such block")
}

// node is one process, or the disk that it left.
type node struct {
	up  bool
	m   *Member
	rec State // of a process that is down

	ready, busy             bool
	stays, moves, compacted bool   // which data it serves
	lives                   uint32 // the processes that it knows, as bits
}

// world is a state of the model. Two worlds with equal fields behave the same.
type world struct {
	nodes   [slots]uint32
	crowd   uint8 // how far the bystanders are
	groups  uint8 // how many groups the Querier has
	info    uint8 // bits: its last Info of group 0 has the block that stays, that moves; 3
	views   uint8 // the compaction: 0 none, 1 the new block is there, 2 the old one left
	faults  uint8 // how many are left
	cut     uint8 // the principal that no member reaches, plus 1
	dup     uint8 // the principal that slot 10 duplicates, plus 1
	mixed   bool  // zone b reads another count at epoch 2
	reduced bool  // the operator deleted the pods of ordinals 3 and 4 too early
}

// How far the bystanders are.
const (
	crowdRests uint8 = iota // at epoch 1
	crowdHas2               // persisted epoch 2
	crowdDid2               // dropped epoch 1
	crowdHas3
	crowdDid3
	crowdSkipped // persisted epoch 3 after epoch 2 had two contents
)

const (
	info0Stays = 1 << iota
	info0Moves
	info3Moves
)

// model explores. Its tables keep what the shipped code answered, so that it runs once for each
// state of a member and event.
type model struct {
	rules  rules
	faults faultSet
	limit  int
	last   uint8 // the highest epoch to publish
	ahead  bool  // starts when epoch 2 has been read
	third  uint8 // the index of epoch 3
	fine   bool  // members poll one by one
	grown  bool  // starts at rest in epoch 2
	gone   int   // the slot plus 1 of a process that never runs again; the operator forces it
	plain  bool  // no reductions but symmetric
	// symmetric visits one of a world and its mirror image.
	symmetric bool

	stays, moves, joined ulid.ULID
	nodes                []node
	byKey                map[string]uint32
	memo                 table
	toldAgain            table
	mirrored             []uint32 // the image of each node, plus 1; 0 is unknown
	seen                 visited
	each                 func(world) // gets each world when it is first reached, if not nil
	depth                int         // how many steps all histories have that were visited
	exhausted            bool        // there are no others
	telling              bool
	completed            bool
	broken               string // the first violation, with its history
	gaps                 int    // states in which a member that started alone loses a block
	down                 int    // states in which a group had no ready member
	key, one, other      []byte // of intern, of hash
}

// faultSet says which faults may happen, at most budget of them.
type faultSet struct {
	budget                                              int
	crash, lose, cut, compact, duplicate, mixed, reduce bool
	stray                                               bool // a report of another cluster
}

type step struct {
	node uint32
	kind uint8
	arg  uint32
}

const (
	stepConfig uint8 = iota
	stepPoll
	stepCrowd
	stepTick
	stepAsk
	stepSilent
	stepForget
	stepView
	stepStart
	stepStop
	stepLose
	stepStray
	stepForce
	stepRenumber
	stepRejoin
	stepAcked
)

func newModel(r rules, f faultSet) *model {
	x := &model{
		rules: r, faults: f, limit: 200_000_000, last: 3, third: 3,
		stays: findBlock(1, 0, 0), moves: findBlock(2, 0, 3), joined: findBlock(3, 0, 3),
		byKey: map[string]uint32{},
	}
	x.intern(node{}, 0)
	return x
}

// view returns the blocks of the bucket at a stage of the compaction.
func (x *model) view(stage uint8) []Block {
	old := []Block{{ID: x.stays, Warm: true}, {ID: x.moves, Warm: true}}
	joined := Block{ID: x.joined, Warm: true, Covers: []ulid.ULID{x.moves}}
	blocks := [][]Block{old, append(slices.Clone(old), joined), {old[0], joined}, old[:1]}[stage]
	slices.SortFunc(blocks, func(a, b Block) int { return a.ID.Compare(b.ID) })
	return blocks
}

// age returns how long ago t was in ticks, at most limit.
func age(m *Member, t time.Duration, limit int) byte {
	return byte(min(int((m.now-t)/tick), limit))
}

func appendBool(b []byte, bits ...bool) []byte {
	v := byte(0)
	for i, bit := range bits {
		if bit {
			v |= 1 << i
		}
	}
	return append(b, v)
}

func appendState(b []byte, s State) []byte {
	for _, c := range []Config{s.Previous, s.Current, s.Next} {
		b = append(b, byte(c.Epoch), byte(c.Count))
	}
	b = appendBool(b, s.Committed, s.Lost)
	b = append(b, byte(len(s.Forced)))
	for _, id := range s.Forced {
		b = append(b, id.Zone[0], byte(id.Ordinal))
	}
	return b
}

// appendMember encodes all that a member's decisions depend on, and with all also what they do not
// depend on now. Times are ages, up to the one from which decisions are the same.
func appendMember(b []byte, m *Member, all bool) []byte {
	b = append(b, m.id.Zone[0], byte(m.id.Ordinal), byte(m.instance), age(m, m.started, 1))
	b = appendState(b, m.state)
	b = appendState(b, m.want)
	b = append(b, byte(m.file.Epoch), byte(m.file.Count))
	if m.missed(m.highest) {
		b = append(b, byte(m.highest.Epoch), byte(m.highest.Count))
	}
	if m.want.Lost || m.rules.readyLiterally {
		b = append(b, byte(m.pending))
	}
	if m.met {
		b = append(b, age(m, m.metAt, 1)+1)
	}
	busy, decides := m.handsOver(), m.decides() || all
	b = appendBool(b, m.dead, m.heard, m.twin && decides, m.loaded, m.frozen, busy, m.alone,
		len(m.silent) > 0)
	b = append(b, byte(len(m.blocks)))
	b = appendBool(b, m.ready, m.readyFor() >= tick)
	if busy {
		b = append(b, age(m, m.committedAt, 1))
	}
	if m.drained() {
		// Until when it is, unless it hears of a peer.
		last := byte(2)
		for i := range m.peers {
			if p := &m.peers[i]; m.state.Current.Has(p.id) {
				last = min(last, age(m, p.at, 2))
			}
		}
		b = append(b, last)
	}
	for _, block := range m.blocks {
		b = append(b, block.ID[15])
	}
	b = append(b, byte(len(m.kept)))
	for _, id := range m.kept {
		b = append(b, id[15])
	}
	for _, a := range m.asks {
		// Ordinal 3 receives blocks at epoch 2, and ordinal 0 at epoch 3.
		b = append(b, age(m, a.at, 1))
		b = appendBool(b, a.epoch >= uint64(3-m.id.Ordinal/3), a.epoch >= 2 && all)
	}
	for i := range m.peers {
		p := &m.peers[i]
		b = append(b, p.id.Zone[0], byte(p.id.Ordinal), byte(p.instance))
		confirming := m.takesFrom(p)
		// That a peer is blank never counts, because no bystander is.
		b = appendBool(b, p.twin && decides, p.acked && m.awaits(), confirming,
			p.watched >= tick && decides, p.open && decides)
		if confirming && (busy || all) {
			// A drop waits for the later of both.
			b = append(b, age(m, max(p.confirmed, m.committedAt), 1))
		}
		if decides {
			b = append(b, age(m, p.at, 1), m.heardOf(p.id, p.asks))
		}
	}
	return b
}

func clone(m *Member) *Member {
	c := *m
	c.peers = slices.Clone(m.peers)
	c.asks = slices.Clone(m.asks)
	return &c
}

// intern returns the number of a node. Nodes that behave the same have the same number.
func (x *model) intern(n node, slot int) uint32 {
	x.key = append(x.key[:0], byte(slot))
	x.key = appendBool(x.key, n.up)
	if n.up {
		x.key = appendMember(x.key, n.m, x.plain)
	} else {
		x.key = appendState(x.key, n.rec)
		if n.m != nil {
			x.key = append(x.key, byte(n.m.instance))
		}
	}
	if i, ok := x.byKey[string(x.key)]; ok {
		return i
	}
	if n.up {
		n.ready, _ = n.m.Ready()
		n.busy = n.m.handsOver()
		n.stays, n.moves = n.m.Serves(x.stays), n.m.Serves(x.moves) || n.m.Serves(x.joined)
	}
	n.lives = n.knownLives()
	i := uint32(len(x.nodes))
	x.nodes = append(x.nodes, n)
	x.byKey[string(x.key)] = i
	return i
}

// run applies an event to a node, through the memo.
func (x *model) run(w *world, slot int, kind uint8, arg uint32) {
	s := step{w.nodes[slot], kind, arg}
	if kind == stepStart {
		s.arg |= uint32(slot)<<8 | uint32(w.dup)<<16
	}
	to := x.memo.get(s.key())
	if to == 0 {
		to = x.apply(w, slot, s) + 1
		x.memo.put(s.key(), to)
	}
	w.nodes[slot] = to - 1
}

func (x *model) apply(w *world, slot int, s step) uint32 {
	n := x.nodes[s.node]
	if s.kind == stepStart {
		life := uint64(0)
		if n.m != nil {
			life = (n.m.instance-1)/slots + 1
		}
		id := slotID(slot, int(w.dup)-1)
		n.m = NewMember(Options{QuerierWait: tick, StartWait: tick, TwinWindow: tick}, id,
			uint64(slot)+1+life*slots, n.rec, 0)
		n.m.rules = x.rules
		n.up = true
		n.m.HandleBlocks(0, x.view(uint8(s.arg&0xff)))
		return x.settle(n, slot)
	}
	if s.kind == stepRenumber && !n.up {
		m := clone(n.m)
		m.instance = renumbered(m.instance, s.arg)
		n.m = m
		return x.intern(n, slot)
	}
	if s.kind == stepStop || s.kind == stepLose {
		// A process that is down answers no Querier. What it served last must go: the key of a node
		// that is down leaves it out, so that nodes that served different blocks share a number.
		n = node{m: n.m, rec: n.m.state}
		if s.kind == stepLose {
			n.rec = State{}
		}
		return x.intern(n, slot)
	}
	m := clone(n.m)
	n.m = m
	switch s.kind {
	case stepConfig:
		m.HandleConfig(m.now, epochs()[s.arg])
	case stepPoll:
		p := x.nodes[s.arg].m
		q := m.Question(p.id.Ordinal)
		m.HandleReport(m.now, m.now, q, p.Report(q))
	case stepCrowd:
		x.crowdReports(m, s.arg)
	case stepStray:
		m.HandleReport(m.now, m.now, nil, Report{ID: ID{Zone: "z"}, Instance: 100,
			State: State{Current: Config{Epoch: 9, Count: 5, Zones: []string{"a", "b"}}}})
	case stepTick:
		m.HandleTime(m.now + tick)
	case stepAcked:
		m.addPeer(slotID(int(s.arg), 0)).acked = true
	case stepForget:
		dup := ID{}
		if s.arg>>8 != 0 {
			dup = slotID(int(s.arg>>8)-1, 0)
		}
		m.forgotten(func(id ID) bool {
			for slot := range twin {
				if slotID(slot, 0) == id {
					return s.arg>>slot&1 == 1
				}
			}
			return s.arg>>twin&1 == 1
		}, dup)
	case stepSilent:
		var silent []Silence
		if s.arg > 0 {
			silent = []Silence{{Address: "10.0.0.1:10902"}}
		}
		if s.arg > 1 {
			silent[0].Of = slotID(int(s.arg)-2, 0)
		}
		m.HandleSilent(m.now, silent)
	case stepForce:
		if err := m.Force(m.now, m.want.Next.Epoch, []ID{slotID(x.gone-1, 0)}); err != nil {
			panic(err)
		}
	case stepAsk:
		m.HandleAsk(m.now, "q")
	case stepView:
		m.HandleBlocks(m.now, x.view(uint8(s.arg)))
	case stepRenumber:
		m.instance = renumbered(m.instance, s.arg)
		for i := range m.peers {
			m.peers[i].instance = renumbered(m.peers[i].instance, s.arg)
		}
	case stepRejoin:
		m.blocks = x.view(0)
		if slices.Contains(m.kept, x.joined) {
			m.kept = []ulid.ULID{x.moves}
		} else {
			m.kept = nil
		}
	}
	return x.settle(n, slot)
}

// settle persists what the member decided.
func (x *model) settle(n node, slot int) uint32 {
	for {
		s, ok := n.m.Persist()
		if !ok {
			return x.intern(n, slot)
		}
		n.m.HandlePersisted(n.m.now, s)
	}
}

func (x *model) up(w *world, slot int) bool { return x.nodes[w.nodes[slot]].up }

func (x *model) ready(w *world, slot int) bool { return x.nodes[w.nodes[slot]].ready }

// poll lets a member ask another, as it was in before, if both run and the network lets it.
func (x *model) poll(w, before *world, asker, asked int) {
	cut := int(w.cut) - 1
	if asker != asked && x.up(w, asker) && x.up(before, asked) && asker != cut && asked != cut {
		x.run(w, asker, stepPoll, before.nodes[asked])
	}
}

// crowdReports lets a member ask all bystanders. arg is how far they are, with bits above for what
// the Querier and the zones do.
func (x *model) crowdReports(m *Member, arg uint32) {
	at, grown, mixed := uint8(arg), arg&256 != 0, arg&512 != 0
	c := epochs()
	c[3] = c[x.third]
	ids := members(c[2], Config{})
	if m.id.Zone == "b" { // each asks its own zone first
		ids = slices.Concat(ids[len(ids)/2:], ids[:len(ids)/2])
	}
	for _, id := range ids {
		second := c[2]
		if mixed && id.Zone == "b" {
			second = c[4]
		}
		if id.Ordinal%3 == 0 || at == crowdRests && id.Ordinal > 2 || !second.Has(id) {
			continue
		}
		r := Report{ID: id, Instance: 100, Watching: time.Hour, ReadyFor: time.Hour}
		r.State = [...]State{
			crowdRests:   {Current: c[1]},
			crowdHas2:    {Current: c[1], Next: second},
			crowdDid2:    {Previous: c[1], Current: c[2]},
			crowdHas3:    {Previous: c[1], Current: c[2], Next: c[3]},
			crowdDid3:    {Previous: c[2], Current: c[3]},
			crowdSkipped: {Current: c[1], Next: c[3]},
		}[at]
		if id.Ordinal < 3 || grown {
			r.Asks = []Ask{{Address: "q", Epoch: r.State.committed().Epoch}}
			if x.rules.commitPartly {
				r.Asks[0].Epoch = r.State.epoch()
			}
		}
		m.HandleReport(m.now, m.now, m.Question(id.Ordinal), r)
	}
}

// group returns the slots of an ordinal.
func group(w *world, ordinal int) []int {
	first := ordinal / 3 * 2
	if w.dup != 0 && slotID(twin, int(w.dup)-1).Ordinal == ordinal {
		return []int{first, first + 1, twin}
	}
	return []int{first, first + 1}
}

// ask gives the Querier the Info of a member.
func (x *model) ask(w *world, slot int) {
	if slot < 0 {
		return
	}
	n := &x.nodes[w.nodes[slot]]
	set := func(bit uint8, on bool) {
		w.info &^= bit
		if on {
			w.info |= bit
		}
	}
	switch n.m.id.Ordinal {
	case 0:
		set(info0Stays, n.stays)
		set(info0Moves, n.moves)
	case 3:
		set(info3Moves, n.moves)
	}
}

// asked lets a member know that the Querier asked it.
func (x *model) asked(w *world, slot int) {
	if slot >= 0 && x.ready(w, slot) {
		x.run(w, slot, stepAsk, 0)
	}
}

// reload lets the Querier read the endpoint file.
func (x *model) reload(w *world, groups uint8) {
	w.groups = groups
	if w.groups < 5 {
		w.info &^= info3Moves
	}
}

// check returns what is wrong with a world.
func (x *model) check(w *world) string {
	holds := func(ordinal int, bit uint8, serves func(*node) bool) (law, live bool) {
		if ordinal >= int(w.groups) || w.info&bit == 0 {
			return false, false
		}
		for _, slot := range group(w, ordinal) {
			n := &x.nodes[w.nodes[slot]]
			if n.up && n.ready {
				if live = true; !serves(n) {
					return false, false
				}
			}
		}
		return true, live
	}
	stays, live := holds(0, info0Stays, func(n *node) bool { return n.stays })
	moves := false
	for i, bit := range []uint8{info0Moves, info3Moves} {
		law, alive := holds(i*3, bit, func(n *node) bool { return n.moves })
		if moves = moves || law; law {
			live = live || alive
		}
	}
	for slot := range slots {
		if n := &x.nodes[w.nodes[slot]]; n.up && n.m.alone && !(stays && moves) {
			x.gaps++ // it started without a record and without a peer, and said so
			return ""
		}
	}
	if !stays {
		return "the block that stays is lost"
	}
	if !moves {
		return "the block that moves is lost"
	}
	if !live {
		x.down++
	}
	return ""
}

// describe returns the members of a world, for a failure.
func (x *model) describe(w *world) string {
	var b strings.Builder
	for slot := range slots {
		n := &x.nodes[w.nodes[slot]]
		if n.up {
			_, why := n.m.Ready()
			fmt.Fprintf(&b, "\n%s: current %d, next %d, committed %v, ready %v %s, serves %v",
				n.m.id, n.m.state.Current.Epoch, n.m.state.Next.Epoch, n.m.state.Committed,
				n.ready, why, n.moves)
		}
	}
	return b.String()
}
