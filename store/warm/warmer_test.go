package warm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/localfs"
	"larder/internal/pagecache"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/storepb"
)

// fakeStore records the warmed sets. hold, if set, is called in the middle of each.
type fakeStore struct {
	mu     sync.Mutex
	busy   bool
	begun  int // attempts
	warmed []string
	bytes  int64 // that each set takes
	kept   bool  // they are in a cache
	memory bool  // they are in memory
	pages  []string
	hold   func(ctx context.Context, what string) (finished bool, err error)
}

func (s *fakeStore) Busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy
}

func (s *fakeStore) Warm(
	ctx context.Context, b *catalog.Block, ms []*storepb.LabelMatcher, _ []string,
	acct *pagecache.Account,
) (bool, error) {
	what := fmt.Sprintf("%d %s=%s", b.MaxTime, ms[0].Name, ms[0].Value)
	s.mu.Lock()
	s.begun++
	s.mu.Unlock()
	fetched := s.bytes
	if s.kept {
		fetched = 0
	}
	acct.FetchedBytes.Add(fetched)
	if err := acct.Spend(s.bytes, fetched); err != nil {
		return false, err
	}
	if s.memory {
		acct.HitBytes.Add(s.bytes)
	}
	if s.hold != nil {
		if finished, err := s.hold(ctx, what); !finished || err != nil {
			return false, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warmed = append(s.warmed, what)
	return true, nil
}

func (s *fakeStore) WarmPages(
	_ context.Context, b *catalog.Block, file int, spans []pagecache.Span, how pagecache.Warming,
	acct *pagecache.Account,
) (bool, error) {
	n, fetched := int64(0), int64(0)
	for _, span := range spans {
		n += span.End - span.Off
	}
	what := fmt.Sprintf("%d/%d %v %t", b.MaxTime, file, spans, how.Asked)
	if how.DiskOnly {
		what += " disk"
	} else {
		fetched = n
	}
	if err := acct.Spend(n, fetched); err != nil {
		return false, err
	}
	acct.FetchedBytes.Add(fetched)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages = append(s.pages, what)
	return true, nil
}

func (s *fakeStore) done() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.warmed)
}

// fakeHeaders are all there, but those that are being built for ever or could not be built.
type fakeHeaders struct {
	building, failed func(ulid.ULID) bool
}

func (h *fakeHeaders) is(f func(ulid.ULID) bool, id ulid.ULID) bool { return f != nil && f(id) }

func (h *fakeHeaders) Opened(
	id ulid.ULID,
) bool {
	return !h.is(h.building, id) && !h.is(h.failed, id)
}
func (h *fakeHeaders) Wait(ctx context.Context, ids []ulid.ULID) error {
	if h.is(h.building, ids[0]) {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (h *fakeHeaders) Acquire(
	context.Context, indexheader.Source,
) (*indexheader.Header, func(), error) {
	return nil, func() {}, nil
}

type bed struct {
	*Warmer
	store   *fakeStore
	headers *fakeHeaders
	log     *bytes.Buffer
}

func newBed(t *testing.T, o Options) *bed {
	b := &bed{store: &fakeStore{}, headers: &fakeHeaders{}, log: &bytes.Buffer{}}
	if o.Recorder == nil {
		o.Recorder = NewRecorder()
	}
	o.Store, o.Headers, o.Logger = b.store, b.headers, slog.New(slog.NewTextHandler(b.log, nil))
	b.Warmer = New(o)
	t.Cleanup(b.Close)
	return b
}

func view(blocks ...*catalog.Block) *catalog.View { return catalog.NewView(blocks, true) }

// ask records n requests with a set.
func ask(r *Recorder, n int, value string, blocks ...*catalog.Block) {
	for range n {
		r.Note(blocks, []*labels.Matcher{equal("a", value)}, nil)
	}
}

func TestAStartReplaysTheHottestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		one, two, gone := blockOf(1), blockOf(2), blockOf(3)
		first := newBed(t, Options{Dir: localfs.At(dir)})
		first.ViewChanged(view(), view(one, two, gone))
		ctx, cancel := context.WithCancel(t.Context())
		cancelled := make(chan struct{})
		go func() { first.Run(ctx); close(cancelled) }()
		ask(first.opts.Recorder, 5, "hot", one, gone)
		ask(first.opts.Recorder, 2, "warm", one, two)
		cancel()
		<-cancelled

		second := newBed(t, Options{Dir: localfs.At(dir)})
		// Two sets are replayed concurrently. The last set would finish first if it were one of
		// them.
		took := map[string]time.Duration{
			"1 a=hot":  2 * time.Second,
			"2 a=warm": 4 * time.Second,
			"1 a=warm": time.Second,
		}
		second.store.hold = func(_ context.Context, what string) (bool, error) {
			time.Sleep(took[what])
			return true, nil
		}
		second.ViewChanged(view(), view(one, two))
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		go second.Run(ctx)
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]string{"1 a=hot", "1 a=warm", "2 a=warm"},
			second.store.done()); diff != "" {
			t.Error(diff)
		}
		for _, want := range []string{"after=restart matcher_sets=3 of=3 failed=0", "headers=2",
			`ended="all done"`} {
			if !strings.Contains(second.log.String(), want) {
				t.Errorf("the log lacks %s:\n%s", want, second.log)
			}
		}
		cancel()
		synctest.Wait()
	})
}

