package membership

import (
	"fmt"
	"slices"
	"time"

	"larder/shard"
)

// logged is what the log knows already.
type logged struct {
	state      shard.State
	duplicates []shard.ID
	silent     []string
	alone      bool
	queued     uint64
}

// note exports the state of the Member, and logs what changed.
func (d *Driver) note() {
	state, p, s := d.member.State(), d.member.Progress(), d.Snapshot()
	m := d.metrics
	m.ready.Set(oneIf(s.Ready))
	m.alone.Set(oneIf(p.Alone))
	for name, c := range map[string]shard.Config{
		"configured": d.opts.Config, "next": state.Next, "current": state.Current,
	} {
		m.epoch.WithLabelValues(name).Set(float64(c.Epoch))
		m.count.WithLabelValues(name).Set(float64(c.Count))
	}
	m.leaving.Set(float64(p.Leaving))
	m.lacking.Set(float64(len(p.Lacking)))
	m.unconfirmed.Set(float64(len(p.Unconfirmed)))
	m.silent.Set(float64(len(p.Silent)))
	m.foreign.Set(float64(len(d.foreign)))
	m.duplicates.Set(float64(len(p.Duplicates)))

	old := d.logged
	d.logged = logged{state, p.Duplicates, p.Silent, p.Alone, p.Queued}
	switch {
	case state.Next.Epoch > 1 && state.Current.IsZero() && !p.Alone &&
		!state.Next.Equal(old.state.Next):
		d.log.Warn("no member that answers has a record of epochs, starting as a new cluster: "+
			"blocks may be missing if this is not one", "epoch", state.Next.Epoch,
			"count", state.Next.Count, "zones", state.Next.Zones)
	case !state.Next.Equal(old.state.Next) && !state.Next.IsZero():
		d.log.Info("took on an epoch", "epoch", state.Next.Epoch, "count", state.Next.Count,
			"zones", state.Next.Zones, "from", state.Current.Epoch)
	case state.Committed && !old.state.Committed:
		d.log.Info("epoch is committed", "epoch", state.Next.Epoch, "leaving", p.Leaving)
	case !state.Current.Equal(old.state.Current):
		d.log.Info("serving the blocks of one epoch", "epoch", state.Current.Epoch,
			"count", state.Current.Count, "zones", state.Current.Zones)
	}
	if len(p.Duplicates) > 0 && !slices.Equal(p.Duplicates, old.duplicates) {
		d.log.Error("two processes have one shard, nothing is dropped",
			"duplicates", fmt.Sprint(d.duplicates(p.Duplicates)))
	}
	if !slices.Equal(p.Silent, old.silent) {
		d.log.Warn("peers that do not answer changed", "silent", p.Silent)
	}
	if p.Queued != 0 && p.Queued != old.queued {
		d.log.Warn("epoch of the configuration waits for the end of the change in progress",
			"epoch", p.Queued, "in_progress", state.Next.Epoch, "waits_for", p.Waits)
	}
	if p.Alone && !old.alone {
		d.log.Error("started without a record of epochs and without a peer, blocks may be missing")
	}
	d.noteRelease()
}

// noteRelease records since when the process may be removed.
func (d *Driver) noteRelease() {
	if ok, _ := d.removable(); !ok {
		d.released = time.Time{}
	} else if d.released.IsZero() {
		d.released = time.Now()
	}
}
