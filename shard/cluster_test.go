package shard

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

// cluster runs members that poll each other, for tests that follow one history.
type cluster struct {
	t       *testing.T
	now     time.Duration
	members map[ID]*Member
	records map[ID]State // what is on disk, of every member that ever ran
	cut     map[ID]bool  // no other member reaches it
	groups  int          // of the Querier
	blocks  []Block
	starts  uint64
}

// newCluster returns members at rest in epoch 1, and a Querier that knows all groups.
func newCluster(t *testing.T, count int, zones ...string) *cluster {
	c := &cluster{
		t: t, members: map[ID]*Member{}, records: map[ID]State{}, cut: map[ID]bool{}, groups: count,
	}
	for i := range 40 {
		c.blocks = append(c.blocks, Block{ID: ulid.ULID{1, 15: byte(i)}, Warm: true})
	}
	first := Config{Epoch: 1, Count: count, Zones: zones}
	for _, id := range members(first, Config{}) {
		c.records[id] = State{Current: first}
		c.start(id, first)
	}
	c.run(3)
	return c
}

func (c *cluster) start(id ID, file Config) *Member {
	c.starts++
	m := NewMember(Options{QuerierWait: tick, StartWait: tick, TwinWindow: tick}, id, c.starts,
		c.records[id], c.now)
	c.members[id] = m
	m.HandleBlocks(c.now, c.blocks)
	m.HandleConfig(c.now, file)
	return m
}

func (c *cluster) stop(ids ...ID) {
	for _, id := range ids {
		delete(c.members, id)
	}
}

// publish gives a configuration to all members that run, and starts those that do not.
func (c *cluster) publish(file Config) {
	for _, m := range c.members {
		m.HandleConfig(c.now, file)
	}
	for _, id := range members(file, Config{}) {
		if c.members[id] == nil {
			c.start(id, file)
		}
	}
}

// run lets every member poll every other, and the Querier wait pass, n times.
func (c *cluster) run(n int) {
	for range n {
		for range 3 {
			for _, m := range c.members {
				c.persist(m)
				for _, p := range c.members {
					if m != p && !c.cut[m.id] && !c.cut[p.id] {
						q := m.Question(p.id.Ordinal)
						m.HandleReport(c.now, c.now, q, p.Report(q))
						c.persist(m)
					}
				}
			}
		}
		c.now += tick
		for _, m := range c.members {
			m.HandleTime(c.now)
			c.persist(m)
			if ready, _ := m.Ready(); ready && m.id.Ordinal < c.groups {
				m.HandleAsk(c.now, "q")
			}
		}
	}
}

func (c *cluster) persist(m *Member) {
	for {
		s, ok := m.Persist()
		if !ok {
			return
		}
		c.records[m.id] = s
		m.HandlePersisted(c.now, s)
	}
}

// serving returns the blocks for which the law holds, and those that no ready member serves.
func (c *cluster) serving() (law, gone int) {
	for _, b := range c.blocks {
		lawful, served := false, false
		for ordinal := range c.groups {
			all, live := true, false
			for _, m := range c.members {
				if ready, _ := m.Ready(); ready && m.id.Ordinal == ordinal {
					live = true
					all = all && m.Serves(b.ID)
				}
			}
			lawful = lawful || live && all
			served = served || live && all
		}
		if lawful {
			law++
		}
		if !served {
			gone++
		}
	}
	return law, gone
}

// complete fails the test if a block is lost.
func (c *cluster) complete(when string) {
	c.t.Helper()
	if law, _ := c.serving(); law != len(c.blocks) {
		c.t.Errorf("%s: the law holds for %d of %d blocks", when, law, len(c.blocks))
	}
}

// done reports whether all members that run have dropped all before an epoch.
func (c *cluster) done(epoch uint64) bool {
	for _, m := range c.members {
		if m.state.Current.Epoch != epoch || !m.state.Next.IsZero() {
			return false
		}
	}
	return true
}

func config(epoch uint64, count int, zones ...string) Config {
	return Config{Epoch: epoch, Count: count, Zones: zones}
}

