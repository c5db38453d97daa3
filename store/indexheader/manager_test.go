package indexheader

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/localfs"
)

// block makes every read of the bucket wait until release is called or the read is cancelled.
// started receives the name of each object.
func (b *testBucket) block() (started <-chan string, release func()) {
	names := make(chan string, 1000)
	open := make(chan struct{})
	b.setFault(func(ctx context.Context, g get, _ int) (io.ReadCloser, error, bool) {
		names <- g.Name
		select {
		case <-open:
			return nil, nil, false
		case <-ctx.Done():
			return nil, ctx.Err(), true
		}
	})
	return names, sync.OnceFunc(func() { close(open) })
}

// Any number of callers that want one header share one build. It continues after one of them has
// left.
func TestAcquireIsOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idx := tinyIndex(t)
		bkt := newBucket()
		src := bkt.add(1, idx)
		m, err := New(Options{Dir: localfs.At(t.TempDir()), Bucket: bkt})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		started, release := bkt.block()
		ctx, cancel := context.WithCancel(context.Background())
		first := make(chan error, 1)
		go func() {
			_, _, err := m.Acquire(ctx, src)
			first <- err
		}()
		<-started
		headers := make(chan *Header, 20)
		for range cap(headers) {
			go func() {
				h, release, err := m.Acquire(context.Background(), src)
				if err != nil {
					t.Error(err)
					return
				}
				defer release()
				headers <- h
			}()
		}
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that left got %v", err)
		}
		release()
		h := <-headers
		for range cap(headers) - 1 {
			if other := <-headers; other != h {
				t.Error("two headers of one block")
			}
		}
		if n := bkt.count(); n != 1 {
			t.Errorf("%d reads", n)
		}
	})
}

// A build without waiters is cancelled, and the next caller starts another one.
func TestBuildEndsWhenNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := newBucket()
		src := bkt.add(1, tinyIndex(t))
		dir := t.TempDir()
		m, err := New(Options{Dir: localfs.At(dir), Bucket: bkt})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		started, _ := bkt.block()
		cause := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(context.Background())
		done := make(chan error, 2)
		for range 2 {
			go func() {
				_, _, err := m.Acquire(ctx, src)
				done <- err
			}()
		}
		<-started
		synctest.Wait()
		cancel(cause)
		for range 2 {
			if err := <-done; !errors.Is(err, cause) {
				t.Errorf("got %v", err)
			}
		}
		synctest.Wait() // the flight has ended
		if names := headerFiles(t, dir); len(names) != 0 {
			t.Errorf("files remain: %v", names)
		}
		bkt.setFault(nil)
		_, release, err := m.Acquire(context.Background(), src)
		if err != nil {
			t.Fatal(err)
		}
		release()
		if n := bkt.count(); n != 2 {
			t.Errorf("%d reads", n)
		}
	})
}

// A build has a deadline of its own, and so has each of its reads. A read that timed out is not
// repeated.
func TestBuildTimeout(t *testing.T) {
	for _, timeouts := range []Options{
		{BuildTimeout: 90 * time.Second, ReadTimeout: 2 * time.Minute},
		{BuildTimeout: 2 * time.Minute, ReadTimeout: 90 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			bkt := newBucket()
			src := bkt.add(1, tinyIndex(t))
			opts := timeouts
			opts.Dir, opts.Bucket = localfs.At(t.TempDir()), bkt
			m, err := New(opts)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			bkt.block()
			begin := time.Now()
			_, _, err = m.Acquire(context.Background(), src)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 90*time.Second {
				t.Fatalf("after %s: %v", time.Since(begin), err)
			}
			if n := bkt.count(); n != 1 {
				t.Errorf("%d reads, want 1", n)
			}
		})
	}
}

// Headers are closed after a time without use, and never while they are in use.
func TestIdleHeadersAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := newBucket()
		src := bkt.add(1, tinyIndex(t))
		reg := prometheus.NewRegistry()
		m, err := New(
			Options{
				Dir:         localfs.At(t.TempDir()),
				Bucket:      bkt,
				IdleTimeout: time.Minute,
				Registerer:  reg,
			},
		)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		open := func() float64 { return metric(t, reg, "larder_header_open") }
		_, release, err := m.Acquire(context.Background(), src)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // fake time
		if open() != 1 {
			t.Error("closed while in use")
		}
		release()
		release() // again, without effect
		time.Sleep(50 * time.Second)
		if open() != 1 {
			t.Error("closed too early")
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if open() != 0 || metric(t, reg, "larder_header_open_bytes") != 0 {
			t.Error("not closed")
		}
		if n := metric(t, reg, "thanos_bucket_store_indexheader_lazy_unload_total"); n != 1 {
			t.Errorf("%v unloads", n)
		}
		_, release, err = m.Acquire(context.Background(), src)
		if err != nil {
			t.Fatal(err)
		}
		release()
		if bkt.count() != 1 {
			t.Errorf("%d reads of the bucket for a header that is on disk", bkt.count())
		}
		if n := metric(t, reg, "thanos_bucket_store_indexheader_lazy_load_total"); n != 2 {
			t.Errorf("%v loads", n)
		}
	})
}

