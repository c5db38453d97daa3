package shards

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"gopkg.in/yaml.v3"

	"larder/interop/internal/fleet"
	"larder/interop/internal/gateway"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/process"
	"larder/interop/internal/programs"
)

const (
	// The bucket has blocks blocks of two hours, each with two metrics of series series and a
	// sample a minute. The chunks of dashboards do not share all of their pages with those of
	// shelf.
	blocks     = 30
	series     = 20
	shelf      = "shelf"     // queried all the time
	dashboards = "dashboard" // queried before and after a hand-over only
	samples    = blocks * series * 120
	// largest is the largest number of shards.
	largest = 5
	// host resolves to the address of every zone, for the Querier alone.
	host = "larder.shards.test"
)

// zones are the loopback addresses of the zones by their names.
func zones() map[string]string { return map[string]string{"a": "127.0.0.1", "b": "127.0.0.2"} }

// sample is a float. Its values do not compress well.
type sample struct{ t int64 }

func (s sample) T() int64                      { return s.t }
func (s sample) F() float64                    { return math.Sin(float64(s.t)) }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

// makeBucket writes the blocks.
func makeBucket(t *testing.T) string {
	t.Helper()
	bucket := &fleet.Bucket{Dir: t.TempDir()}
	for b := range int64(blocks) {
		var all []storage.Series
		var in []chunks.Sample
		start := fleet.From + b*fleet.BlockMillis
		for at := start; at < start+fleet.BlockMillis; at += 60_000 {
			in = append(in, sample{at})
		}
		for _, metric := range []string{dashboards, shelf} {
			for i := range series {
				all = append(all, storage.NewListSeries(
					labels.FromStrings("__name__", metric, "n", fmt.Sprint(i)), in,
				))
			}
		}
		dir := t.TempDir()
		if _, err := tsdb.CreateBlock(all, dir, fleet.BlockMillis,
			slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if _, err := bucket.Add(dir, map[string]string{"cluster": "eu"}); err != nil {
			t.Fatal(err)
		}
	}
	return bucket.Dir
}

// member is a process of larder.
type member struct {
	*process.Process
	zone     string
	ordinal  int
	httpAddr string
}

// cluster has the processes of all zones.
type cluster struct {
	t       *testing.T
	bin     string
	bucket  string
	config  string // the file of --shard.config-file
	wait    time.Duration
	grpc    []string // ports by ordinal, the same in all zones, that the Querier asks
	direct  []string // as grpc, that the processes listen on
	http    []string
	members []*member
}

func newCluster(t *testing.T, wait time.Duration) *cluster {
	t.Helper()
	bin, err := gateway.BuildLarder(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	ports, err := process.FreePorts(2 * largest)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{
		t: t, bin: bin, bucket: makeBucket(t), wait: wait,
		config: filepath.Join(t.TempDir(), "shards.yaml"),
	}
	for i, addr := range ports {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		if i < largest {
			c.grpc = append(c.grpc, port)
		} else {
			c.http = append(c.http, port)
		}
	}
	c.direct = c.grpc
	return c
}

// replace writes a file in one step.
func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// configure changes the configuration of all processes.
func (c *cluster) configure(epoch, count int) {
	c.t.Helper()
	replace(c.t, c.config, fmt.Sprintf("epoch: %d\ncount: %d\nzones: [a, b]\n", epoch, count))
}

// start starts the ordinals from first to last-1 in every zone. It does not wait until they are
// ready.
func (c *cluster) start(first, last int) {
	c.t.Helper()
	for zone := range zones() {
		for ordinal := first; ordinal < last; ordinal++ {
			c.startMember(zone, ordinal, c.http)
		}
	}
}

// startMember starts one shard, whose peers have these ports.
func (c *cluster) startMember(zone string, ordinal int, peers []string) {
	c.t.Helper()
	args := []string{
		"--shard.config-file=" + c.config, "--shard.zone=" + zone,
		"--shard.ordinal=" + strconv.Itoa(ordinal), "--shard.querier-wait=" + c.wait.String(),
	}
	for _, ip := range zones() {
		for _, port := range peers {
			args = append(args, "--shard.peers="+net.JoinHostPort(ip, port))
		}
	}
	ip := zones()[zone]
	c.startProcess(zone, ordinal, net.JoinHostPort(ip, c.direct[ordinal]),
		net.JoinHostPort(ip, c.http[ordinal]), args...)
}

// startProcess starts one process, with more flags.
func (c *cluster) startProcess(zone string, ordinal int, grpc, http string, more ...string) {
	c.t.Helper()
	m := &member{zone: zone, ordinal: ordinal, httpAddr: http}
	flags, err := gateway.Bucket{Dir: c.bucket, DataDir: c.t.TempDir()}.Flags()
	if err != nil {
		c.t.Fatal(err)
	}
	args := append([]string{
		"store", "--log.level=info", "--drain-delay=0s", "--http-address=" + http,
		"--grpc-address=" + grpc,
	}, append(flags, more...)...)
	m.Process, err = process.Start(c.t.Context(), process.Options{
		Name: fmt.Sprintf("larder %s/%d", zone, ordinal), Bin: c.bin, Args: args,
		Ready: process.Listening(m.httpAddr),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.members = append(c.members, m)
	c.t.Cleanup(func() {
		_ = m.Close() // it may have been killed
		if c.t.Failed() {
			c.t.Logf("the log of %s/%d:\n%s", m.zone, m.ordinal, m.Log())
		}
	})
}

// ready waits until all members below count are ready.
func (c *cluster) ready(count int) {
	c.t.Helper()
	for _, m := range c.members {
		if m.ordinal < count {
			if err := m.Wait(c.t.Context(),
				process.HTTP("http://"+m.httpAddr+"/-/ready")); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// settled waits until every member has ended the change to an epoch, with larder's own command.
func (c *cluster) settled(epoch int) {
	c.t.Helper()
	for _, m := range c.members {
		p, err := process.Start(c.t.Context(), process.Options{
			Name: "larder shard wait", Bin: c.bin,
			Args: []string{
				"shard", "wait", "--address=http://" + m.httpAddr,
				"--epoch=" + strconv.Itoa(epoch), "--timeout=5m",
			},
		})
		if err != nil {
			c.t.Fatal(err)
		}
		if <-p.Exited(); p.Err() != nil {
			c.t.Fatalf("larder shard wait: %v\n%s", p.Err(), p.Log())
		}
	}
}

// stop ends the members that match, with a signal.
func (c *cluster) stop(signal syscall.Signal, match func(*member) bool) {
	c.t.Helper()
	var left []*member
	for _, m := range c.members {
		if !match(m) {
			left = append(left, m)
			continue
		}
		if err := m.Signal(signal); err != nil {
			c.t.Fatal(err)
		}
		<-m.Exited()
	}
	c.members = left
}

// sum returns the sum of a metric over the members that match.
func (c *cluster) sum(match func(*member) bool, name string, labels ...string) float64 {
	c.t.Helper()
	sum := 0.0
	for _, m := range c.members {
		if !match(m) {
			continue
		}
		v, err := process.Metric(c.t.Context(), "http://"+m.httpAddr+"/metrics", name, labels...)
		if err != nil {
			c.t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// everyMember matches all members.
func everyMember(*member) bool { return true }

// inZone matches the members of a zone.
func inZone(zone string) func(*member) bool {
	return func(m *member) bool { return m.zone == zone }
}

// querier is a Querier with endpoint groups.
type querier struct {
	*neighbour.Component
	t         *testing.T
	c         *cluster
	endpoints string
	// serviceConfig is that of the Helm chart: a member that is not ready is not asked, and another
	// one is asked if a member is not available.
	serviceConfig string
}

// startQuerier runs `thanos query`, with more arguments, in a mount namespace in which host has the
// address of each zone.
func startQuerier(t *testing.T, c *cluster, more ...string) *querier {
	t.Helper()
	thanos := programs.Thanos(t)
	unshare := programs.Debian(t, "unshare", "util-linux")
	dir := t.TempDir()
	q := &querier{
		t: t, c: c, endpoints: filepath.Join(dir, "endpoints.yaml"),
		serviceConfig: shippedServiceConfig(t),
	}
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n")
	for _, ip := range zones() {
		fmt.Fprintf(&hosts, "%s %s\n", ip, host)
	}
	replace(t, filepath.Join(dir, "hosts"), hosts.String())
	script := filepath.Join(dir, "thanos")
	replace(t, script, fmt.Sprintf(
		"#!/bin/sh\nexec %s -m sh -c 'mount --bind %s/hosts /etc/hosts && exec %s \"$@\"' sh "+
			"\"$@\"\n",
		unshare, dir, thanos,
	))
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	q.groups(0)
	var err error
	q.Component, err = neighbour.Start(t.Context(), neighbour.Options{
		Bin: script, Name: "query", Args: append([]string{
			"--endpoint.sd-config-file=" + q.endpoints,
			"--endpoint.sd-config-reload-interval=200ms", "--store.sd-dns-interval=200ms",
			"--store.sd-dns-resolver=golang",
		}, more...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Errorf("thanos query: %v", err)
		}
		if t.Failed() {
			t.Logf("the log of the Querier:\n%s", q.Log())
		}
	})
	return q
}

// shippedServiceConfig returns the service_config of the Helm chart, as JSON.
func shippedServiceConfig(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../deploy/helm/larder/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		EndpointConfig struct {
			ServiceConfig map[string]any `yaml:"serviceConfig"`
		} `yaml:"endpointConfig"`
	}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	if len(values.EndpointConfig.ServiceConfig) == 0 {
		t.Fatal("the chart has no service_config")
	}
	config, err := json.Marshal(values.EndpointConfig.ServiceConfig)
	if err != nil {
		t.Fatal(err)
	}
	return string(config)
}

// groups gives the Querier one group for each ordinal below n, as the Helm chart writes them.
func (q *querier) groups(n int) {
	q.t.Helper()
	replace(q.t, q.endpoints, q.groupsText(n))
}

func (q *querier) groupsText(n int) string {
	if n == 0 {
		return "endpoints: []\n"
	}
	var text strings.Builder
	text.WriteString("endpoints:\n")
	for ordinal := range n {
		fmt.Fprintf(&text, "- group: true\n  address: dns+%s:%s\n  service_config: '%s'\n", host,
			q.c.grpc[ordinal], q.serviceConfig)
	}
	return text.String()
}

// knows waits until the Querier has n healthy groups.
func (q *querier) knows(n int) {
	q.t.Helper()
	if err := q.WaitStores(q.t.Context(), func(all []neighbour.Store) bool {
		healthy := 0
		for _, s := range all {
			if s.LastError == "" {
				healthy++
			}
		}
		return healthy == n && len(all) == n
	}); err != nil {
		q.t.Fatal(err)
	}
}

// count returns the samples of a metric that the Querier finds in the whole bucket.
func (q *querier) count(ctx context.Context, metric string) (int, error) {
	const end = fleet.From + blocks*fleet.BlockMillis
	no := false
	r, err := q.Instant(ctx, fmt.Sprintf("sum(count_over_time(%s[%dh]))", metric, 2*blocks+1),
		end, neighbour.Params{PartialResponse: &no})
	switch {
	case err != nil:
		return 0, err
	case !r.OK():
		return 0, fmt.Errorf("%s", r.Error)
	case len(r.Series) == 0:
		return 0, nil
	}
	n, err := strconv.ParseFloat(r.Series[0].Points[0].Value, 64)
	return int(n), err
}

// complete queries a metric n times and checks that no sample is missing.
func (q *querier) complete(metric string, n int, when string) {
	q.t.Helper()
	for i := range n {
		if got, err := q.count(q.t.Context(), metric); err != nil || got != samples {
			q.t.Errorf("%s: query %d: %d samples of %d, %v", when, i, got, samples, err)
		}
	}
}

// epoch returns the epoch that a member takes on.
func (c *cluster) epoch(m *member) int {
	c.t.Helper()
	n, err := process.Metric(c.t.Context(), "http://"+m.httpAddr+"/metrics",
		`larder_shard_epoch{state="next"}`)
	if err != nil {
		c.t.Fatal(err)
	}
	return int(n)
}