// TestFieldCases: what broke shards of other projects. The numbers are those of the issues; T is
// thanos-io/thanos, M is grafana/mimir, RC is observatorium/thanos-receive-controller.
func TestFieldCases(t *testing.T) {
	t.Run("missed heartbeats drop nothing, M1805", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		for id := range c.members {
			c.cut[id] = true
		}
		c.run(10)
		c.complete("after ten waits without a peer")
		c.publish(config(2, 5, "a", "b"))
		c.run(10)
		c.complete("after ten waits in a hand-over without a peer")
		if c.done(2) {
			t.Error("members dropped blocks without a peer")
		}
	})
	t.Run("a restart moves nothing, M113", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		id := ID{"a", 1}
		before := c.members[id]
		c.stop(id)
		c.run(5)
		c.complete("while a pod is down")
		after := c.start(id, config(1, 3, "a", "b"))
		c.run(1)
		for _, b := range c.blocks {
			if before.Serves(b.ID) != after.Serves(b.ID) {
				t.Errorf("block %s changed its owner by a restart", b.ID)
			}
		}
		c.complete("after the restart")
	})
	t.Run("zones shrink at once, M3698", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b", "c")
		c.publish(config(2, 3, "a"))
		for range 10 {
			c.run(1)
			c.complete("while two of three zones leave")
		}
		for id, m := range c.members {
			if ready, why := m.Ready(); ready != (id.Zone == "a") {
				t.Errorf("at the end %s: ready %v %s", id, ready, why)
			}
		}
	})
	t.Run("a record of a former size is no mark, M4985", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		three, five := config(1, 3, "a", "b"), config(2, 5, "a", "b")
		c.publish(five)
		c.groups = 5
		c.run(10)
		c.publish(config(3, 3, "a", "b"))
		c.run(10)
		c.groups = 3
		c.stop(ID{"a", 3}, ID{"a", 4}, ID{"b", 3}, ID{"b", 4})
		// The pods come back on their old disks, two sizes later, with a file of an old epoch.
		c.publish(config(4, 4, "a", "b"))
		c.groups = 4
		c.stop(ID{"a", 3})
		m := c.start(ID{"a", 3}, three)
		c.run(10)
		c.complete("after the pods came back")
		if m.state.Current.Epoch > 3 {
			t.Error("a pod whose file is old took on an epoch that it did not read")
		}
		m.HandleConfig(c.now, config(4, 4, "a", "b"))
		c.run(10)
		c.complete("after the file came")
		if !c.done(4) {
			t.Error("the hand-over did not end")
		}
	})
	t.Run("ownership does not follow readiness, RC75", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		var before []bool
		for _, b := range c.blocks {
			before = append(before, c.members[ID{"a", 0}].Serves(b.ID))
		}
		for ordinal := 1; ordinal < 3; ordinal++ {
			c.stop(ID{"a", ordinal}, ID{"b", ordinal})
		}
		c.run(10)
		for i, b := range c.blocks {
			if c.members[ID{"a", 0}].Serves(b.ID) != before[i] {
				t.Errorf("block %s changed its owner because pods are down", b.ID)
			}
		}
	})
	t.Run("a/0, b/1 and c/2 are down and answers stay complete, T8642", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b", "c")
		c.stop(ID{"a", 0}, ID{"b", 1}, ID{"c", 2})
		c.run(5)
		c.complete("with one pod of each ordinal down")
	})
	t.Run("zones with different counts, and the correction", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		for id, m := range c.members {
			m.HandleConfig(c.now, config(2, map[string]int{"a": 5, "b": 4}[id.Zone], "a", "b"))
		}
		for range 5 {
			c.run(1)
			c.complete("with two contents of epoch 2")
		}
		if c.done(2) {
			t.Error("epoch 2 ended although the zones disagree")
		}
		c.groups = 5
		c.publish(config(3, 5, "a", "b"))
		for range 10 {
			c.run(1)
			c.complete("after the correction")
		}
		if !c.done(3) {
			t.Error("epoch 3 did not replace epoch 2")
		}
	})
	t.Run("two processes of one ordinal drop nothing", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		c.groups = 5
		other := NewMember(Options{}, ID{"a", 0}, 1000, State{}, c.now)
		c.publish(config(2, 5, "a", "b"))
		for range 10 {
			c.run(1)
			for _, m := range c.members {
				m.HandleReport(c.now, c.now, nil, other.Report(nil))
			}
		}
		if m := c.members[ID{"a", 0}]; m.state.Current.Epoch != 1 || !m.twin {
			t.Errorf("a duplicate was not seen, or blocks were dropped: %+v", m.state)
		}
		c.complete("with a duplicate")
		c.run(10)
		if !c.done(2) {
			t.Error("the hand-over did not end after the duplicate had gone")
		}
	})
	t.Run("an address that does not answer blocks the drop", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		c.groups = 5
		c.publish(config(2, 5, "a", "b"))
		for _, m := range c.members {
			m.HandleSilent(c.now, []Silence{{Address: "10.0.0.1:10900"}})
		}
		c.run(10)
		if c.members[ID{"a", 0}].state.Current.Epoch != 1 {
			t.Error("blocks were dropped while an address was silent")
		}
	})
}

