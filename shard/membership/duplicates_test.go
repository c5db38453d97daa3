package membership

import (
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"larder/shard"
)

// TestRollingRestart: restarts of all processes, one after the other, are not reported as
// duplicates.
func TestRollingRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3).known(3)
		defer c.stopAll()
		c.begin(conf(1, 3))
		for _, zone := range []string{"a", "b"} {
			for ordinal := range 3 {
				id := shard.ID{Zone: zone, Ordinal: ordinal}
				c.processes[address(id)].stop()
				c.pass(10 * time.Second)
				c.start(id, conf(1, 3))
				for range 6 {
					c.pass(10 * time.Second)
					for _, p := range c.processes {
						if d := c.statusOf(p.member.ID()).Progress.Duplicates; len(d) > 0 {
							t.Errorf("after a restart of %s: duplicates %v", id, d)
						}
					}
				}
			}
		}
		if n := c.log.count("two processes have one shard"); n > 0 {
			t.Errorf("restarts were logged %d times as duplicates", n)
		}
	})
}

// TestDuplicates: two processes of one ordinal are reported with both addresses, and neither drops,
// also if peers know the address of one only.
func TestDuplicates(t *testing.T) {
	for _, hidden := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, 2).known(3)
			defer c.stopAll()
			second := "10.0.0.99:10902"
			if !hidden {
				c.peers = append(c.peers, Peer{"http", "10.0.0.99", "10902"})
			}
			c.begin(conf(1, 2))
			c.pass(wait)
			twin := shard.ID{Zone: "a", Ordinal: 0}
			c.startAt(second, twin, conf(1, 2))
			c.pass(time.Minute)
			c.reconfigure(conf(2, 3))
			c.startAll(conf(2, 3))
			c.groups = 3
			c.pass(4 * wait)
			other, listed := second, address(twin)
			if hidden {
				other = "192.0.2.1" // the address from which questions come in this test
			}
			for _, p := range c.processes {
				if p.member.State().Settled(2) && p.member.State().Current.Has(p.member.ID()) &&
					p.member.ID().Ordinal < 2 {
					t.Errorf("hidden %v: %s dropped blocks", hidden, p.member.ID())
				}
			}
			first, peer := c.statusOf(twin), c.statusOf(shard.ID{Zone: "b", Ordinal: 1})
			for _, s := range []Status{first, peer} {
				at := listed
				if s.ID == twin {
					at = thisProcess
				}
				want := []Duplicate{{ID: twin, Addresses: []string{at, other}}}
				slices.Sort(want[0].Addresses)
				for i := range s.Duplicates {
					slices.Sort(s.Duplicates[i].Addresses)
				}
				if !reflect.DeepEqual(s.Duplicates, want) {
					t.Errorf("hidden %v: %s sees duplicates %+v, want %+v", hidden, s.ID,
						s.Duplicates, want)
				}
			}
			rows := 0
			for _, p := range peer.Peers {
				if p.ID == twin {
					rows++
				}
			}
			if want := map[bool]int{false: 2, true: 1}[hidden]; rows != want {
				t.Errorf("hidden %v: the status has %d rows of %s, want %d", hidden, rows, twin,
					want)
			}
			if c.log.count(`"two processes have one shard, nothing is dropped"`) == 0 {
				t.Error("duplicates were not logged")
			}
		})
	}
}
