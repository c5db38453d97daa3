package membership

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/localfs"
	"larder/shard"
)

// cluster runs processes that reach each other through an in-memory network, in virtual time.
type cluster struct {
	t         *testing.T
	mu        sync.Mutex             // guards processes
	processes map[string]*process    // by address
	disks     map[string]localfs.Dir // by address
	peers     []Peer
	blocks    []ulid.ULID
	groups    int // of the Querier
	identity  Identity
	log       journal
}

// journal keeps the log of all processes.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

// count returns how many lines have a text.
func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), text)
}

// process is a Driver with a catalog that knows the blocks of the cluster.
type process struct {
	*Driver
	handler http.Handler
	stop    func()
	view    atomic.Pointer[map[ulid.ULID]bool] // as published
}

const wait = 2 * time.Minute

func newCluster(t *testing.T, groups int) *cluster {
	c := &cluster{
		t: t, processes: map[string]*process{}, disks: map[string]localfs.Dir{}, groups: groups,
	}
	for i := range 30 {
		c.blocks = append(c.blocks, ulid.ULID{1, 15: byte(i)})
	}
	return c
}

func address(id shard.ID) string {
	return fmt.Sprintf("10.0.%d.%d:10902", id.Zone[0], id.Ordinal)
}

// RoundTrip is the network.
func (c *cluster) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	p := c.processes[r.URL.Host]
	c.mu.Unlock()
	if p == nil {
		return nil, errors.New("no process has this address")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	in := httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.String(),
		bytes.NewReader(body))
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, in)
	return w.Result(), nil
}

// start starts a process on the disk of its predecessor.
func (c *cluster) start(id shard.ID, conf shard.Config) *process {
	c.t.Helper()
	return c.startAt(address(id), id, conf)
}