// TestEpochCommittedWithoutAMember: a member with a record keeps its blocks, and refuses Queriers,
// when a peer has committed an epoch that its own configuration does not have.
func TestEpochCommittedWithoutAMember(t *testing.T) {
	stray := func(c Config) Report {
		return Report{ID: ID{"z", 0}, Instance: 1000, State: State{Current: c}}
	}
	one := config(7, 1, "z")
	t.Run("a process of another cluster", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		for _, when := range []string{"at rest", "in a change"} {
			for _, m := range c.members {
				if m.want.Lost {
					continue // it has nothing to lose
				}
				before, record := m.Ownership(), m.state
				m.HandleReport(c.now, c.now, nil, stray(one))
				c.persist(m)
				if !m.Ownership().Equal(before) || !m.state.equal(record) {
					t.Errorf("%s: %s took over an epoch that it did not read: %+v", when, m.id,
						m.state)
				}
				if ready, why := m.Ready(); ready || !strings.Contains(why, "epoch 7") {
					t.Errorf("%s: %s: ready %v %q", when, m.id, ready, why)
				}
			}
			c.publish(config(2, 5, "a", "b"))
			c.run(1)
		}
		c.run(10)
		for _, m := range c.members {
			if m.state.Current.Epoch > 2 || m.state.Next.Epoch > 2 {
				t.Errorf("%s took over epoch %d", m.id, m.state.epoch())
			}
		}
	})
	t.Run("the epoch in progress with another content", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		m := c.members[ID{"a", 0}]
		m.HandleConfig(c.now, config(2, 5, "a", "b"))
		c.persist(m)
		before := m.Ownership()
		m.HandleReport(c.now, c.now, nil, stray(config(2, 1, "z")))
		if ready, why := m.Ready(); ready || !m.Ownership().Equal(before) {
			t.Errorf("ready %v %q, epochs %+v", ready, why, m.want)
		}
	})
	t.Run("the configuration is late", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		c.groups = 5
		gone := []ID{{"b", 0}, {"b", 1}, {"b", 2}, {"b", 3}, {"b", 4}}
		c.stop(gone...)
		c.publish(config(2, 5, "a", "b"))
		c.stop(gone...)
		c.run(1)
		for _, m := range c.members {
			if err := m.Force(c.now, 2, gone); err != nil {
				t.Error(err)
			}
		}
		c.run(10)
		back := c.start(ID{"b", 0}, config(1, 3, "a", "b"))
		c.run(1)
		if ready, why := back.Ready(); ready || back.state.epoch() != 1 {
			t.Errorf("before its configuration: ready %v %q, %+v", ready, why, back.state)
		}
		back.HandleConfig(c.now, config(2, 5, "a", "b"))
		c.run(1)
		if ready, why := back.Ready(); !ready || back.want.epoch() != 2 {
			t.Errorf("after its configuration: ready %v %q, %+v", ready, why, back.want)
		}
		c.complete("after the configuration came")
	})
}

// TestLateConfigurationOnlyDelays: members whose file is late stay ready. A rule that stops them
// below any epoch of a peer would stop all members of a group.
func TestLateConfigurationOnlyDelays(t *testing.T) {
	for _, literally := range []bool{false, true} {
		c := newCluster(t, 3, "a", "b")
		for _, m := range c.members {
			m.rules.readyLiterally = literally
		}
		c.members[ID{"a", 0}].HandleConfig(c.now, config(2, 5, "a", "b"))
		c.run(1)
		if _, gone := c.serving(); (gone > 0) != literally {
			t.Errorf("literally %v: %d blocks are served by no member", literally, gone)
		}
	}
}

