package pagecache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
	"larder/internal/memcached"
	"larder/internal/memcached/memcachedtest"
)

// slowFetch is a Fetch in two steps: it has looked up its pages, and has not claimed the missing
// ones yet.
type slowFetch struct {
	r    *Reader
	obj  Object
	list []page
	q    search
	t    tally
}

func slow(t *testing.T, r *Reader, obj Object, span Span) *slowFetch {
	t.Helper()
	pages, tal, err := r.touch(obj, []Span{span})
	if err != nil {
		t.Fatal(err)
	}
	s := &slowFetch{r: r, obj: obj, list: pages.list, t: tal}
	if s.q, err = r.searchRemote(t.Context(), obj, s.list, len(s.list), &s.t); err != nil {
		t.Fatal(err)
	}
	return s
}

// goOn claims the missing pages, and returns the number of reads for them.
func (s *slowFetch) goOn(t *testing.T, epoch uint64) int {
	t.Helper()
	c, err := s.r.claim(t.Context(), s.obj, s.list, len(s.list), epoch, s.q, &s.t, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.r.launch(c)
	for _, p := range s.list {
		if want := content(int(s.obj.Size))[p.no<<s.r.shift:][:len(p.b)]; !bytes.Equal(p.b, want) {
			t.Errorf("page %d has other bytes than the object", p.no)
		}
	}
	return len(c.own)
}

// TestLateClaimsGetTheirPages: without a memory tier, a request that waited for a look-up, or
// skipped it because of a running read, gets the pages of that read, however late it claims them.
// Until then no request asks memcached again.
func TestLateClaimsGetTheirPages(t *testing.T) {
	const size = 8 << 10
	obj := remoteObject(size)
	f := func(
		name string, test func(t *testing.T, r *Reader, b *testBucket, remote *bytecachetest.Remote,
			epoch uint64),
	) {
		t.Run(name, func(t *testing.T) {
			b, remote := newTestBucket(map[string]int{"o": size}), bytecachetest.NewRemote()
			r := New(
				b, bytecache.NewMemcached(remote, bytecache.Options{}), Options{PageSize: 1 << 10},
			)
			defer r.Close()
			test(t, r, b, remote, r.published.Load())
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.lookups) != 0 {
				t.Errorf("%d pages are still looked up", len(r.lookups))
			}
		})
	}
	fetch := func(t *testing.T, r *Reader, span Span) {
		t.Helper()
		if _, err := r.Fetch(t.Context(), obj, []Span{span}, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := func(t *testing.T, what string, got, want any) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	f(
		"it waited",
		func(t *testing.T, r *Reader, b *testBucket, remote *bytecachetest.Remote, epoch uint64) {
			late := slow(t, r, obj, Span{0, 3000})
			fetch(t, r, Span{0, 3000}) // joins the look-up that ended, reads
			want(t, "requested keys", remote.Asked(), []int{3})
			want(t, "its own reads", late.goOn(t, epoch), 0)
			want(t, "its coalesced pages", late.t.coalesced, int64(3))
			want(t, "reads", b.taken(), []string{"o [0,3072)"})
			fetch(t, r, Span{0, 3000})
			want(t, "keys requested afterwards", remote.Asked(), []int{3})
		},
	)
	f(
		"a gap brought it",
		func(t *testing.T, r *Reader, _ *testBucket, remote *bytecachetest.Remote, epoch uint64) {
			late := slow(t, r, obj, Span{1024, 2048})
			// This reads the page in between too.
			if _, err := r.Fetch(t.Context(), obj, []Span{{0, 10}, {2048, 2058}}, nil); err != nil {
				t.Fatal(err)
			}
			want(t, "requested keys", remote.Asked(), []int{1, 2})
			want(t, "its own reads", late.goOn(t, epoch), 0)
		},
	)
	f(
		"it skipped the look-up",
		func(t *testing.T, r *Reader, b *testBucket, remote *bytecachetest.Remote, epoch uint64) {
			reads, goOn := make(chan struct{}), make(chan struct{})
			b.hook = func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
				close(reads)
				<-goOn
				return nil, nil, false
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				fetch(t, r, Span{0, 3000})
			}()
			<-reads
			late := slow(t, r, obj, Span{0, 4000})
			want(t, "requested keys", remote.Asked(), []int{3, 1})
			close(goOn)
			<-done
			b.hook = nil
			want(t, "its own reads", late.goOn(t, epoch), 1) // of the fourth page
		},
	)
	f(
		"the read failed",
		func(t *testing.T, r *Reader, b *testBucket, _ *bytecachetest.Remote, epoch uint64) {
			late := slow(t, r, obj, Span{0, 3000})
			b.hook = func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
				return nil, errBroken, true
			}
			if _, err := r.Fetch(t.Context(), obj, []Span{{0, 3000}}, nil); !errors.Is(
				err, errBroken,
			) {
				t.Fatal(err)
			}
			b.hook = nil
			want(t, "its own reads", late.goOn(t, epoch), 1)
		},
	)
	f(
		"no request read it",
		func(t *testing.T, r *Reader, _ *testBucket, _ *bytecachetest.Remote, epoch uint64) {
			late, later := slow(t, r, obj, Span{0, 3000}), slow(t, r, obj, Span{2000, 5000})
			want(t, "own reads of the first", late.goOn(t, epoch), 1)
			want(t, "own reads of the second", later.goOn(t, epoch), 1)
		},
	)
}

