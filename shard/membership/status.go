package membership

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"larder/shard"
)

// Status is what one process knows, for people and commands.
type Status struct {
	ID       shard.ID `json:"id"`
	Instance uint64   `json:"instance"`
	Ready    bool     `json:"ready"`
	Reason   string   `json:"reason,omitempty"` // why it is not ready
	// Configured is the last configuration that it read. State is what it has persisted.
	Configured shard.Config   `json:"configured"`
	State      shard.State    `json:"state"`
	Progress   shard.Progress `json:"progress"`
	Clients    int            `json:"clients"` // addresses that called Info lately
	Peers      []PeerStatus   `json:"peers"`
	// Duplicates are the members of which two processes run.
	Duplicates []Duplicate `json:"duplicates,omitempty"`
	// Foreign are the addresses of peers that belong to another cluster. Identity is the own one.
	Foreign  []string `json:"foreign,omitempty"`
	Identity Identity `json:"identity"`
	// Removable says that the process may be removed. If not, Needed says why.
	Removable bool   `json:"removable"`
	Needed    string `json:"needed,omitempty"`
}

// PeerStatus is the last report of a peer.
type PeerStatus struct {
	ID      shard.ID      `json:"id"`
	Address string        `json:"address"`
	Age     time.Duration `json:"age"`
	Ready   bool          `json:"ready"`
	State   shard.State   `json:"state"`
}

// Status returns what the process knows now. It fails if the process is starting or stopping, or if
// ctx ends.
func (d *Driver) Status(ctx context.Context) (s Status, err error) {
	if !d.do(ctx, func() { s = d.status() }) {
		return Status{}, errStopping
	}
	return s, nil
}

// status returns the Status. The goroutine of Run calls it.
func (d *Driver) status() Status {
	snapshot := d.Snapshot()
	d.pruneAsked(d.now())
	s := Status{
		ID: d.member.ID(), Instance: d.instance, Ready: snapshot.Ready,
		Reason: snapshot.Reason, Configured: d.opts.Config, State: d.member.State(),
		Progress: d.member.Progress(), Clients: len(d.asked),
		Foreign: d.foreign, Identity: d.opts.Identity,
	}
	for _, p := range d.seen {
		if p.id != s.ID || p.instance != s.Instance {
			s.Peers = append(s.Peers, PeerStatus{
				p.id, p.address, d.now() - p.at, p.readyFor > 0, p.state,
			})
		}
	}
	slices.SortFunc(s.Peers, func(a, b PeerStatus) int {
		return cmp.Or(cmp.Compare(a.ID.Zone, b.ID.Zone), a.ID.Ordinal-b.ID.Ordinal,
			cmp.Compare(a.Address, b.Address))
	})
	s.Duplicates = d.duplicates(s.Progress.Duplicates)
	s.Removable, s.Needed = d.removable()
	return s
}

// Reporting returns those of the given members that answered within the last minute, and therefore
// may not be gone.
func (s *Status) Reporting(ids []shard.ID) []shard.ID {
	var found []shard.ID
	for _, p := range s.Peers {
		if p.Age < time.Minute && slices.Contains(ids, p.ID) && !slices.Contains(found, p.ID) {
			found = append(found, p.ID)
		}
	}
	return found
}

// Unsettled returns what is left of the change to an epoch, empty if this process and all members
// that it knows have dropped all epochs before it.
func (s *Status) Unsettled(epoch uint64) string {
	lacks := func(id shard.ID, state shard.State) string {
		switch {
		case state.Settled(epoch):
			return ""
		case max(state.Current.Epoch, state.Next.Epoch) < epoch:
			return id.String() + " has not taken on the epoch"
		case !state.Committed && !state.Next.IsZero():
			return id.String() + " has not committed the epoch"
		}
		return id.String() + " has not dropped the blocks of the epoch before"
	}
	if why := lacks(s.ID, s.State); why != "" {
		if s.Progress.Waits != "" {
			why += ", and waits for " + s.Progress.Waits
		}
		return why
	}
	known := map[shard.ID]bool{s.ID: true}
	for _, p := range s.Peers {
		known[p.ID] = true
		if why := lacks(p.ID, p.State); why != "" {
			return why
		}
	}
	for _, zone := range s.State.Current.Zones {
		for ordinal := range s.State.Current.Count {
			if id := (shard.ID{Zone: zone, Ordinal: ordinal}); !known[id] {
				return id.String() + " has not reported"
			}
		}
	}
	return ""
}

// Admin asks a process for its status and forces epochs, for commands.
type Admin struct {
	Client *http.Client
	URL    string // of the process: http://host:port
}

// Status returns the status of the process.
func (a Admin) Status(ctx context.Context) (s Status, err error) {
	err = call(ctx, a.Client, http.MethodGet, a.URL+Prefix+"status", nil, maxReport, &s)
	return s, err
}

// AtRisk returns what force would lose.
func (a Admin) AtRisk(ctx context.Context) (r Risk, err error) {
	err = call(ctx, a.Client, http.MethodGet, a.URL+Prefix+"at-risk", nil, maxReport, &r)
	return r, err
}

// Force makes the process do without others.
func (a Admin) Force(ctx context.Context, f ForceRequest) (s Status, err error) {
	body, err := json.Marshal(f)
	if err != nil {
		return s, err
	}
	err = call(ctx, a.Client, http.MethodPost, a.URL+Prefix+"force", body, maxReport, &s)
	return s, err
}
