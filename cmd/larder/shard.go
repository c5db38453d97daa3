package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"google.golang.org/grpc/peer"

	"larder/internal/datadir"
	"larder/internal/redaction"
	"larder/internal/reload"
	"larder/internal/web"
	"larder/shard"
	"larder/shard/membership"
	"larder/store/catalog"
	"larder/store/storepb"
	"larder/store/warm"
)

// ordinalVariable is the environment variable with the ordinal of a pod.
const ordinalVariable = "LARDER_ORDINAL"

// shardConfig has the flags of shards. The zero value serves all blocks.
type shardConfig struct {
	count, epoch           int  // 0: not given
	ordinal                *int // nil: not given
	zone                   string
	zones                  []string
	peers                  []membership.Peer
	clientYAML             content
	file                   string
	querierWait, startWait time.Duration // 0: not given

	// set by load
	id     shard.ID
	parsed shard.Config
	name   string // of the cluster, in the file
	client *membership.ClientConfig
}

func (c *shardConfig) flags(f flagger) {
	flag(f, "shard.count", "0", &c.count, integer(0),
		"Number of shards in each zone. A process serves the blocks of its ordinal. "+
			"0 = serve all blocks, unless --shard.config-file is set.")
	flag(f, "shard.epoch", "", &c.epoch, integer(1),
		"Number of this configuration. Raise it with each change of --shard.count or "+
			"--shard.zones. Default: 1.")
	flag(f, "shard.config-file", "", &c.file, text,
		"Path to a YAML file with epoch, count and zones, and optionally the name of the "+
			"cluster, instead of --shard.count. It is watched: a change needs no restart.",
	).PlaceHolder("<file-path>")
	flag(f, "shard.ordinal", "", &c.ordinal, func(s string) (*int, error) {
		n, err := integer(0)(s)
		return &n, err
	}, "Ordinal of this process, from 0. Default: the environment variable "+ordinalVariable+
		", else the number at the end of the host name.")
	flag(f, "shard.zone", "", &c.zone, text,
		"Zone of this process. Ordinal i owns the same blocks in every zone. "+
			`Default: "default", for a single zone.`)
	listFlag(f, "shard.zones", &c.zones, text,
		"Zone that has all shards, of --shard.count. Repeat it for each zone. "+
			"Default: --shard.zone.").PlaceHolder("ZONE")
	listFlag(f, "shard.peers", &c.peers, membership.ParsePeer,
		"HTTP address of the other processes, host:port or https://host:port. All addresses of a "+
			"DNS name are asked, such as those of a headless Service that has pods before they "+
			"are ready. May be repeated.").PlaceHolder("ADDRESS")
	contentFlags(f, &c.clientYAML, "shard.peers-config",
		"TLS and authentication towards peers, in the format of Prometheus's HTTP clients "+
			"(tls_config, basic_auth, authorization). Default: none.")
	flag(f, "shard.querier-wait", "", &c.querierWait, positive(goDuration),
		"Time for which a block that moved stays served after its new owners have confirmed it: "+
			"the Querier's reload of its endpoint file, its refresh of DNS, two calls of Info "+
			"and the longest query. Default: 10m.")
	flag(f, "shard.start-wait", "", &c.startWait, positive(goDuration),
		"Time for which a process that reaches no peer waits before it serves without one. "+
			"Blocks may be missing from answers then. Default: 5m.")
}

// on reports whether blocks are split into shards.
func (c *shardConfig) on() bool { return c.count > 0 || c.file != "" }