// Beyond the allowance the headers that were unused for longest are closed. Headers in use stay
// open.
func TestOpenAllowance(t *testing.T) {
	idx := tinyIndex(t)
	for _, dir := range []string{t.TempDir(), ""} {
		bkt := newBucket()
		reg := prometheus.NewRegistry()
		src := bkt.add(1, idx)
		m1 := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
		probe := acquire(t, m1, src)
		m1.waitPersisted(src)
		one := probe.cur.Load().heap
		m := newManager(
			t,
			Options{
				Dir:          localfs.At(dir),
				Bucket:       bkt,
				MaxOpenBytes: 3*one + one/2,
				Registerer:   reg,
			},
		)
		var releases []func()
		var headers []*Header
		for n := range byte(6) {
			h, release, err := m.Acquire(context.Background(), bkt.add(10+n, idx))
			if err != nil {
				t.Fatal(err)
			}
			m.waitPersisted(h.e.src)
			releases = append(releases, release)
			headers = append(headers, h)
		}
		if n := metric(t, reg, "larder_header_open"); n != 6 {
			t.Fatalf("%v open, 6 are in use", n)
		}
		model := modelOf(t, idx)
		for _, h := range headers {
			if err := model.check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range releases {
			r()
		}
		if n := metric(t, reg, "larder_header_open"); n != 3 {
			t.Fatalf("%v open, 3 are allowed", n)
		}
		// The last three are open. In memory the first must be built again, which evicts the
		// fourth.
		bkt.reads()
		for _, n := range []byte{13, 14, 15, 10, 14, 15} {
			_, release, err := m.Acquire(context.Background(), bkt.add(n, idx))
			if err != nil {
				t.Fatal(err)
			}
			release()
		}
		want := 0
		if dir == "" {
			want = 1
		}
		if n := bkt.count(); n != want {
			t.Errorf("dir %q: %d reads of the bucket, want %d", dir, n, want)
		}
	}
}

// Background builds start with the newest block. A header that a caller waits for is built first.
func TestPrefetchOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idx := tinyIndex(t)
		bkt := newBucket()
		m, err := New(Options{Dir: localfs.At(t.TempDir()), Bucket: bkt, BuildConcurrency: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		var srcs []Source
		for _, n := range rand.New(rand.NewPCG(1, 1)).Perm(8) {
			src := bkt.add(byte(n), idx)
			src.IndexSize = 0 // full weight: one build at a time
			srcs = append(srcs, src)
		}
		step := make(chan struct{})
		var order []string
		bkt.setFault(func(_ context.Context, g get, _ int) (io.ReadCloser, error, bool) {
			order = append(order, g.Name)
			<-step
			return nil, nil, false
		})
		m.Prefetch(srcs)
		m.Prefetch(srcs) // again, without effect
		synctest.Wait()
		urgent := bkt.add(100, idx)
		urgent.IndexSize = 0
		queued := srcs[slices.IndexFunc(srcs, func(s Source) bool { return s.MaxTime == 2 })]
		for _, src := range []Source{urgent, queued} {
			go func() {
				if _, release, err := m.Acquire(context.Background(), src); err != nil {
					t.Error(err)
				} else {
					release()
				}
			}()
			synctest.Wait()
		}
		for range 9 {
			step <- struct{}{}
			synctest.Wait()
		}
		ids := []ulid.ULID{urgent.ID}
		for _, s := range srcs {
			ids = append(ids, s.ID)
		}
		if err := m.Wait(context.Background(), ids); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, n := range []byte{7, 100, 2, 6, 5, 4, 3, 1, 0} {
			want = append(want, bkt.add(n, idx).IndexObject)
		}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Error(diff)
		}
	})
}