// TestRestartsAreNoDuplicates: a member that restarts delays the drop of others. It is reported as
// a duplicate only if its former process answers again.
func TestRestartsAreNoDuplicates(t *testing.T) {
	c := newCluster(t, 3, "a", "b")
	m := c.members[ID{"a", 0}]
	report := func(instance uint64) []ID {
		m.HandleReport(c.now, c.now, nil, Report{ID: ID{"b", 1}, Instance: instance,
			State: State{Current: config(1, 3, "a", "b")}})
		return m.Progress().Duplicates
	}
	for instance := uint64(101); instance < 110; instance++ {
		if d := report(instance); len(d) > 0 || !m.twinned() {
			t.Errorf("restart %d: duplicates %v, delays the drop %v", instance, d, m.twinned())
		}
	}
	if d := report(108); !slices.Equal(d, []ID{{"b", 1}}) {
		t.Errorf("the former process answers again: duplicates %v", d)
	}
	c.now += tick
	m.HandleTime(c.now)
	if d := m.Progress().Duplicates; len(d) > 0 || m.twinned() {
		t.Errorf("after a while: duplicates %v, delays the drop %v", d, m.twinned())
	}
	// A new process asks while the answer of the former one is under way.
	sent := c.now
	c.now++
	m.HandleQuestion(c.now, ID{"b", 1}, 200)
	m.HandleReport(c.now, sent, nil, Report{ID: ID{"b", 1}, Instance: 108})
	if d := m.Progress().Duplicates; len(d) > 0 || m.peer(ID{"b", 1}).instance != 200 {
		t.Errorf("a late answer of the former process: duplicates %v", d)
	}
	m.HandleQuestion(c.now, m.id, 300)
	if d := m.Progress().Duplicates; !slices.Equal(d, []ID{m.id}) {
		t.Errorf("a process with the same ID asks: duplicates %v", d)
	}
}

// TestOrdinalAboveTheCountWaits: pods may come before their configuration.
func TestOrdinalAboveTheCountWaits(t *testing.T) {
	c := newCluster(t, 3, "a", "b")
	m := c.start(ID{"a", 3}, config(1, 3, "a", "b"))
	c.run(2)
	if ready, why := m.Ready(); ready || why == "" {
		t.Errorf("ready %v %q", ready, why)
	}
	c.complete("with a pod too many")
}

// TestDrainedMembers: members whose ordinal is gone answer without blocks, because a Querier may
// still ask them, until they reach no peer or learn of another epoch.
func TestDrainedMembers(t *testing.T) {
	c := newCluster(t, 5, "a", "b")
	c.publish(config(2, 3, "a", "b"))
	c.run(10)
	if !c.done(2) {
		t.Fatal("the hand-over did not end")
	}
	m := c.members[ID{"a", 4}]
	if ready, why := m.Ready(); !ready {
		t.Errorf("not ready: %s", why)
	}
	for _, b := range c.blocks {
		if m.Serves(b.ID) {
			t.Errorf("block %s is still served", b.ID)
		}
	}
	c.complete("with drained members")
	c.cut[m.id] = true
	c.run(2)
	if ready, _ := m.Ready(); ready {
		t.Error("ready although no peer was reached for two waits")
	}
}