// startAt starts a process at an address. Peers ask it if the address is one of theirs.
func (c *cluster) startAt(at string, id shard.ID, conf shard.Config) *process {
	c.t.Helper()
	dir, ok := c.disks[at]
	if !ok {
		dir = localfs.At(c.t.TempDir(), "larder")
		if err := dir.Make(); err != nil {
			c.t.Fatal(err)
		}
		c.disks[at] = dir
	}
	p := &process{}
	p.view.Store(&map[ulid.ULID]bool{})
	ctx, cancel := context.WithCancel(context.Background())
	changed := make(chan struct{}, 1)
	d, err := New(Options{
		ID: id, Config: conf, Identity: c.identity, Peers: c.peers, QuerierWait: wait, Dir: dir,
		Logger: slog.New(slog.NewTextHandler(&c.log, nil)),
		Warm:   func(id ulid.ULID) bool { return (*p.view.Load())[id] },
		Heat: func(blocks []ulid.ULID) []byte {
			if blocks[0] == c.blocks[1] && id.Zone == "b" {
				return make([]byte, 101) // more than MaxHeat
			}
			return fmt.Appendf(nil, "%s: %d blocks", id, len(blocks))
		},
		MaxHeat: 100,
		OnOwnership: func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range d.polls.names {
		d.polls.names[i].client.Transport = c
	}
	p.Driver = d
	p.handler = d.Handler(func(*http.Request) error { return nil })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.Run(ctx)
	}()
	catalog := make(chan struct{})
	go func() {
		defer close(catalog)
		for {
			p.publish(ctx, c.blocks)
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	p.stop = func() {
		cancel()
		<-ended
		<-catalog
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.processes, at)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processes[at] = p
	return p
}

// publish does what a catalog does.
func (p *process) publish(ctx context.Context, all []ulid.ULID) {
	for ctx.Err() == nil {
		owns, number := p.Ownership()
		view := map[ulid.ULID]bool{}
		var blocks []shard.Block
		for _, id := range all {
			if owns(id) {
				view[id] = true
				blocks = append(blocks, shard.Block{ID: id})
			}
		}
		if p.HandleBlocks(ctx, blocks, number) {
			p.view.Store(&view)
			p.Applied(ctx, number)
			return
		}
	}
}

func (c *cluster) startAll(conf shard.Config) {
	for _, zone := range conf.Zones {
		for ordinal := range conf.Count {
			id := shard.ID{Zone: zone, Ordinal: ordinal}
			if c.processes[address(id)] == nil {
				c.start(id, conf)
			}
		}
	}
}

// begin starts all processes of a new cluster, and waits until they serve.
func (c *cluster) begin(conf shard.Config) {
	c.startAll(conf)
	time.Sleep(time.Minute)
	synctest.Wait()
}

// pass lets time pass while a Querier asks every member of its groups.
func (c *cluster) pass(d time.Duration) {
	c.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, p := range c.processes {
			if s := p.Snapshot(); s.Ready && p.member.ID().Ordinal < c.groups {
				p.Asked("querier", s.Epoch)
			}
		}
		c.complete()
	}
}

// complete fails the test if a Querier could miss a block.
func (c *cluster) complete() {
	c.t.Helper()
	for _, b := range c.blocks {
		lawful := false
		for ordinal := range c.groups {
			members, serving := 0, 0
			for _, p := range c.processes {
				if p.Snapshot().Ready && p.member.ID().Ordinal == ordinal {
					members++
					if (*p.view.Load())[b] {
						serving++
					}
				}
			}
			lawful = lawful || members > 0 && members == serving
		}
		if !lawful {
			c.t.Errorf("a Querier may miss block %s", b)
			return
		}
	}
}

func (c *cluster) reconfigure(conf shard.Config) {
	c.t.Helper()
	for _, p := range c.processes {
		if p.member.ID().Zone == "z" {
			continue // of another cluster
		}
		if err := p.Reconfigure(context.Background(), conf, ""); err != nil {
			c.t.Error(err)
		}
	}
}

func (c *cluster) statusOf(id shard.ID) (s Status) {
	c.t.Helper()
	a := Admin{&http.Client{Transport: c}, "http://" + address(id)}
	s, err := a.Status(context.Background())
	if err != nil {
		c.t.Error(err)
	}
	return s
}

func (c *cluster) stopAll() {
	for _, p := range c.processes {
		p.stop()
	}
}

func conf(epoch uint64, count int) shard.Config {
	return shard.Config{Epoch: epoch, Count: count, Zones: []string{"a", "b"}}
}

// known makes peers of all ordinals below n.
func (c *cluster) known(n int) *cluster {
	for _, zone := range []string{"a", "b"} {
		for ordinal := range n {
			host, port, _ := net.SplitHostPort(address(shard.ID{Zone: zone, Ordinal: ordinal}))
			c.peers = append(c.peers, Peer{"http", host, port})
		}
	}
	return c
}

// TestHandOver: 2 -> 3 -> 2 shards in two zones. No block is missing at any time, pods that go away
// are kept until the end, and a restart on the same disk moves nothing.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2).known(3)
		defer c.stopAll()
		c.begin(conf(1, 2))
		c.complete()
		c.pass(wait)

		c.reconfigure(conf(2, 3))
		c.startAll(conf(2, 3))
		c.pass(time.Minute)
		if s := c.statusOf(shard.ID{Zone: "a", Ordinal: 0}); s.Progress.Leaving == 0 ||
			s.Unsettled(2) == "" {
			t.Errorf("in the hand-over: %+v", s)
		}
		// A new owner asks the former one of its own zone what to warm, and then the others.
		for first, want := range []string{"b/1: 3 blocks", "a/1: 2 blocks"} {
			heat, err := c.processes[address(shard.ID{Zone: "b", Ordinal: 2})].Heat(t.Context(), 1,
				c.blocks[first:3])
			if err != nil || string(heat) != want {
				t.Errorf("heat: %s, %v", heat, err)
			}
		}
		c.groups = 3
		c.pass(3 * wait)
		if why := ptr(c.statusOf(shard.ID{Zone: "b", Ordinal: 1})).Unsettled(2); why != "" {
			t.Errorf("the hand-over to 3 shards did not end: %s", why)
		}

		id := shard.ID{Zone: "a", Ordinal: 1}
		before := c.processes[address(id)].Snapshot().Ownership
		c.processes[address(id)].stop()
		c.pass(time.Minute)
		again := c.start(id, conf(2, 3))
		c.pass(2 * time.Minute)
		if !again.Snapshot().Ready || !again.Snapshot().Ownership.Equal(before) {
			t.Errorf("after a restart: %+v", again.Snapshot())
		}

		last := shard.ID{Zone: "b", Ordinal: 2}
		if code, text := c.downscale(last, "POST"); code != http.StatusConflict ||
			!strings.Contains(text, "change the count first") {
			t.Errorf("before the count: %d %s", code, text)
		}
		c.reconfigure(conf(3, 2))
		c.pass(time.Minute)
		if code, text := c.downscale(last, "POST"); code != http.StatusConflict {
			t.Errorf("in the hand-over: %d %s", code, text)
		}
		c.pass(3 * wait)
		code, text := c.downscale(last, "POST")
		if code != http.StatusOK || !strings.HasPrefix(text, `{"timestamp":`) {
			t.Errorf("after the hand-over: %d %s", code, text)
		}
		p := c.processes[address(last)]
		if s := p.Snapshot(); !s.Ready || len(*p.view.Load()) > 0 {
			t.Errorf("a process whose ordinal is gone must answer without blocks: %+v", s)
		}
		c.groups = 2
		c.pass(time.Minute)
		if _, again := c.downscale(last, "POST"); again != text {
			t.Errorf("the timestamp moved: %s, before %s", again, text)
		}
		if code, _ := c.downscale(last, "DELETE"); code != http.StatusOK {
			t.Errorf("DELETE: %d", code)
		}
	})
}