// restart replays n sets of one block within the given bounds.
func restart(t *testing.T, n int, o Options) *bed {
	o.Recorder = NewRecorder()
	b := newBed(t, o)
	one := blockOf(1)
	for i := range n {
		ask(o.Recorder, 1, fmt.Sprint(i), one)
	}
	b.ViewChanged(view(), view(one))
	return b
}

func TestAReplayIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := restart(t, 50, Options{MaxBytes: 1000})
		b.store.bytes = 100
		b.replaySnapshot(t.Context())
		if got := len(b.store.done()); got != 10 ||
			!strings.Contains(b.log.String(), `ended="byte limit"`) {
			t.Errorf("replayed %d sets of 100 bytes within 1000:\n%s", got, b.log)
		}

		b = restart(t, 50, Options{MaxTime: time.Minute})
		b.store.hold = func(ctx context.Context, _ string) (bool, error) {
			err := pause(ctx, 10*time.Second)
			return err == nil, err
		}
		start := time.Now()
		b.replaySnapshot(t.Context())
		if took, got := time.Since(start), len(b.store.done()); took != time.Minute || got < 10 ||
			got > 12 ||
			!strings.Contains(b.log.String(), `ended="time limit"`) {
			t.Errorf("replayed %d sets in %v:\n%s", got, took, b.log)
		}

		// Headers that are not built do not delay the end of a replay, and a replay does not build
		// them.
		b = restart(t, 50, Options{MaxTime: time.Minute})
		b.headers.building = func(ulid.ULID) bool { return true }
		start = time.Now()
		b.replaySnapshot(t.Context())
		if took := time.Since(start); took > time.Minute || len(b.store.done()) > 0 {
			t.Errorf("%d sets in %v", len(b.store.done()), took)
		}

		// Bytes from a cache count too. After the limit no further set is started.
		b = restart(t, 50, Options{MaxBytes: 1000})
		b.store.bytes, b.store.kept = 300, true
		b.replaySnapshot(t.Context())
		if got := len(b.store.done()); got != 3 || b.store.begun > 3+workers ||
			!strings.Contains(b.log.String(), `ended="byte limit"`) {
			t.Errorf("replayed %d sets of 300 bytes within 1000, started %d:\n%s", got, b.store.begun, b.log)
		}

		// An eighth of the bytes in memory counts: 1000 bytes are left, 912, and so on.
		b = restart(t, 50, Options{MaxBytes: 1000})
		b.store.bytes, b.store.kept, b.store.memory = 100, true, true
		b.replaySnapshot(t.Context())
		if got := len(b.store.done()); got < 50 {
			t.Errorf("replayed %d sets of 100 bytes in memory within 1000", got)
		}
		b = restart(t, 200, Options{MaxBytes: 1000})
		b.store.bytes, b.store.kept, b.store.memory = 100, true, true
		b.replaySnapshot(t.Context())
		if got := len(b.store.done()); got > 100 {
			t.Errorf("replayed %d sets of 100 bytes in memory within 1000", got)
		}

		// While requests wait for long, attempts become rare.
		b = restart(t, 1, Options{MaxTime: time.Minute})
		b.store.hold = func(context.Context, string) (bool, error) { return false, nil }
		b.replaySnapshot(t.Context())
		if b.store.begun < 5 || b.store.begun > 50 {
			t.Errorf("a set was started %d times in a minute", b.store.begun)
		}
	})
}

// TestOneBlockDoesNotKeepOthersCold: neither a header whose build does not end nor a block that
// leaves stops the replay of other blocks.
func TestOneBlockDoesNotKeepOthersCold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, three := blockOf(1), blockOf(2), blockOf(3)
		b := newBed(t, Options{MaxTime: time.Minute})
		ask(b.opts.Recorder, 3, "x", one)
		ask(b.opts.Recorder, 2, "x", two)
		ask(b.opts.Recorder, 1, "x", three)
		b.ViewChanged(view(), view(one, two, three))
		b.headers.building = func(id ulid.ULID) bool { return id == one.ID }
		b.store.hold = func(_ context.Context, what string) (bool, error) {
			if what == "3 a=x" {
				return false, nil // makes way until its block has left
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.view = view(one, two)
			return true, nil
		}
		b.replaySnapshot(t.Context())
		if diff := cmp.Diff([]string{"2 a=x"}, b.store.done()); diff != "" ||
			!strings.Contains(b.log.String(), "matcher_sets=1 of=3 failed=1") {
			t.Errorf("%s\n%s", diff, b.log)
		}
		if gone := testutil.ToFloat64(
			b.metrics.skipped.WithLabelValues(afterRestart, skippedGone)); gone != 1 {
			t.Errorf("skipped %v sets of blocks that left, want 1", gone)
		}
	})
}