// TestBadAnswerIsDroppedOnce: a look-up that panics, or returns pages of another length, is a miss
// for all waiting requests, which make one read.
func TestBadAnswerIsDroppedOnce(t *testing.T) {
	f := func(name string, onGet func(ids []bytecache.ID, values [][]byte)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, remote := newTestBucket(map[string]int{"o": 100_000}), bytecachetest.NewRemote()
				answer := make(chan struct{})
				remote.Before = func(context.Context) { <-answer }
				remote.Answer = onGet
				m := bytecache.NewMemory(bytecache.Options{})
				r := New(
					b, bytecache.NewTiered(m, bytecache.NewMemcached(remote, bytecache.Options{})),
					Options{PageSize: 1 << 10},
				)
				defer m.Close()
				defer r.Close()
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						p, err := r.Fetch(
							t.Context(), remoteObject(100_000), []Span{{0, 3000}}, nil,
						)
						if err != nil {
							t.Error(err)
							return
						}
						checkSpans(t, p, b.objects["o"], []Span{{0, 3000}})
					})
				}
				synctest.Wait()
				close(answer)
				wg.Wait()
				if diff := cmp.Diff([]string{"o [0,3072)"}, b.taken()); diff != "" {
					t.Errorf("reads (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]int{3}, remote.Asked()); diff != "" {
					t.Errorf("requested keys (-want +got):\n%s", diff)
				}
			})
		})
	}
	f("panic", func([]bytecache.ID, [][]byte) { panic("fault") })
	f("panic with values", func(_ []bytecache.ID, values [][]byte) {
		values[0] = make([]byte, 1<<10)
		panic("fault")
	})
	f(
		"another length",
		func(_ []bytecache.ID, values [][]byte) { values[1] = make([]byte, 1<<10-1) },
	)
	f(
		"empty",
		func(_ []bytecache.ID, values [][]byte) { values[0], values[2] = []byte{}, []byte{} },
	)
}

// TestCloseEndsLookUps: Close waits for the cache, and requests that wait for it get ErrClosed.
func TestCloseEndsLookUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, remote := newTestBucket(map[string]int{"o": 10_000}), bytecachetest.NewRemote()
		var ended bool
		remote.Before = func(ctx context.Context) { <-ctx.Done(); ended = true }
		r := New(b, bytecache.NewMemcached(remote, bytecache.Options{}), Options{})
		done := make(chan error)
		go func() {
			_, err := r.Fetch(t.Context(), remoteObject(10_000), []Span{{0, 10}}, nil)
			done <- err
		}()
		synctest.Wait()
		go r.Close()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		r.Close()
		if !ended || len(b.taken()) != 0 {
			t.Errorf("the look-up ended: %v; reads %v", ended, b.taken())
		}
	})
}