// A background build continues after the caller that joined it has left.
func TestPrefetchGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := newBucket()
		src := bkt.add(1, tinyIndex(t))
		m, err := New(Options{Dir: localfs.At(t.TempDir()), Bucket: bkt})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		started, release := bkt.block()
		m.Prefetch([]Source{src})
		<-started
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, _, err := m.Acquire(ctx, src); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		release()
		m.waitPersisted(src)
		acquired, done, err := m.Acquire(context.Background(), src)
		if err != nil || acquired == nil {
			t.Fatal(err)
		}
		done()
		if n := bkt.count(); n != 1 {
			t.Errorf("%d reads", n)
		}
	})
}

// Callers get their units in the order of their arrival. Background builds get none while a caller
// waits, and at most their share.
func TestBuildQueue(t *testing.T) {
	s := buildQueue{size: 16, background: 8}
	granted := func(w *buildWaiter) bool {
		select {
		case <-w.granted:
			return true
		default:
			return false
		}
	}
	if !s.tryAcquireBackground(8) || s.tryAcquireBackground(1) {
		t.Fatal("background builds do not have their share")
	}
	if s.acquire(4) != nil {
		t.Fatal("units were free")
	}
	big, small, gone := s.acquire(8), s.acquire(1), s.acquire(1)
	if big == nil || small == nil || gone == nil || granted(big) || granted(small) {
		t.Fatal("the small one overtook the big one")
	}
	s.release(8, true)
	if !granted(big) || !granted(small) || !granted(gone) {
		t.Fatal("not granted")
	}
	s.withdraw(gone) // it was granted, and releases that
	if s.used != 13 || s.running != 3 || s.usedBackground != 0 {
		t.Fatalf("%+v", s)
	}
	waiting := s.acquire(8)
	if s.tryAcquireBackground(1) {
		t.Fatal("a background build overtook a waiting caller")
	}
	next := s.acquire(1)
	s.withdraw(waiting) // frees its units for the next
	if !granted(next) || s.used != 14 {
		t.Fatalf("%+v", s)
	}
}

// Wait returns once background builds have ended, successfully or not.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idx := tinyIndex(t)
		bkt := newBucket()
		good, missing := bkt.add(1, idx), bkt.add(2, idx)
		bkt.remove(missing.IndexObject)
		m, err := New(Options{Dir: localfs.At(t.TempDir()), Bucket: bkt})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		started, release := bkt.block()
		m.Prefetch([]Source{good, missing})
		<-started
		ids := []ulid.ULID{good.ID, missing.ID, {9}}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := m.Wait(ctx, ids); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		release()
		if err := m.Wait(context.Background(), ids); err != nil {
			t.Error(err)
		}
		if n := bkt.count(); n != 2 {
			t.Errorf("%d reads", n)
		}
		// The failed build is repeated by another Prefetch.
		m.Prefetch([]Source{good, missing})
		if err := m.Wait(context.Background(), ids); err != nil {
			t.Error(err)
		}
		if n := bkt.count(); n != 3 {
			t.Errorf("%d reads", n)
		}
	})
}

// TestAHeaderAskedForAfterItsBlockLeft: a running request may still acquire the header of a block
// that has left. The header is dropped with the next change of blocks.
func TestAHeaderAskedForAfterItsBlockLeft(t *testing.T) {
	idx, dir, bkt := tinyIndex(t), t.TempDir(), newBucket()
	left, stays := bkt.add(1, idx), bkt.add(2, idx)
	m := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
	m.Forget(left.ID)
	h, release, err := m.Acquire(context.Background(), left)
	if err != nil {
		t.Fatal(err)
	}
	_, releaseOther, err := m.Acquire(context.Background(), stays)
	if err != nil {
		t.Fatal(err)
	}
	m.waitPersisted(left)
	m.waitPersisted(stays)
	m.Keep(func(id ulid.ULID) bool { return id == stays.ID })
	if err := modelOf(t, idx).check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Errorf("while it is in use: %v", err)
	}
	release()
	releaseOther()
	if names := headerFiles(t, dir); !slices.Equal(
		names,
		[]string{stays.ID.String() + fileSuffix},
	) ||
		m.Opened(left.ID) ||
		!m.Opened(stays.ID) {
		t.Errorf(
			"files %v; open: the one that left %v, the other %v",
			names,
			m.Opened(left.ID),
			m.Opened(stays.ID),
		)
	}
}