// TestACompactionWhileNoProcessRan: the sets of replaced blocks are replayed for the block that
// lists them as sources.
func TestACompactionWhileNoProcessRan(t *testing.T) {
	a, b, ab := compacted()
	downsampled, lost := blockOf(4), blockOf(5)
	downsampled.Sources, downsampled.Resolution = ab.Sources, catalog.Resolution5m
	w := newBed(t, Options{})
	ask(w.opts.Recorder, 3, "x", a)
	ask(w.opts.Recorder, 2, "x", b)
	ask(w.opts.Recorder, 2, "y", b, ab)
	ask(w.opts.Recorder, 1, "z", lost)
	w.ViewChanged(view(), view(ab, downsampled))
	w.replaySnapshot(t.Context())
	got := w.store.done()
	slices.Sort(got)
	if diff := cmp.Diff([]string{"3 a=x", "3 a=y"}, got); diff != "" {
		t.Error(diff)
	}
	used := map[string]float64{}
	for value, n := range map[string]float64{"x": 3 + 2, "y": 2} {
		used[string(appendKey(nil, []*labels.Matcher{equal("a", value)}, nil))] = n
	}
	for key, score := range hotOf(w.opts.Recorder)[ab.ID] {
		if most := used[key]; score > most+0.01 {
			t.Errorf("%q was used %v times, got a score of %v", key, most, score)
		}
	}
	if gone := testutil.ToFloat64(
		w.metrics.skipped.WithLabelValues(afterRestart, skippedGone)); gone != 1 {
		t.Errorf("skipped %v sets of blocks without a replacement, want 1", gone)
	}
}

func TestAReplayYieldsToRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := restart(t, 4, Options{MaxBytes: 500})
		b.store.bytes = 0
		b.store.busy = true
		tries := map[string]int{}
		b.store.hold = func(_ context.Context, what string) (bool, error) {
			b.store.mu.Lock()
			defer b.store.mu.Unlock()
			tries[what]++
			return tries[what] == 3, nil
		}
		done := make(chan struct{})
		go func() { b.replaySnapshot(t.Context()); close(done) }()
		time.Sleep(30 * time.Second)
		if len(tries) > 0 {
			t.Errorf("%d sets were started while requests waited", len(tries))
		}
		b.store.mu.Lock()
		b.store.busy = false
		b.store.mu.Unlock()
		<-done
		if got := len(b.store.done()); got != 4 {
			t.Errorf("replayed %d sets after the requests, want 4", got)
		}
	})
}

func TestAFailingSetDoesNotEndAReplay(t *testing.T) {
	b := restart(t, 10, Options{})
	b.store.hold = func(_ context.Context, what string) (bool, error) {
		if what == "1 a=3" {
			return false, errors.New("bucket is away")
		}
		return true, nil
	}
	b.replaySnapshot(t.Context())
	if got := len(b.store.done()); got != 9 || !strings.Contains(b.log.String(), "failed=1") {
		t.Errorf("replayed %d sets:\n%s", got, b.log)
	}
}

// TestAnInvalidSnapshotIsIgnored: a damaged file and a file of another version are ignored.
func TestAnInvalidSnapshotIsIgnored(t *testing.T) {
	other := snapshotFormat()
	other.Version--
	for _, file := range [][]byte{snapshotFormat().Seal([]byte("abc")), []byte("abc"),
		other.Seal([]byte("abc"))} {
		ignores(t, file)
	}
}

func ignores(t *testing.T, file []byte) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, snapshotName)
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		b := newBed(t, Options{Dir: localfs.At(dir), SaveEvery: time.Minute})
		one := blockOf(1)
		b.ViewChanged(view(), view(one))
		ctx, cancel := context.WithCancel(t.Context())
		go b.Run(ctx)
		synctest.Wait()
		if !strings.Contains(b.log.String(), "ignoring the warm snapshot") {
			t.Errorf("the log lacks the reason:\n%s", b.log)
		}
		ask(b.opts.Recorder, 1, "x", one)
		time.Sleep(61 * time.Second)
		if saved, err := readSnapshot(localfs.At(dir)); err != nil || len(saved.blocks) != 1 ||
			len(saved.sets) != 1 {
			t.Errorf("after a minute: %+v, %v", saved, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if _, err := readSnapshot(localfs.At(dir)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the snapshot was written again without a change: %v", err)
		}
		cancel()
		synctest.Wait()
	})
}