func ptr[T any](v T) *T { return &v }

func (c *cluster) downscale(id shard.ID, method string) (int, string) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "http://"+address(id)+Prefix+"prepare-delayed-downscale", nil)
	c.processes[address(id)].handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// TestForce: zone b is gone for good. Nothing is dropped until each member was forced, and at-risk
// lists what it would lose.
func TestForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2).known(3)
		defer c.stopAll()
		c.begin(conf(1, 2))
		for ordinal := range 2 {
			c.processes[address(shard.ID{Zone: "b", Ordinal: ordinal})].stop()
		}
		c.reconfigure(conf(2, 3))
		c.start(shard.ID{Zone: "a", Ordinal: 2}, conf(2, 3))
		c.pass(2 * wait)
		c.groups = 3
		zero := shard.ID{Zone: "a", Ordinal: 0}
		s := c.statusOf(zero)
		if len(s.Progress.Lacking) != 3 || !strings.Contains(s.Unsettled(2), "b/0, b/1, b/2") {
			t.Errorf("without a zone: %+v, %s", s.Progress, s.Unsettled(2))
		}
		admin := Admin{&http.Client{Transport: c}, "http://" + address(zero)}
		risk, err := admin.AtRisk(context.Background())
		if err != nil || risk.Epoch != 2 || len(risk.Blocks) != s.Progress.Leaving {
			t.Errorf("at risk: %+v, %v", risk, err)
		}
		f := ForceRequest{Epoch: 3, Without: s.Progress.Lacking}
		if _, err := admin.Force(context.Background(), f); err == nil ||
			!strings.Contains(err.Error(), "409") {
			t.Errorf("force of another epoch: %v", err)
		}
		f.Epoch = 2
		typo := ForceRequest{Epoch: 2, Without: []shard.ID{{Zone: "z", Ordinal: 99}}}
		if _, err := admin.Force(context.Background(), typo); err == nil ||
			!strings.Contains(err.Error(), "takes part neither in epoch 1 nor in epoch 2") {
			t.Errorf("force of a member that does not exist: %v", err)
		}
		for _, p := range c.processes {
			admin.URL = "http://" + address(p.member.ID())
			s, err := admin.Force(context.Background(), f)
			if err != nil || !s.State.Settled(2) && !slices.Equal(s.State.Forced, f.Without) ||
				strings.Contains(s.Progress.Waits, "b/0") {
				t.Errorf("forced without %v, waits for %q, %v", s.State.Forced,
					s.Progress.Waits, err)
			}
		}
		running := []shard.ID{{Zone: "a", Ordinal: 1}}
		if got := s.Reporting(append(running, f.Without...)); !slices.Equal(got, running) {
			t.Errorf("members that report: %v, want %v", got, running)
		}
		c.pass(3 * wait)
		if s := c.statusOf(zero); !s.State.Settled(2) {
			t.Errorf("after force: %+v", s)
		}
	})
}

