package membership

import (
	"net"
	"slices"
	"strings"
	"time"

	"larder/shard"
)

// Duplicate is a member of which two processes run.
type Duplicate struct {
	ID shard.ID `json:"id"`
	// Addresses are where they answer. A process that answers nowhere has the host it asks from.
	Addresses []string `json:"addresses"`
}

func (d Duplicate) String() string {
	return d.ID.String() + " at " + strings.Join(d.Addresses, " and ")
}

// thisProcess is the address of this process in a Duplicate.
const thisProcess = "this process"

// caller is a process that asked this one.
type caller struct {
	id   shard.ID
	host string
	at   time.Duration
}

// maxCallers bounds the processes that are remembered because they asked.
const maxCallers = maxAddresses

// askedBy records which process asked. Those of other clusters do not count.
func (d *Driver) askedBy(s sender, address string) {
	claim := shard.Report{ID: s.ID, Instance: s.Instance}
	if claim.Validate() != nil || d.opts.Identity.differs(s.Identity) {
		return
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if _, known := d.callers[s.Instance]; known || len(d.callers) < maxCallers {
		d.callers[s.Instance] = caller{s.ID, host, d.now()}
	}
	d.member.HandleQuestion(d.now(), s.ID, s.Instance)
}

// duplicates returns where the processes of the given members are.
func (d *Driver) duplicates(ids []shard.ID) []Duplicate {
	var found []Duplicate
	for _, id := range ids {
		at := map[uint64]string{} // by instance
		for instance, c := range d.callers {
			if c.id == id {
				at[instance] = c.host
			}
		}
		for _, s := range d.seen {
			if s.id == id {
				at[s.instance] = s.address
			}
		}
		if id == d.member.ID() {
			at[d.instance] = thisProcess
		}
		one := Duplicate{ID: id}
		for _, address := range at {
			one.Addresses = append(one.Addresses, address)
		}
		slices.Sort(one.Addresses)
		found = append(found, one)
	}
	return found
}