// TestForget: the header of a forgotten block stays open for its callers. Its file is removed, even
// if it was about to be written.
func TestForget(t *testing.T) {
	idx := tinyIndex(t)
	model := modelOf(t, idx)
	dir := t.TempDir()
	bkt := newBucket()
	src := bkt.add(1, idx)
	m := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
	h, release, err := m.Acquire(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	m.waitPersisted(src)
	if names := headerFiles(t, dir); len(names) != 1 {
		t.Fatalf("files: %v", names)
	}
	m.Forget(src.ID)
	if names := headerFiles(t, dir); len(names) != 0 {
		t.Errorf("files: %v", names)
	}
	if err := model.check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Error(err)
	}
	release()

	// The block is forgotten between the build and the naming of the file.
	reached, goOn := make(chan struct{}), make(chan struct{})
	m2 := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
	m2.step = func(name string) error {
		if name == "write" {
			close(reached)
			<-goOn
		}
		return nil
	}
	got := make(chan error, 1)
	go func() {
		_, release, err := m2.Acquire(context.Background(), src)
		if err == nil {
			release()
		}
		got <- err
	}()
	<-reached
	m2.Forget(src.ID)
	close(goOn)
	if err := <-got; err != nil {
		t.Error(err)
	}
	m2.Close()
	if names := headerFiles(t, dir); len(names) != 0 {
		t.Errorf("files: %v", names)
	}
}

// Retain removes the files of unknown blocks.
func TestRetain(t *testing.T) {
	idx := tinyIndex(t)
	dir := t.TempDir()
	bkt := newBucket()
	a, b, c := bkt.add(1, idx), bkt.add(2, idx), bkt.add(3, idx)
	m, err := New(Options{Dir: localfs.At(dir), Bucket: bkt})
	if err != nil {
		t.Fatal(err)
	}
	m.Prefetch([]Source{a, b, c})
	if err := m.Wait(context.Background(), []ulid.ULID{a.ID, b.ID, c.ID}); err != nil {
		t.Fatal(err)
	}
	m.Close()
	if err := os.WriteFile(dir+"/something else", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	m = newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
	acquire(t, m, b)
	if err := m.Retain(func(id ulid.ULID) bool { return id == a.ID }); err != nil {
		t.Fatal(err)
	}
	want := []string{a.ID.String() + fileSuffix, b.ID.String() + fileSuffix, "something else"}
	if diff := cmp.Diff(want, headerFiles(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// Close ends waiting and running builds. Headers in use stay usable until they are released.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idx := tinyIndex(t)
		bkt := newBucket()
		a, b := bkt.add(1, idx), bkt.add(2, idx)
		m, err := New(Options{Dir: localfs.At(t.TempDir()), Bucket: bkt, BuildConcurrency: 1})
		if err != nil {
			t.Fatal(err)
		}
		h, release, err := m.Acquire(context.Background(), a)
		if err != nil {
			t.Fatal(err)
		}
		started, _ := bkt.block()
		got := make(chan error, 1)
		go func() {
			_, _, err := m.Acquire(context.Background(), b)
			got <- err
		}()
		<-started
		var more []Source
		for n := range byte(20) {
			more = append(more, bkt.add(50+n, idx))
		}
		m.Prefetch(more)
		m.Close()
		if err := <-got; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		if _, _, err := m.Acquire(context.Background(), a); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		if err := modelOf(t, idx).check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
			t.Error(err)
		}
		release()
		m.Forget(b.ID)
		m.Forget(more[0].ID)
		m.Prefetch(more)
		if err := m.Wait(context.Background(), []ulid.ULID{b.ID}); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

// Two processes may use one directory: neither removes a file that the other is writing, and both
// answer.
func TestTwoManagersInOneDirectory(t *testing.T) {
	idx := tinyIndex(t)
	model := modelOf(t, idx)
	dir := t.TempDir()
	bkt := newBucket()
	src := bkt.add(1, idx)
	a := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
	started := make(chan struct{})
	goOn := make(chan struct{})
	proceed := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(proceed)
	a.step = func(name string) error {
		if name == "rename" {
			close(started)
			<-goOn
		}
		return nil
	}
	ha := acquire(t, a, src)
	<-started
	// The second starts while the first is writing, and builds the same header.
	b := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
	if names := headerFiles(t, dir); len(names) != 1 {
		t.Fatalf("the other's temporary file is gone: %v", names)
	}
	hb := acquire(t, b, src)
	b.waitPersisted(src)
	proceed()
	a.waitPersisted(src)
	b.Forget(src.ID) // removes the file that the first uses
	var wg sync.WaitGroup
	for _, h := range []*Header{ha, hb} {
		wg.Go(func() {
			if err := model.check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if names := headerFiles(t, dir); len(names) != 0 {
		t.Errorf("files: %v", names)
	}
}
