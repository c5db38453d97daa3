package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"larder/shard"
	"larder/shard/membership"
)

// shardCommand is `larder shard`: status, wait and force.
type shardCommand struct {
	status, wait, force *kingpin.CmdClause
	address             string
	clientYAML          content
	output              string
	epoch               int
	timeout             time.Duration
	without             []shard.ID
	confirm             bool
}

func registerShard(app *kingpin.Application) *shardCommand {
	c := &shardCommand{}
	parent := app.Command("shard", "See and steer the shards of running processes.")
	flag(parent, "address", "http://127.0.0.1:10902", &c.address, processURL,
		"URL of the HTTP port of a process.")
	contentFlags(parent, &c.clientYAML, "http-client-config",
		"TLS and authentication, in the format of Prometheus's HTTP clients.")
	c.status = parent.Command("status",
		"Print what a process knows about its shard and its peers.")
	flag(c.status, "output", "table", &c.output, oneOf("table", "json"),
		"Format: table or json.")
	c.wait = parent.Command("wait",
		"Wait until a process and all its peers have ended the change to an epoch.")
	flag(c.wait, "epoch", "", &c.epoch, integer(1), "The epoch.").Required()
	flag(c.wait, "timeout", "0s", &c.timeout, goDuration,
		"Give up with an error after this time. 0 = never.")
	c.force = parent.Command("force", "Make a process go on with an epoch without members that "+
		"are gone for good. Lists the blocks at risk first. Repeat it for each process.")
	flag(c.force, "epoch", "", &c.epoch, integer(1), "The epoch in progress.").Required()
	listFlag(c.force, "without", &c.without, memberID,
		"Member to do without: zone/ordinal. May be repeated.").PlaceHolder("ZONE/ORDINAL")
	boolFlag(c.force, "confirm", "false", &c.confirm,
		"Force the epoch. Without it the command only lists the blocks at risk.")
	return c
}

// processURL parses the URL of a process.
func processURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("%q is not a URL such as http://127.0.0.1:10902", s)
	}
	return strings.TrimSuffix(s, "/"), nil
}

// memberID parses zone/ordinal.
func memberID(s string) (shard.ID, error) {
	zone, ordinal, ok := strings.Cut(s, "/")
	n, err := integer(0)(ordinal)
	if !ok || zone == "" || err != nil {
		return shard.ID{}, fmt.Errorf("%q is not a member such as a/3", s)
	}
	return shard.ID{Zone: zone, Ordinal: n}, nil
}

func (c *shardCommand) admin() (membership.Admin, error) {
	conf, err := loadClient(&c.clientYAML)
	if err != nil {
		return membership.Admin{}, err
	}
	u, err := url.Parse(c.address)
	if err != nil {
		return membership.Admin{}, err
	}
	client, err := membership.NewClient(conf, u.Hostname())
	return membership.Admin{Client: client, URL: c.address}, err
}

// runStatus is `larder shard status`.
func (c *shardCommand) runStatus(stdout io.Writer) error {
	a, err := c.admin()
	if err != nil {
		return err
	}
	s, err := a.Status(context.Background())
	if err != nil {
		return err
	}
	if c.output == "json" {
		b, err := json.MarshalIndent(s, "", "  ")
		if err == nil {
			_, err = fmt.Fprintf(stdout, "%s\n", b)
		}
		return err
	}
	return printStatus(stdout, &s)
}

