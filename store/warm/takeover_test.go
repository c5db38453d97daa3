package warm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/store/catalog"
	"larder/store/indexheader"
)

// TestABlockThatWasTakenOverIsWarmed: the sets that its former owner recorded for it are replayed,
// and no others. Until then it is not warm, and not before the answer of the former owner.
func TestABlockThatWasTakenOverIsWarmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moved, stays, own := blockOf(1), blockOf(2), blockOf(3)
		former := newBed(t, Options{})
		ask(former.opts.Recorder, 3, "x", moved, stays)
		ask(former.opts.Recorder, 2, "y", stays)
		ask(former.opts.Recorder, 2, "z", moved)

		w := newBed(t, Options{})
		ask(w.opts.Recorder, 5, "w", own)
		w.ViewChanged(view(), view(own))
		answer, release := make(chan struct{}), make(chan struct{})
		w.store.hold = func(context.Context, string) (bool, error) {
			<-release
			return true, nil
		}
		w.TakeOver([]*catalog.Block{moved}, func(context.Context) ([]byte, error) {
			<-answer
			return former.Heat([]ulid.ULID{moved.ID}), nil
		})
		w.ViewChanged(view(own), view(own, moved))
		synctest.Wait()
		if w.Warmed(moved.ID) || !w.Warmed(own.ID) {
			t.Errorf("before the answer: warmed %v, another block %v", w.Warmed(moved.ID),
				w.Warmed(own.ID))
		}
		close(answer)
		synctest.Wait()
		if w.Warmed(moved.ID) {
			t.Error("warm before the replay has ended")
		}
		close(release)
		synctest.Wait()
		got := w.store.done()
		slices.Sort(got)
		if diff := cmp.Diff([]string{"1 a=x", "1 a=z"}, got); diff != "" || !w.Warmed(moved.ID) {
			t.Errorf("warmed %v, %s", w.Warmed(moved.ID), diff)
		}
		if sets := hotOf(w.opts.Recorder)[moved.ID]; len(sets) != 2 {
			t.Errorf("%d sets are recorded for the block, want 2 for a restart", len(sets))
		}
		if sets := hotOf(w.opts.Recorder)[stays.ID]; len(sets) != 0 {
			t.Errorf("%d sets are recorded for a block that was not taken over", len(sets))
		}
	})
}

// TestABlockThatIsReplacedIsWarmed: the version of a block changes when the bucket is asked for the
// sizes of its files. What was handed over is read of the new version.
func TestABlockThatIsReplacedIsWarmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, measured := blockOf(1), blockOf(1)
		b.Number, measured.Number = 1, 2
		measured.MaxTime = 20 // to tell it apart
		former := newBed(t, Options{Chunks: fakePages{{Block: 1, File: 1, Page: 6}}})
		ask(former.opts.Recorder, 3, "x", b)
		former.ViewChanged(view(), view(b))
		w := newBed(t, Options{})
		w.store.hold = func(_ context.Context, what string) (bool, error) {
			if what != "1 a=x" {
				return true, nil
			}
			w.ViewChanged(view(b), view(measured))
			return false, fmt.Errorf("block: %w", indexheader.ErrReplaced)
		}
		w.TakeOver([]*catalog.Block{b}, func(context.Context) ([]byte, error) {
			return former.Heat([]ulid.ULID{b.ID}), nil
		})
		w.ViewChanged(view(), view(b))
		time.Sleep(time.Minute)
		got := append(w.store.done(), w.store.pages...)
		want := []string{"20 a=x", "20/1 [{49152 57344}] false"}
		if diff := cmp.Diff(want, got); diff != "" || !w.Warmed(b.ID) {
			t.Errorf("warmed %v, %s", w.Warmed(b.ID), diff)
		}
		// It ends, even if the version goes on to change.
		w.store.hold = func(context.Context, string) (bool, error) {
			return false, indexheader.ErrReplaced
		}
		w.store.begun = 0
		key := string(appendKey(nil, []*labels.Matcher{equal("a", "x")}, nil))
		o := w.replay(t.Context(), afterHandOver, []task{{block: b, key: key}}, newBudget(1<<20))
		if o.failed != 1 || w.store.begun != 1+maxReplaced {
			t.Errorf("%+v after %d attempts", o, w.store.begun)
		}
	})
}

// TestTakingOverIsBounded: a former owner that does not answer, answers nonsense or nothing, and a
// replay that does not end, delay the block at most for the time limit.
func TestTakingOverIsBounded(t *testing.T) {
	former := newBed(t, Options{})
	ask(former.opts.Recorder, 3, "x", blockOf(1))
	heat := func() []byte { return former.Heat([]ulid.ULID{blockOf(1).ID}) }
	for name, c := range map[string]struct {
		payload []byte
		err     error
		after   time.Duration
	}{
		"no answer": {err: errors.New("away")}, "nonsense": {payload: []byte("x")}, "nothing": {},
		"slow bucket": {payload: heat(), after: time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := blockOf(1)
			w := newBed(t, Options{MaxTime: time.Minute})
			w.store.hold = func(ctx context.Context, _ string) (bool, error) {
				<-ctx.Done()
				return false, ctx.Err()
			}
			w.TakeOver([]*catalog.Block{b}, func(context.Context) ([]byte, error) {
				return c.payload, c.err
			})
			w.ViewChanged(view(), view(b))
			synctest.Wait()
			if c.after > 0 {
				time.Sleep(c.after - time.Millisecond)
				if w.Warmed(b.ID) {
					t.Errorf("%s: warm too early", name)
				}
				time.Sleep(2 * time.Millisecond)
			}
			if !w.Warmed(b.ID) {
				t.Errorf("%s: not warm after %s", name, c.after)
			}
		})
	}
}