func (c *shardConfig) load() (err error) {
	if !c.on() {
		for flag, given := range map[string]bool{
			"ordinal": c.ordinal != nil, "zone": c.zone != "", "zones": len(c.zones) > 0,
			"peers": len(c.peers) > 0, "peers-config": c.clientYAML.inline != "",
			"peers-config-file": c.clientYAML.path != "", "epoch": c.epoch > 0,
			"querier-wait": c.querierWait > 0, "start-wait": c.startWait > 0,
		} {
			if given {
				return fmt.Errorf("--shard.%s needs --shard.count or --shard.config-file", flag)
			}
		}
		return nil
	}
	if c.zone == "" {
		c.zone = "default"
	}
	switch {
	case c.file != "" && (c.count > 0 || len(c.zones) > 0):
		return errors.New("--shard.config-file has count and zones: " +
			"remove --shard.count and --shard.zones")
	case c.file != "" && c.epoch > 0:
		return errors.New("--shard.config-file has the epoch: remove --shard.epoch")
	case c.file != "":
		if c.parsed, c.name, err = c.read(); err != nil {
			return err
		}
	default:
		zones := c.zones
		if len(zones) == 0 {
			zones = []string{c.zone}
		}
		c.parsed = shard.Config{
			Epoch: uint64(max(c.epoch, 1)), Count: c.count,
			Zones: slices.Sorted(slices.Values(zones)),
		}
		if err := c.parsed.Validate(); err != nil {
			return fmt.Errorf("--shard.count, --shard.zones: %w", err)
		}
		// A later epoch may be one that removes the zone of this process.
		if c.parsed.Epoch == 1 && !slices.Contains(zones, c.zone) {
			return fmt.Errorf("--shard.zone: %q is not one of --shard.zones, which are %q",
				c.zone, c.parsed.Zones)
		}
	}
	if c.parsed.Count*len(c.parsed.Zones) > 1 && len(c.peers) == 0 {
		return errors.New("--shard.peers is missing: shards must reach each other over HTTP")
	}
	ordinal, err := c.findOrdinal()
	if err != nil {
		return err
	}
	c.id = shard.ID{Zone: c.zone, Ordinal: ordinal}
	if err := c.id.Validate(); err != nil {
		return fmt.Errorf("--shard.ordinal, --shard.zone: %w", err)
	}
	c.client, err = loadClient(&c.clientYAML)
	return err
}

// read reads --shard.config-file. cluster is the name in it.
func (c *shardConfig) read() (parsed shard.Config, cluster string, err error) {
	b, err := os.ReadFile(c.file)
	if err != nil {
		return parsed, "", fmt.Errorf("--shard.config-file: %w", redaction.File(err))
	}
	parsed, cluster, err = membership.ParseConfig(b)
	if err != nil {
		err = fmt.Errorf("--shard.config-file %s: %w", c.file, err)
	}
	return parsed, cluster, err
}

// findOrdinal returns the ordinal of the process.
func (c *shardConfig) findOrdinal() (int, error) {
	if c.ordinal != nil {
		return *c.ordinal, nil
	}
	if s, ok := os.LookupEnv(ordinalVariable); ok && s != "" {
		n, err := integer(0)(s)
		if err != nil {
			return 0, fmt.Errorf("environment variable %s: %w", ordinalVariable, err)
		}
		return n, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return 0, fmt.Errorf("--shard.ordinal: the host name is unknown: %w", err)
	}
	m := regexp.MustCompile(`-([0-9]+)$`).FindStringSubmatch(name)
	if m == nil {
		return 0, fmt.Errorf("--shard.ordinal is missing: "+
			"the host name %q does not end in - and a number, and %s is not set",
			name, ordinalVariable)
	}
	return strconv.Atoi(m[1])
}

// loadClient reads a configuration of an HTTP client, nil if there is none.
func loadClient(yaml *content) (*membership.ClientConfig, error) {
	b, err := yaml.read()
	if err != nil || b == nil {
		return nil, err
	}
	client, err := config.LoadHTTPConfig(string(b))
	if err != nil {
		return nil, yaml.wrap(err)
	}
	if yaml.path != "" {
		client.SetDirectory(filepath.Dir(yaml.path))
	}
	if _, err := membership.NewClient(client, ""); err != nil { // files that it names
		return nil, yaml.wrap(err)
	}
	return client, nil
}

