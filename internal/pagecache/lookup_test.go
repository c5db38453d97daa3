package pagecache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
)

func remoteObject(size int) Object {
	return Object{Name: "o", Size: int64(size), ID: 1<<14 | 3, Block: ulid.ULID{1, 2, 3}}
}

// TestSecondProcess: a process that shares only memcached with the first one does not read its
// pages again, and asks for one key for each page.
func TestSecondProcess(t *testing.T) {
	b, remote := newTestBucket(map[string]int{"o": 100_000}), bytecachetest.NewRemote()
	spans := []Span{{0, 10}, {5000, 9000}, {99_990, 100_000}}
	const pages = 1 + 5 + 1 // of 1 KiB
	for n := range 3 {
		r := New(b, bytecache.NewMemcached(remote, bytecache.Options{}), Options{
			PageSize: 1 << 10, Costs: apart(),
		})
		obj := remoteObject(100_000)
		obj.ID += uint64(n) << 14 // block numbers differ between processes
		var acct Account
		p, err := r.Fetch(t.Context(), obj, spans, &acct)
		if err != nil {
			t.Fatal(err)
		}
		checkSpans(t, p, b.objects["o"], spans)
		if diff := cmp.Diff([]int{pages}, remote.Asked()); diff != "" {
			t.Errorf("requested keys, by call (-want +got):\n%s", diff)
		}
		want := [3]int64{0, 0, pages}
		if n > 0 {
			want = [3]int64{pages, 0, 0}
		}
		if got := [3]int64{acct.RemoteHits.Load(), acct.Hits.Load(),
			acct.Fetched.Load()}; got != want {
			t.Errorf("process %d: remote hits, hits, fetched: %v, want %v", n, got, want)
		}
		if reads := b.taken(); (len(reads) > 0) != (n == 0) {
			t.Errorf("process %d: reads %v", n, reads)
		}
		r.Close()
	}
	// Pages of another size, file or block have other keys.
	f := func(what string, pageSize int, change func(*Object)) {
		t.Helper()
		r := New(
			b, bytecache.NewMemcached(remote, bytecache.Options{}), Options{PageSize: pageSize},
		)
		defer r.Close()
		obj := remoteObject(100_000)
		change(&obj)
		var acct Account
		if _, err := r.Fetch(t.Context(), obj, spans[:1], &acct); err != nil ||
			acct.RemoteHits.Load() != 0 {
			t.Errorf("%s: %d hits, %v", what, acct.RemoteHits.Load(), err)
		}
	}
	f("page size", 2<<10, func(*Object) {})
	f("file", 1<<10, func(o *Object) { o.ID++ })
	f("block", 1<<10, func(o *Object) { o.Block[15]++ })
	f("content", 1<<10, func(o *Object) { o.Content++ })
}

// TestFiftyLookUps: 50 identical requests make the look-ups and reads of one.
func TestFiftyLookUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, remote := newTestBucket(map[string]int{"o": 100_000}), bytecachetest.NewRemote()
		asked, read := make(chan struct{}), make(chan struct{})
		remote.Before = func(context.Context) { <-asked }
		b.hook = func(context.Context, string, int64, int64) (io.ReadCloser, error, bool) {
			<-read
			return nil, nil, false
		}
		r := New(b, bytecache.NewMemcached(remote, bytecache.Options{}), Options{PageSize: 1 << 10})
		defer r.Close()
		spans := []Span{{0, 3000}, {90_000, 90_001}}
		accts := make([]Account, 50)
		var wg sync.WaitGroup
		for i := range accts {
			wg.Go(func() {
				p, err := r.Fetch(t.Context(), remoteObject(100_000), spans, &accts[i])
				if err != nil {
					t.Error(err)
					return
				}
				checkSpans(t, p, b.objects["o"], spans)
			})
		}
		synctest.Wait()
		close(asked)
		synctest.Wait()
		close(read)
		wg.Wait()
		if diff := cmp.Diff([]int{4}, remote.Asked()); diff != "" {
			t.Errorf("requested keys, by call (-want +got):\n%s", diff)
		}
		reads := b.taken()
		slices.Sort(reads)
		if diff := cmp.Diff([]string{"o [0,3072)", "o [89088,90112)"}, reads); diff != "" {
			t.Errorf("reads (-want +got):\n%s", diff)
		}
		var fetched, coalesced int64
		for i := range accts {
			fetched += accts[i].Fetched.Load()
			coalesced += accts[i].Coalesced.Load()
		}
		if fetched != 4 || coalesced != 4*49 {
			t.Errorf("%d pages fetched, %d coalesced", fetched, coalesced)
		}
		if joined, touched := testutil.ToFloat64(r.metrics.joined),
			testutil.ToFloat64(r.metrics.touched); joined != 4*49 ||
			touched != 4*50 {
			t.Errorf("%v pages of look-ups joined, %v touched", joined, touched)
		}
	})
}