// printStatus writes a status for people.
func printStatus(out io.Writer, s *membership.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(cells ...any) {
		for i, cell := range cells {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	}
	ready := func(ok bool) string {
		if ok {
			return "ready"
		}
		return "not ready"
	}
	row("member", s.ID)
	row("state", describeReady(s))
	row("configured", describeEpoch(s.Configured))
	row("serving", describeServing(s.State))
	row("changing to", describeEpoch(s.State.Next))
	if s.State.Committed {
		row("committed", "yes")
	}
	if waits := describeWait(s); waits != "" {
		row("waits for", waits)
	}
	if queued := describeQueued(s); queued != "" {
		row("queued", queued)
	}
	row("blocks leaving", s.Progress.Leaving)
	row("clients of Info", s.Clients)
	for _, d := range s.Duplicates {
		row("duplicate", d)
	}
	if len(s.Progress.Silent) > 0 {
		row("silent", strings.Join(s.Progress.Silent, ", "))
	}
	if len(s.Foreign) > 0 {
		row("other clusters", strings.Join(s.Foreign, ", "))
	}
	if len(s.State.Forced) > 0 {
		row("forced without", s.State.Forced)
	}
	if s.Removable {
		row("removable", "yes")
	} else {
		row("removable", "no: "+s.Needed)
	}
	row()
	row("PEER", "ADDRESS", "STATE", "SERVING", "CHANGING TO", "AGE")
	for _, p := range s.Peers {
		row(p.ID, p.Address, ready(p.Ready), describeEpoch(p.State.Current),
			describeEpoch(p.State.Next), p.Age.Round(time.Second))
	}
	return w.Flush()
}

// pollEvery is the interval at which `larder shard wait` asks.
const pollEvery = time.Second

// runWait is `larder shard wait`.
func (c *shardCommand) runWait(stderr io.Writer) error {
	a, err := c.admin()
	if err != nil {
		return err
	}
	ctx := context.Background()
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	last := ""
	for {
		s, err := a.Status(ctx)
		why := ""
		if errors.Is(err, membership.ErrNoShards) {
			return err
		} else if err != nil {
			why = err.Error()
		} else if why = s.Unsettled(uint64(c.epoch)); why == "" {
			return nil
		}
		if why != last && ctx.Err() == nil {
			fmt.Fprintln(stderr, why)
			last = why
		}
		t := time.NewTimer(pollEvery)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("epoch %d did not end within %s: %s", c.epoch, c.timeout, last)
		}
	}
}

// runForce is `larder shard force`.
func (c *shardCommand) runForce(stdout io.Writer) error {
	a, err := c.admin()
	if err != nil {
		return err
	}
	ctx := context.Background()
	risk, err := a.AtRisk(ctx)
	if err != nil {
		return err
	}
	s, err := a.Status(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d blocks of %s are served by no confirmed new owner:\n",
		len(risk.Blocks), s.ID)
	for _, b := range risk.Blocks {
		fmt.Fprintln(stdout, b)
	}
	if s.Progress.Waits != "" {
		fmt.Fprintf(stdout, "epoch %d waits for %s\n", risk.Epoch, s.Progress.Waits)
	}
	for _, id := range s.Reporting(c.without) {
		fmt.Fprintf(stdout, "warning: %s reports: it is not gone\n", id)
	}
	switch {
	case risk.Epoch != uint64(c.epoch):
		return fmt.Errorf("epoch %d is not in progress, but epoch %d (0 is none)", c.epoch,
			risk.Epoch)
	case len(c.without) > 0:
		if err := s.State.Forcible(s.ID, risk.Epoch, c.without); err != nil {
			return fmt.Errorf("nothing was forced: %w", err)
		}
	}
	switch {
	case len(c.without) == 0:
		return errors.New("nothing was forced: name the members to do without with --without")
	case !c.confirm:
		return errors.New("nothing was forced: add --confirm to give up the blocks above")
	}
	s, err = a.Force(ctx, membership.ForceRequest{
		Epoch: uint64(c.epoch), Without: c.without,
	})
	if err != nil {
		return err
	}
	if s.State.Settled(uint64(c.epoch)) {
		fmt.Fprintf(stdout, "%s has ended the change to epoch %d\n", s.ID, c.epoch)
		return nil
	}
	var names []string
	for _, id := range s.State.Forced {
		names = append(names, id.String())
	}
	fmt.Fprintf(stdout, "%s goes on with epoch %d without %s\n", s.ID, c.epoch,
		strings.Join(names, ", "))
	if s.Progress.Waits != "" {
		fmt.Fprintf(stdout, "it waits for %s\n", s.Progress.Waits)
	}
	return nil
}