// openShard creates the member of this process, if blocks are split into shards.
func (b *backend) openShard(dir *datadir.Dir, reg prometheus.Registerer) error {
	c := &b.conf.shard
	if !c.on() {
		return nil
	}
	if dir == nil {
		return errors.New("--no-cache-index-header cannot be used with shards: " +
			"they keep their epochs in the data directory")
	}
	var err error
	b.shard, err = membership.New(membership.Options{
		ID: c.id, Config: c.parsed,
		Identity: membership.Identity{
			Cluster: c.name, Bucket: b.conf.bucket.parsed.Fingerprint(),
		},
		Peers: c.peers, Client: c.client,
		QuerierWait: c.querierWait, StartWait: c.startWait,
		Dir: dir.At(), LockDir: dir.Lock, Warm: b.warmForShard,
		Heat: func(blocks []ulid.ULID) []byte {
			if w := b.heat.Load(); w != nil {
				return w.Heat(blocks)
			}
			return nil
		},
		MaxHeat: warm.MaxHeatBytes,
		OnOwnership: func() {
			if b.catalog != nil { // nil while New publishes the first ownership
				b.catalog.Reassign()
			}
		},
		OnReady: func(ready bool, reason string) {
			if b.onShard != nil {
				b.onShard(ready, reason)
			}
		},
		Logger: b.logger, Registerer: reg,
	})
	if err != nil {
		return fmt.Errorf("--shard: %w", err)
	}
	return nil
}

// shardOrNil returns what selects blocks, nil for all blocks.
func (b *backend) shardOrNil() catalog.Shard {
	if b.shard == nil {
		return nil // not an interface with a nil pointer
	}
	return b.shard
}

// warmForShard reports whether a block can be confirmed to its former owner.
func (b *backend) warmForShard(id ulid.ULID) bool {
	return b.catalog.View().ByID(id) != nil && b.opened(id)
}

// takeOver warms the blocks of cur that the process takes over from others.
func (b *backend) takeOver(old, cur *catalog.View) {
	if b.shard == nil {
		return
	}
	owned := b.shard.Snapshot().Ownership
	byOwner := map[int][]*catalog.Block{}
	for _, blk := range cur.Blocks {
		if from, ok := owned.Receives(blk.ID); ok && old.ByID(blk.ID) == nil {
			byOwner[from] = append(byOwner[from], blk)
		}
	}
	for from, blocks := range byOwner {
		var ids []ulid.ULID
		for _, blk := range blocks {
			ids = append(ids, blk.ID)
		}
		b.warmer.TakeOver(blocks, func(ctx context.Context) ([]byte, error) {
			return b.shard.Heat(ctx, from, ids)
		})
	}
}

// shardRefuses returns why the shard must not answer Queriers, "" if it may.
func (b *backend) shardRefuses() string {
	if s := b.shard.Snapshot(); !s.Ready {
		return "shard " + s.Reason
	}
	return ""
}

// reloadShard returns the unit of --shard.config-file.
func (b *backend) reloadShard() reload.Unit {
	c := &b.conf.shard
	return reload.Unit{
		Kind: "shard", Files: func() []string { return []string{c.file} },
		Load: func(ctx context.Context) error {
			parsed, cluster, err := c.read()
			if err != nil {
				return err
			}
			if err := b.shard.Reconfigure(ctx, parsed, cluster); err != nil {
				return fmt.Errorf("--shard.config-file %s: %w", c.file, err)
			}
			return nil
		},
	}
}

// serveShard makes readiness wait for the shard, and returns the handler of its paths.
func (g *gateway) serveShard() http.Handler {
	b := g.backend
	if b.shard == nil {
		return nil
	}
	b.onShard = func(ready bool, reason string) {
		if ready {
			reason = ""
		} else {
			reason = "shard " + reason
		}
		g.probe.Hold(reason)
	}
	g.probe.Hold(b.shardRefuses())
	return b.shard.Handler(func(r *http.Request) error {
		address, err := netip.ParseAddrPort(r.RemoteAddr)
		if err == nil && address.Addr().Unmap().IsLoopback() || g.conf.web.enableAdmin {
			return nil
		}
		return errors.New("an epoch can be forced from the same machine only, " +
			"or with --enable-admin-operations")
	})
}