// TestLookUpIsLeft: a look-up continues for the other callers after one has left. The last one that
// leaves cancels it.
func TestLookUpIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, remote := newTestBucket(map[string]int{"o": 10_000}), bytecachetest.NewRemote()
		answer := make(chan struct{})
		remote.Before = func(ctx context.Context) {
			select {
			case <-answer:
			case <-ctx.Done():
			}
		}
		r := New(b, bytecache.NewMemcached(remote, bytecache.Options{}), Options{PageSize: 1 << 10})
		defer r.Close()
		fetch := func(ctx context.Context) chan error {
			done := make(chan error, 1)
			go func() {
				p, err := r.Fetch(ctx, remoteObject(10_000), []Span{{0, 10}}, nil)
				if err == nil {
					checkSpans(t, p, b.objects["o"], []Span{{0, 10}})
				}
				done <- err
			}()
			synctest.Wait()
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		first, second := fetch(ctx), fetch(t.Context())
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that left got %v", err)
		}
		close(answer)
		if err := <-second; err != nil {
			t.Errorf("the caller that stayed got %v", err)
		}
		if n := len(remote.Asked()); n != 1 {
			t.Errorf("%d look-ups", n)
		}

		// The only caller leaves: the look-up is cancelled and can no longer be joined.
		answer = make(chan struct{})
		remote.Change(func(values map[bytecache.ID][]byte) { clear(values) })
		ctx, cancel = context.WithCancel(t.Context())
		third := fetch(ctx)
		cancel()
		<-third
		synctest.Wait()
		r.mu.Lock()
		if len(r.lookups) != 0 {
			t.Errorf("%d look-ups are left", len(r.lookups))
		}
		r.mu.Unlock()
	})
}

// TestBadPageFromRemote: wrong bytes are dropped from every tier and read from the bucket once.
func TestBadPageFromRemote(t *testing.T) {
	b, remote := newTestBucket(map[string]int{"o": 10_000}), bytecachetest.NewRemote()
	m := bytecache.NewMemory(bytecache.Options{})
	defer m.Close()
	cache := bytecache.NewTiered(m, bytecache.NewMemcached(remote, bytecache.Options{}))
	r := New(b, cache, Options{PageSize: 1 << 10})
	defer r.Close()
	obj := remoteObject(10_000)
	key, _ := obj.cacheKey(0, r.shift)
	remote.Set(key.ID, bytes.Repeat([]byte{'x'}, 1<<10))
	p, err := r.Fetch(t.Context(), obj, []Span{{0, 10}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := p.Bytes(0, 10, nil); string(got) != "xxxxxxxxxx" {
		t.Fatalf("got %q: the test covers nothing", got)
	}
	if p, err = r.Refetch(t.Context(), obj, Span{0, 10}, nil); err != nil {
		t.Fatal(err)
	}
	checkSpans(t, p, b.objects["o"], []Span{{0, 10}})
	for _, c := range []Cache{cache, bytecache.NewMemcached(remote, bytecache.Options{})} {
		values := make([][]byte, 1)
		c.Fetch(t.Context(), []bytecache.Key{key}, values)
		if !bytes.Equal(values[0], b.objects["o"][:1<<10]) {
			t.Error("a tier has other bytes than the bucket")
		}
	}
	// A value of another length is ignored.
	remote.Set(key.ID, []byte("short"))
	m.Del(key)
	if p, err = r.Fetch(t.Context(), obj, []Span{{0, 10}}, nil); err != nil {
		t.Fatal(err)
	}
	checkSpans(t, p, b.objects["o"], []Span{{0, 10}})
}