// TestOtherClusters: an address of the peers belongs to another cluster. Its reports are refused,
// logged once and shown, and changes go on without it.
func TestOtherClusters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2).known(3)
		defer c.stopAll()
		stray := shard.ID{Zone: "z", Ordinal: 0}
		host, port, _ := net.SplitHostPort(address(stray))
		c.peers = append(c.peers, Peer{"http", host, port})
		c.identity = Identity{Bucket: "other"}
		p := c.start(stray, shard.Config{Epoch: 7, Count: 1, Zones: []string{"z"}})
		time.Sleep(6 * time.Minute) // it starts alone, and commits
		synctest.Wait()
		if s := p.member.State(); s.Current.Epoch != 7 {
			t.Fatalf("the other cluster: %+v", s)
		}
		c.identity.Bucket = "own"
		c.begin(conf(1, 2))
		c.groups = 2
		c.pass(wait)
		first := shard.ID{Zone: "a", Ordinal: 0}
		s := c.statusOf(first)
		if !s.Ready || !s.State.Current.Equal(conf(1, 2)) ||
			!slices.Equal(s.Foreign, []string{address(stray)}) {
			t.Errorf("beside another cluster: %+v", s)
		}
		if n := c.log.count("belongs to another cluster"); n != 8 {
			// Each of four processes sees it, and it sees four.
			t.Errorf("logged %d times, want 8", n)
		}
		c.reconfigure(conf(2, 3))
		c.startAll(conf(2, 3))
		c.groups = 3
		c.pass(4 * wait)
		if s := c.statusOf(first); !s.State.Settled(2) {
			t.Errorf("the change did not end beside another cluster: %+v", s)
		}
	})
}

// TestIdentities: names decide if both sides have one, then the buckets. An older version has none.
func TestIdentities(t *testing.T) {
	for _, c := range []struct {
		a, b    Identity
		differs bool
	}{
		{Identity{"", "x"}, Identity{"", "x"}, false},
		{Identity{"", "x"}, Identity{"", "y"}, true},
		{Identity{"n", "x"}, Identity{"n", "y"}, false},
		{Identity{"n", "x"}, Identity{"m", "x"}, true},
		{Identity{"n", "x"}, Identity{"", "x"}, false},
		{Identity{"n", "x"}, Identity{"", "y"}, true},
		{Identity{"n", "x"}, Identity{}, false},
	} {
		if c.a.differs(c.b) != c.differs || c.b.differs(c.a) != c.differs {
			t.Errorf("%+v and %+v: differs %v, want %v", c.a, c.b, !c.differs, c.differs)
		}
	}
	text := "{epoch: 1, count: 1, zones: [a], cluster: metrics}"
	if _, name, err := ParseConfig([]byte(text)); err != nil || name != "metrics" {
		t.Errorf("name %q, %v", name, err)
	}
	long := strings.Repeat("a", maxClusterBytes+1)
	if _, _, err := ParseConfig([]byte(strings.Replace(text, "metrics", long, 1))); err == nil {
		t.Error("no error for a long name")
	}
}

