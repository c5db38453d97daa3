package membership

import (
	"testing"
	"testing/synctest"
	"time"

	"larder/shard"
)

// TestQueuedEpoch: an edit during a change is logged once, and the status has it.
func TestQueuedEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2).known(3)
		defer c.stopAll()
		c.begin(conf(1, 2))
		c.reconfigure(conf(2, 3))
		c.pass(time.Minute)
		c.reconfigure(conf(3, 2))
		c.pass(time.Minute)
		s := c.statusOf(shard.ID{Zone: "a", Ordinal: 0})
		if s.Progress.Queued != 3 || s.State.Next.Epoch != 2 {
			t.Errorf("epoch %d waits for the end of the change to %d, want 3 and 2",
				s.Progress.Queued, s.State.Next.Epoch)
		}
		if n := c.log.count("waits for the end of the change"); n != len(c.processes) {
			t.Errorf("%d processes logged %d warnings", len(c.processes), n)
		}
	})
}