// TestObjectWithoutBlock: an object without a name that other processes know is read, but not
// cached where they would find it.
func TestObjectWithoutBlock(t *testing.T) {
	b, remote := newTestBucket(map[string]int{"o": 10_000}), bytecachetest.NewRemote()
	r := New(b, bytecache.NewMemcached(remote, bytecache.Options{}), Options{})
	defer r.Close()
	obj := remoteObject(10_000)
	obj.Block = [16]byte{}
	p, err := r.Fetch(t.Context(), obj, []Span{{0, 10_000}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkSpans(t, p, b.objects["o"], []Span{{0, 10_000}})
	if _, err := r.Refetch(t.Context(), obj, Span{0, 10}, nil); err != nil {
		t.Fatal(err)
	}
	kept := 0
	remote.Change(func(values map[bytecache.ID][]byte) { kept = len(values) })
	if asked := remote.Asked(); len(asked) != 0 || kept != 0 {
		t.Errorf("asked %v, kept %d values", asked, kept)
	}
}

// TestRealMemcached: a request asks for one key for each page, found or not, and for none that
// another request waits for.
func TestRealMemcached(t *testing.T) {
	const size = 1 << 20
	server := memcachedtest.Start(t, memcachedtest.Options{})
	b := newTestBucket(map[string]int{"o": size})
	spans := []Span{{0, 100_000}, {500_000, 500_001}, {size - 1, size}}
	const pages = 13 + 1 + 1 // of 8 KiB
	for process, from := range []string{"bucket", "memcached", "memory"} {
		client, err := memcached.New(
			memcached.Options{
				Addresses:      []string{server.Addr},
				Timeout:        30 * time.Second,
				MinReadTimeout: 30 * time.Second,
			},
		)
		if err != nil {
			t.Fatal(err)
		}
		o := bytecache.Options{MaxBytes: -1}
		if from == "memory" {
			o.MaxBytes = 4 << 20
		}
		cache := bytecache.Open(o, nil, client)
		r := New(b, cache, Options{})
		var acct Account
		n := 1
		if from == "memory" {
			n = 3
		}
		for range n {
			p, err := r.Fetch(t.Context(), remoteObject(size), spans, &acct)
			if err != nil {
				t.Fatal(err)
			}
			checkSpans(t, p, b.objects["o"], spans)
		}
		if st := client.Stats(); st.Requests != pages {
			t.Errorf("process %d: %d requested keys, want %d", process, st.Requests, pages)
		}
		got := map[string]int64{
			"bucket":    acct.Fetched.Load(),
			"memcached": acct.RemoteHits.Load(),
			"memory":    acct.Hits.Load(),
		}
		want := map[string]map[string]int64{
			"bucket":    {"bucket": pages, "memcached": 0, "memory": 0},
			"memcached": {"bucket": 0, "memcached": pages, "memory": 0},
			"memory":    {"bucket": 0, "memcached": pages, "memory": 2 * pages},
		}[from]
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("process %d: pages by source (-want +got):\n%s", process, diff)
		}
		if got, want := acct.RemoteHitBytes.Load(), acct.RemoteHits.Load()<<13; got != want {
			t.Errorf("process %d: %d bytes from memcached, want %d", process, got, want)
		}
		r.Close()
		cache.Close()
		client.Close() // sends pending writes
	}
	if got := server.Stats(t)["curr_items"]; got != "15" {
		t.Errorf("memcached holds %s values, want %d", got, pages)
	}
}

// TestFirstByte: the bucket's time to the first byte is known after some reads, and that of a cache
// does not count.
func TestFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, remote := newTestBucket(map[string]int{"o": 1 << 20}), bytecachetest.NewRemote()
		b.hook = func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
			time.Sleep(40 * time.Millisecond)
			return nil, nil, false
		}
		remote.Before = func(context.Context) { time.Sleep(time.Second) }
		r := New(b, bytecache.NewMemcached(remote, bytecache.Options{}), Options{PageSize: 1 << 10})
		defer r.Close()
		for n := int64(0); n < firstByteSamples; n++ {
			if got := r.FirstByteP95(); got != 0 {
				t.Fatalf("after %d reads: %v", n, got)
			}
			if _, err := r.Fetch(t.Context(), remoteObject(1<<20), []Span{{n << 10, n<<10 + 1}},
				nil); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.FirstByteP95(); got < 40*time.Millisecond || got > 50*time.Millisecond {
			t.Errorf("got %v, want about 40 ms", got)
		}
	})
}