// shownShard returns the shard for the overview, nil while it is starting or stopping.
func (b *backend) shownShard(ctx context.Context) *web.Shard {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := b.shard.Status(ctx)
	if err != nil {
		return nil
	}
	shown := &web.Shard{
		Alone: s.Progress.Alone, Silent: s.Progress.Silent, Foreign: s.Foreign,
		Waits: s.Progress.Waits,
	}
	for _, d := range s.Duplicates {
		shown.Duplicates = append(shown.Duplicates, d.String())
	}
	fact := func(name, value string) {
		shown.Facts = append(shown.Facts, web.Fact{Name: name, Value: value})
	}
	fact("Member", s.ID.String())
	fact("State", describeReady(&s))
	fact("Configured", describeEpoch(s.Configured))
	fact("Serves", describeServing(s.State))
	fact("Changes to", describeEpoch(s.State.Next))
	if waits := describeWait(&s); waits != "" {
		fact("Waits for", waits)
	}
	if queued := describeQueued(&s); queued != "" {
		fact("Queued", queued)
	}
	fact("Blocks leaving", strconv.Itoa(s.Progress.Leaving))
	for _, p := range s.Peers {
		shown.Peers = append(shown.Peers, web.ShardPeer{
			Member: p.ID.String(), Address: p.Address, Ready: p.Ready, Age: p.Age,
			Serving: describeServing(p.State), ChangingTo: describeEpoch(p.State.Next),
		})
	}
	return shown
}

// describeReady says whether a member is ready, and if not, why.
func describeReady(s *membership.Status) string {
	if s.Ready {
		return "ready"
	}
	return "not ready: " + s.Reason
}

// describeWait says what the next step waits for, and how long if that is known; "" for nothing.
func describeWait(s *membership.Status) string {
	waits := s.Progress.Waits
	if left := s.Progress.Left; left > 0 {
		waits += ", in " + left.Round(time.Second).String()
	}
	return waits
}

// describeQueued says which epoch waits behind the change in progress, "" if none does.
func describeQueued(s *membership.Status) string {
	if s.Progress.Queued == 0 {
		return ""
	}
	return fmt.Sprintf("epoch %d waits for the end of the change to epoch %d", s.Progress.Queued,
		s.State.Next.Epoch)
}

// describeEpoch describes the configuration of an epoch for people.
func describeEpoch(c shard.Config) string {
	if c.IsZero() {
		return "none"
	}
	return fmt.Sprintf("epoch %d: %d shards in %s", c.Epoch, c.Count, strings.Join(c.Zones, ", "))
}

// describeServing describes the epoch whose blocks a member serves.
func describeServing(s shard.State) string {
	if s.Current.IsZero() && !s.Next.IsZero() {
		return describeEpoch(s.Next) + ", without knowing the epoch before"
	}
	return describeEpoch(s.Current)
}

// infoAsked tells the shard which clients have called Info.
type infoAsked struct {
	storepb.InfoServer
	shard *membership.Driver
}

func (i infoAsked) Info(
	ctx context.Context, req *storepb.InfoRequest,
) (*storepb.InfoResponse, error) {
	epoch := i.shard.Snapshot().Epoch // before the answer, which may be older than a later epoch
	resp, err := i.InfoServer.Info(ctx, req)
	if err != nil {
		return nil, err
	}
	if p, ok := peer.FromContext(ctx); ok {
		host, _, err := net.SplitHostPort(p.Addr.String())
		if err != nil {
			host = p.Addr.String()
		}
		i.shard.Asked(host, epoch)
	}
	return resp, nil
}