// TestForceIsForOperators: a request that may not force is rejected, and so is one that a page of
// another site makes.
func TestForceIsForOperators(t *testing.T) {
	d, err := New(Options{
		ID: shard.ID{Zone: "a"}, Dir: localfs.At(t.TempDir()),
		Config: shard.Config{Epoch: 1, Count: 1, Zones: []string{"a"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := d.Handler(func(*http.Request) error { return errors.New("only from this machine") })
	for origin, want := range map[string]string{
		"": "only from this machine", "https://evil.example": "cross-origin",
	} {
		r := httptest.NewRequest("POST", "http://larder"+Prefix+"force", strings.NewReader("{}"))
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), want) {
			t.Errorf("origin %q: %d %s", origin, w.Code, w.Body)
		}
	}
}

// TestConfigurations: documents, and changes of them.
func TestConfigurations(t *testing.T) {
	for text, want := range map[string]string{
		"{epoch: 2, count: 3, zones: [b, a]}": "",
		"":                                    "the document is empty",
		"{epoch: 2, count: 3}":                "no zones",
		"{count: 3, zones: [a]}":              "epoch is 0",
		"{epoch: 1, count: 0, zones: [a]}":    "count is 0",
		"{epoch: 1, count: 3, zones: [a, a]}": "not unique",
		"{epoch: 1, cont: 3, zones: [a]}":     "cont",
		"{epoch: x, count: 3, zones: [a]}":    "epoch",
	} {
		c, _, err := ParseConfig([]byte(text))
		switch {
		case want == "" && (err != nil || !c.Equal(conf(2, 3))):
			t.Errorf("%s: %+v, %v", text, c, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want an error with %q", text, err, want)
		}
	}
	dir := localfs.At(t.TempDir())
	if err := shard.SaveState(dir, shard.State{Current: conf(2, 3)}); err != nil {
		t.Fatal(err)
	}
	start := func(c shard.Config) (*Driver, error) {
		return New(Options{ID: shard.ID{Zone: "a"}, Dir: dir, Config: c})
	}
	if _, err := start(conf(2, 5)); err == nil ||
		!strings.Contains(err.Error(), "raise the epoch") {
		t.Errorf("a start with another content of a known epoch: %v", err)
	}
	d, err := start(conf(2, 3))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.Run(ctx)
	}()
	for c, want := range map[*shard.Config]string{
		ptr(conf(2, 4)): "raise the epoch", ptr(conf(1, 2)): "new, higher epoch",
	} {
		if err := d.Reconfigure(ctx, *c, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("change to %+v: %v, want %q", c, err, want)
		}
	}
	if err := d.Reconfigure(ctx, conf(9, 4), ""); err != nil {
		t.Error(err)
	}
	stop()
	<-ended
	if err := d.Reconfigure(context.Background(), conf(10, 4), ""); err == nil {
		t.Error("no error after the end")
	}
}

// TestPeers: the addresses of flags.
func TestPeers(t *testing.T) {
	for text, want := range map[string]string{
		"larder-peers:10902": "http://larder-peers:10902", "https://a.b:1": "https://a.b:1",
		"[::1]:2": "http://[::1]:2", "larder": "", "ftp://a:1": "", ":1": "", "http://a": "",
	} {
		p, err := ParsePeer(text)
		if (err == nil) != (want != "") || err == nil && p.String() != want {
			t.Errorf("%s: %s, %v; want %q", text, p, err, want)
		}
	}
}

// TestReportsAreChecked: a peer that answers nonsense, or too much, counts as silent.
func TestReportsAreChecked(t *testing.T) {
	valid := shard.Report{ID: shard.ID{Zone: "b"}, Instance: 1}
	many := valid
	many.Asks = slices.Repeat([]shard.Ask{{Address: "a"}}, maxAsks+1)
	huge := valid
	huge.State.Current = shard.Config{Epoch: 1, Count: 1 << 30, Zones: []string{"b"}}
	for name, body := range map[string]any{
		"valid": report{valid, Identity{"c", "b"}}, "of an older version": valid,
		"no member": shard.Report{}, "many clients": many, "huge count": huge, "text": "x",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if err := json.NewEncoder(w).Encode(body); err != nil {
				t.Error(err)
			}
		}))
		_, err := askReport(t.Context(), target{
			name: &peerName{client: s.Client()}, url: s.URL,
		})
		s.Close()
		if (err == nil) != (name == "valid" || name == "of an older version") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
