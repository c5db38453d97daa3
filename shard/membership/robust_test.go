package membership

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/localfs"
	"larder/shard"
)

// lone returns a Driver without peers that runs until the test ends.
func lone(t *testing.T) *Driver {
	t.Helper()
	d, err := New(Options{
		ID: shard.ID{Zone: "a"}, Dir: localfs.At(t.TempDir()), QuerierWait: wait,
		Config: shard.Config{Epoch: 1, Count: 1, Zones: []string{"a"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// run lets a Driver run, and returns what stops it.
func run(d *Driver) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.Run(ctx)
	}()
	return func() { cancel(); <-ended }
}

// TestPanicsCostOneTurn: a poll that panics is repeated at the usual interval, and an event that
// panics does not count as handled.
func TestPanicsCostOneTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := lone(t)
		polls := 0
		answer := transport(func(*http.Request) (*http.Response, error) {
			polls++
			w := httptest.NewRecorder()
			fmt.Fprint(w, `{"id": {"zone": "b", "ordinal": 0}, "instance": 7}`)
			return w.Result(), nil
		})
		// The maps of the name are nil, so that noting the answer panics.
		d.polls.names = []peerName{{
			Peer: Peer{host: "10.0.0.1", port: "1"}, client: &http.Client{Transport: answer},
		}}
		defer run(d)()
		time.Sleep(time.Minute)
		synctest.Wait()
		if most := int(time.Minute/d.interval) + 1; polls < 2 || polls > most {
			t.Errorf("%d polls in a minute, want at most %d", polls, most)
		}
		if d.do(t.Context(), func() { panic("an event") }) {
			t.Error("an event that panicked counts as handled")
		}
		d.do(t.Context(), func() { d.member = nil })
		before := time.Now()
		if d.HandleBlocks(t.Context(), nil, d.Snapshot().Number) {
			t.Error("blocks that the member could not take are published")
		}
		if time.Since(before) < d.interval {
			t.Error("the caller may try again without a pause")
		}
	})
}

// TestClientsExpireOneByOne: a client of Info counts for a Querier wait after its last call.
func TestClientsExpireOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := lone(t)
		defer run(d)()
		time.Sleep(time.Minute)
		clients := func() (n int) {
			d.do(t.Context(), func() { n = d.status().Clients })
			return n
		}
		for i := range 3 {
			d.Asked(fmt.Sprint("client ", i), d.Snapshot().Epoch)
			time.Sleep(wait / 2)
			synctest.Wait()
			if want := min(i+1, 2); clients() != want {
				t.Errorf("after %d clients: %d count, want %d", i+1, clients(), want)
			}
		}
		time.Sleep(wait)
		if n := clients(); n != 0 {
			t.Errorf("%d clients count a Querier wait after their last call", n)
		}
	})
}

// TestBlankClusterWarns: processes that all lost their disks start as a new cluster. They warn if
// the epoch is not the first, except those that hear of it from another one.
func TestBlankClusterWarns(t *testing.T) {
	for _, epoch := range []uint64{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, 2).known(2)
			defer c.stopAll()
			c.begin(conf(epoch, 2))
			c.complete()
			if n := c.log.count("starting as a new cluster"); (n > 0) != (epoch > 1) || n > 4 {
				t.Errorf("epoch %d: %d warnings of 4 processes", epoch, n)
			}
		})
	}
}

// TestNoShards: commands say that a process has no shards.
func TestNoShards(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	_, err := Admin{s.Client(), s.URL}.Status(t.Context())
	if !errors.Is(err, ErrNoShards) {
		t.Errorf("got %v", err)
	}
}

// transport answers requests.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
