package warm

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"larder/store/catalog"
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