// compacted returns two blocks and the block compacted from them.
func compacted() (a, b, ab *catalog.Block) {
	a, b, ab = blockOf(1), blockOf(2), blockOf(3)
	ab.Sources = []ulid.ULID{a.ID, b.ID}
	return a, b, ab
}

func TestABlockIsWarmedBeforeItReplacesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, ab := compacted()
		downsampled := blockOf(4)
		downsampled.Sources, downsampled.Resolution = ab.Sources, catalog.Resolution5m
		foreign := blockOf(5)
		foreign.Sources, foreign.Labels = ab.Sources, labels.FromStrings("replica", "b")

		w := newBed(t, Options{})
		w.ViewChanged(view(), view(a, b))
		ask(w.opts.Recorder, 3, "x", a)
		ask(w.opts.Recorder, 2, "y", a, b)
		release := make(chan struct{})
		w.store.hold = func(ctx context.Context, _ string) (bool, error) {
			<-release
			return true, nil
		}
		if w.Warmed(ab.ID) {
			t.Error("a block that is not in the view may replace others")
		}
		w.ViewChanged(view(a, b), view(a, b, ab, downsampled, foreign))
		if w.Warmed(ab.ID) || !w.Warmed(downsampled.ID) || !w.Warmed(foreign.ID) {
			t.Errorf(
				"warmed: %v, unexpected: %v %v", w.Warmed(ab.ID),
				w.Warmed(downsampled.ID), w.Warmed(foreign.ID),
			)
		}
		close(release)
		synctest.Wait()
		got := w.store.done()
		slices.Sort(got)
		if diff := cmp.Diff([]string{"3 a=x", "3 a=y"}, got); diff != "" || !w.Warmed(ab.ID) {
			t.Errorf("warmed: %v, %s", w.Warmed(ab.ID), diff)
		}
		// The sets are recorded for the new block, for a restart at this time.
		if sets := hotOf(w.opts.Recorder)[ab.ID]; len(sets) != 2 {
			t.Errorf("%d sets are recorded for the new block", len(sets))
		}
	})
}

func TestReplacedBlocksLeaveAfterTheTimeLimit(t *testing.T) {
	f := func(name string, o Options, prepare func(*bed), after time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			a, b, ab := compacted()
			w := newBed(t, o)
			w.ViewChanged(view(), view(a, b))
			ask(w.opts.Recorder, 3, "x", a)
			ask(w.opts.Recorder, 3, "y", a)
			prepare(w)
			w.ViewChanged(view(a, b), view(a, b, ab))
			synctest.Wait()
			if after > 0 {
				time.Sleep(after - time.Millisecond)
				if w.Warmed(ab.ID) {
					t.Errorf("%s: the block replaces others too early", name)
				}
				time.Sleep(2 * time.Millisecond)
			}
			if !w.Warmed(ab.ID) {
				t.Errorf("%s: the block does not replace others after %v", name, after)
			}
		})
	}
	stuck := func(w *bed) {
		w.store.hold = func(ctx context.Context, _ string) (bool, error) {
			<-ctx.Done()
			return false, ctx.Err()
		}
	}
	f("time", Options{MaxTime: time.Minute}, stuck, time.Minute)
	f("bytes", Options{MaxBytes: 10}, func(w *bed) { w.store.bytes = 11 }, 0)
	f(
		"requests wait all the time", Options{MaxTime: time.Minute},
		func(w *bed) { w.store.busy = true }, time.Minute,
	)
	f("errors", Options{}, func(w *bed) {
		w.store.hold = func(context.Context, string) (bool, error) {
			return false, errors.New("bucket is away")
		}
	}, 0)
	f(
		"no header", Options{},
		func(w *bed) { w.headers.failed = func(ulid.ULID) bool { return true } }, 0,
	)
	f("nothing hot", Options{}, func(w *bed) {
		stuck(w)
		w.opts.Recorder.Forget(func(ulid.ULID) bool { return false })
	}, 0)
}

// TestCloseEndsWarming: Close cancels a running replay, and none starts after it.
func TestCloseEndsWarming(t *testing.T) {
	a, b, ab := compacted()
	w := newBed(t, Options{})
	w.ViewChanged(view(), view(a, b))
	ask(w.opts.Recorder, 3, "x", a)
	begun := make(chan struct{})
	w.store.hold = func(ctx context.Context, _ string) (bool, error) {
		close(begun)
		<-ctx.Done()
		return false, ctx.Err()
	}
	w.ViewChanged(view(a, b), view(a, b, ab))
	<-begun
	w.Close()
	w.ViewChanged(view(a, b), view(a, b, ab))
	if len(w.store.done()) > 0 {
		t.Error("a block was warmed after Close")
	}
}