// TestForce: a zone is gone for good. Nothing is dropped until the operator forces it, and AtRisk
// names the blocks before.
func TestForce(t *testing.T) {
	c := newCluster(t, 3, "a", "b")
	c.groups = 5
	var gone []ID
	for ordinal := range 5 {
		gone = append(gone, ID{"b", ordinal})
	}
	c.stop(gone...)
	c.publish(config(2, 5, "a", "b"))
	c.stop(gone...)
	c.run(10)
	m := c.members[ID{"a", 0}]
	if c.done(2) || m.state.Committed || len(m.lacking()) != 5 {
		t.Errorf("without force: %+v lacks %v", m.state, m.lacking())
	}
	leaving := m.leaving()
	if risk := m.AtRisk(); len(leaving) == 0 || !slices.Equal(risk, leaving) {
		t.Errorf("at risk are %v, want %v", risk, leaving)
	}
	if err := m.Force(c.now, 3, gone); err == nil {
		t.Error("an epoch that is not in progress was forced")
	}
	for _, without := range [][]ID{nil, {{"z", 99}}, {{"a", 5}}, {{"b", 0}, {"a", 0}}} {
		if err := m.Force(c.now, 2, without); err == nil || len(m.want.Forced) > 0 {
			t.Errorf("forced without %v: %v, %v", without, err, m.want.Forced)
		}
	}
	for _, m := range c.members {
		if err := m.Force(c.now, 2, gone); err != nil {
			t.Error(err)
		}
	}
	for range 10 {
		c.run(1)
		c.complete("after force")
	}
	if !c.done(2) {
		t.Error("the hand-over did not end after force")
	}
	// A forced member comes back, with its old file: it takes the epoch from its peers.
	back := c.start(ID{"b", 0}, config(1, 3, "a", "b"))
	if ready, _ := back.Ready(); ready {
		t.Error("a member that was forced away is ready before it asked a peer")
	}
	c.run(1)
	c.complete("after a forced member came back")
}

// TestForceRelaxesNoMoreThanAsked: addresses of forced members may stay silent, and a group needs
// not have been open if a member of it was forced. Others delay the drop as before.
func TestForceRelaxesNoMoreThanAsked(t *testing.T) {
	gone := []ID{{"b", 1}, {"b", 3}}
	for name, f := range map[string]struct {
		silent []Silence
		want   []string
	}{
		"forced members that answered here": {
			silent: []Silence{{Address: "1", Of: gone[0]}, {Address: "2", Of: gone[1]}},
		},
		"another member": {
			silent: []Silence{{Address: "1", Of: gone[0]}, {Address: "2", Of: ID{"b", 2}}},
			want:   []string{"2"},
		},
		"addresses that never answered, as many as forced members": {
			silent: []Silence{{Address: "1"}, {Address: "2"}},
		},
		"one more of them": {
			silent: []Silence{{Address: "1", Of: gone[0]}, {Address: "2"}, {Address: "3"}},
			want:   []string{"3"},
		},
		"a name without addresses": {
			silent: []Silence{{Address: "1", Name: true}}, want: []string{"1"},
		},
	} {
		m := NewMember(Options{}, ID{"a", 0}, 1,
			State{Current: config(1, 3, "a", "b"), Next: config(2, 5, "a", "b")}, 0)
		m.HandleSilent(0, f.silent)
		if err := m.Force(0, 2, gone); err != nil {
			t.Fatal(err)
		}
		if got := m.unexplained(); !slices.Equal(got, f.want) {
			t.Errorf("%s: %q delay the drop, want %q", name, got, f.want)
		}
	}
	c := newCluster(t, 3, "a", "b")
	c.groups = 5
	c.publish(config(2, 5, "a", "b"))
	c.run(1)
	m := c.members[ID{"a", 0}]
	m.readyAt = c.now
	if err := m.Force(c.now, 2, []ID{{"b", 3}}); err != nil {
		t.Error(err)
	}
	if m.opened() {
		t.Error("a forced member of another group makes the group count as open")
	}
	if err := m.Force(c.now, 2, []ID{{"b", 0}}); err != nil || !m.opened() {
		t.Errorf("a group whose other member was forced has to be open: %v", err)
	}
}

// TestQueuedEpoch: an epoch that is read during a change waits for its end, and the member says so.
func TestQueuedEpoch(t *testing.T) {
	c := newCluster(t, 2, "a", "b")
	c.groups = 3
	c.publish(config(2, 3, "a", "b"))
	late := c.members[ID{"a", 2}]
	c.stop(ID{"a", 2})
	c.run(2)
	m := c.members[ID{"a", 0}]
	m.HandleConfig(c.now, config(3, 2, "a", "b"))
	if p := m.Progress(); p.Queued != 3 || !strings.Contains(p.Waits, "a/2") {
		t.Errorf("queued %d, waits for %q", p.Queued, p.Waits)
	}
	c.members[ID{"a", 2}] = late
	c.publish(config(3, 2, "a", "b"))
	c.run(10)
	if p := m.Progress(); p.Queued != 0 || !c.done(3) {
		t.Errorf("queued %d, done %v", p.Queued, c.done(3))
	}
}

// TestFreshStart: all pods start at once, without a record. Without peers a member waits, then
// starts loudly.
func TestFreshStart(t *testing.T) {
	c := &cluster{
		t: t, members: map[ID]*Member{}, records: map[ID]State{}, cut: map[ID]bool{}, groups: 2,
	}
	c.publish(config(1, 2, "a", "b"))
	c.run(4)
	if !c.done(1) {
		t.Error("fresh members did not commit the first epoch")
	}
	m := NewMember(Options{}, ID{"a", 0}, 1, State{}, 0)
	m.HandleBlocks(0, nil)
	m.HandleConfig(0, config(1, 2, "a", "b"))
	for now, want := range map[time.Duration]bool{time.Minute: false, 5 * time.Minute: true} {
		c := clone(m)
		c.HandleTime(now)
		if ready, why := c.Ready(); ready != want || c.alone != want {
			t.Errorf("after %s: ready %v %s, alone %v", now, ready, why, c.alone)
		}
	}
}

// TestNewBlocksDuringAHandOver: a block that appears during a hand-over has to be confirmed too.
// When the Queriers know the new groups, the old owner takes on no more, so that the hand-over ends
// although blocks keep coming.
func TestNewBlocksDuringAHandOver(t *testing.T) {
	c := newCluster(t, 3, "a", "b")
	c.groups = 5
	c.publish(config(2, 5, "a", "b"))
	for i := range 20 {
		c.blocks = append(c.blocks, Block{ID: ulid.ULID{2, 15: byte(i)}, Warm: true})
		for _, m := range c.members {
			m.HandleBlocks(c.now, slices.Clone(c.blocks))
		}
		c.complete("with a new block")
		c.run(1)
		c.complete("a wait after a new block")
	}
	if !c.done(2) {
		t.Error("the hand-over did not end while blocks came")
	}
}

// TestGaps shows where the promise cannot hold.
func TestGaps(t *testing.T) {
	t.Run("one zone: a restart is a gap", func(t *testing.T) {
		c := newCluster(t, 3, "a")
		c.stop(ID{"a", 1})
		if _, gone := c.serving(); gone == 0 {
			t.Error("no gap, but the documents promise none")
		}
		c.start(ID{"a", 1}, config(1, 3, "a"))
		c.run(1)
		c.complete("after the restart")
	})
	t.Run("a lost disk and no peer", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		id, next := ID{"a", 0}, config(2, 5, "a", "b")
		c.publish(next)
		c.stop(id)
		delete(c.records, id)
		c.cut[id] = true
		m := c.start(id, next)
		c.run(2)
		if law, _ := c.serving(); law == len(c.blocks) || !m.alone {
			t.Errorf("no gap, or it was silent: alone %v", m.alone)
		}
		// The network heals. The Queriers know after a wait what the member serves then.
		delete(c.cut, id)
		c.groups = 5
		m.HandleReport(c.now, c.now, nil, c.members[ID{"b", 0}].Report(nil))
		if !m.Progress().Alone {
			t.Error("the member is not reported before the Queriers have asked it again")
		}
		c.run(2)
		if m.Progress().Alone {
			t.Error("the member is still reported after it has reached a peer")
		}
		c.complete("after the member has reached a peer")
		c.run(10)
		if !c.done(2) {
			t.Error("the hand-over did not end")
		}
	})
	t.Run("replicas are reduced before the count", func(t *testing.T) {
		c := newCluster(t, 3, "a", "b")
		c.groups = 5
		c.publish(config(2, 5, "a", "b"))
		c.run(10)
		c.complete("with 5 shards")
		c.stop(ID{"a", 3}, ID{"a", 4}, ID{"b", 3}, ID{"b", 4})
		if _, gone := c.serving(); gone == 0 {
			t.Error("no gap")
		}
		// Changing the count now brings the blocks back, as far as the members of the rest know.
		for _, m := range c.members {
			m.HandleConfig(c.now, config(3, 3, "a", "b"))
		}
		c.run(2)
		c.complete("after the count followed")
	})
}
