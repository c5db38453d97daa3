package warm

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/store/catalog"
	"larder/store/storepb"
)

func blockOf(n int) *catalog.Block {
	b := &catalog.Block{ID: ulid.ULID{byte(n >> 16), byte(n >> 8), byte(n)}, MaxTime: int64(n)}
	b.Sources = []ulid.ULID{b.ID}
	return b
}

func equal(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}

// check holds a recorder's counts against what it holds.
func check(t *testing.T, r *Recorder) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	sets, uses, bytes := 0, 0, int64(0)
	for _, b := range r.blocks {
		sets += len(b.sets)
		if len(b.sets) > maxSetsPerBlock {
			t.Errorf("a block has %d sets", len(b.sets))
		}
	}
	for _, x := range r.texts {
		uses += x.uses
		bytes += int64(len(x.key))
	}
	if sets != r.sets || uses != r.sets || bytes != r.textBytes {
		t.Errorf("counted %d sets and %d bytes, there are %d with %d uses of %d bytes", r.sets, r.textBytes, sets, uses, bytes)
	}
	if len(r.blocks) > maxBlocks || r.sets > maxSets || r.textBytes > maxTextBytes {
		t.Errorf("%d blocks, %d sets, %d bytes", len(r.blocks), r.sets, r.textBytes)
	}
}

func TestRecorderIsBounded(t *testing.T) {
	for _, tc := range []struct {
		name                 string
		blocks, sets, length int
	}{
		{"many sets of a block", 1, 3 * maxSetsPerBlock, 10},
		{"many blocks", 2 * maxBlocks, 1, 10},
		{"many sets of many blocks", 300, maxSetsPerBlock, 10},
		{"long sets", 40, 30, maxSetBytes - 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := NewRecorder()
			for i := range tc.blocks {
				for j := range tc.sets {
					text := strings.Repeat("x", tc.length) + fmt.Sprint(i, j)
					r.Note([]*catalog.Block{blockOf(i)}, []*labels.Matcher{equal("a", text)}, nil)
				}
				if i%64 == 0 {
					check(t, r)
				}
			}
			check(t, r)
			if file, _ := r.encode(); len(file) > maxSnapshotBytes {
				t.Errorf("a snapshot of %d bytes", len(file))
			}
		})
	}

	r := NewRecorder()
	r.Note([]*catalog.Block{blockOf(1)}, []*labels.Matcher{equal("a", strings.Repeat("x", maxSetBytes))}, nil)
	if s := r.stats(); s.sets != 0 || s.tooLong != 1 || s.blocks != 1 {
		t.Errorf("a set that is too long: %+v", s)
	}
	r.Note([]*catalog.Block{blockOf(1)}, nil, nil)
	if s := r.stats(); s.sets != 0 {
		t.Errorf("no matchers: %+v", s)
	}
}

// TestWhatIsAskedOftenStays: requests that come once do not push out what is asked again and again, but what is not asked any more goes.
func TestWhatIsAskedOftenStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder()
		b := []*catalog.Block{blockOf(1)}
		has := func(want bool, value string) {
			t.Helper()
			sets, _ := r.hot(func(ulid.ULID) bool { return true })
			got := false
			for _, s := range sets {
				got = got || s.key == string(appendKey(nil, []*labels.Matcher{equal("dashboard", value)}, nil))
			}
			if got != want {
				t.Errorf("%s is hot: %v", value, got)
			}
		}
		for range 3 {
			r.Note(b, []*labels.Matcher{equal("dashboard", "old")}, nil)
		}
		for i := range 2000 {
			if i%50 == 0 {
				r.Note(b, []*labels.Matcher{equal("dashboard", "daily")}, nil)
			}
			r.Note(b, []*labels.Matcher{equal("once", fmt.Sprint(i))}, nil)
		}
		has(true, "daily")
		has(true, "old")
		time.Sleep(4 * halfLife)
		has(true, "daily")
		has(false, "old")
		check(t, r)
	})
}

func TestRequestsForTheSameSeriesAreOneSet(t *testing.T) {
	r := NewRecorder()
	b := []*catalog.Block{blockOf(1), blockOf(2)}
	x, y := equal("x", "1"), labels.MustNewMatcher(labels.MatchRegexp, "y", "a|b")
	r.Note(b, []*labels.Matcher{x, y}, []string{"replica", "a"})
	r.Note(b, []*labels.Matcher{y, x, y}, []string{"a", "replica", "a"})
	if s := r.stats(); s.sets != 2 {
		t.Errorf("%d sets of two blocks, want one of each", s.sets)
	}
	r.Note(b, []*labels.Matcher{x, y}, []string{"a"})
	r.Note(b, []*labels.Matcher{x}, []string{"replica", "a"})
	if s := r.stats(); s.sets != 6 {
		t.Errorf("%d sets of two blocks, want three of each", s.sets)
	}
	ms, without, err := parseKey(string(appendKey(nil, []*labels.Matcher{y, x}, []string{"replica", "a"})))
	if err != nil {
		t.Fatal(err)
	}
	want := []*storepb.LabelMatcher{{Name: "x", Value: "1"}, {Type: storepb.LabelMatcher_RE, Name: "y", Value: "a|b"}}
	for i, m := range ms {
		if m.Type != want[i].Type || m.Name != want[i].Name || m.Value != want[i].Value {
			t.Errorf("matcher %d: got %v, want %v", i, m, want[i])
		}
	}
	if diff := cmp.Diff([]string{"a", "replica"}, without); diff != "" || len(ms) != 2 {
		t.Errorf("%d matchers, %s", len(ms), diff)
	}
}

func TestRecorderIsForMany(t *testing.T) {
	r := NewRecorder()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				r.Note([]*catalog.Block{blockOf(g), blockOf(i)}, []*labels.Matcher{equal("a", fmt.Sprint(i%100))}, nil)
				switch i % 100 {
				case 10:
					r.Forget(func(id ulid.ULID) bool { return id[2]%2 == 0 })
				case 20:
					r.hot(func(ulid.ULID) bool { return true })
				case 30:
					payload, _ := r.encode()
					blocks, ok := decode(payload)
					if !ok {
						t.Error("what was written cannot be read")
					}
					r.merge(blocks)
				}
			}
		})
	}
	wg.Wait()
	check(t, r)
}

// BenchmarkNote is what a request of five blocks pays.
func BenchmarkNote(b *testing.B) {
	r := NewRecorder()
	blocks := []*catalog.Block{blockOf(1), blockOf(2), blockOf(3), blockOf(4), blockOf(5)}
	ms := []*labels.Matcher{equal("__name__", "http_requests_total"), equal("job", "api"), labels.MustNewMatcher(labels.MatchRegexp, "pod", "api-.*")}
	b.ReportAllocs()
	for b.Loop() {
		r.Note(blocks, ms, []string{"replica"})
	}
}

// BenchmarkNoteOfNew is what a request pays that nobody has made before, with all places taken: room is made.
func BenchmarkNoteOfNew(b *testing.B) {
	r := NewRecorder()
	var blocks []*catalog.Block
	for i := range maxSets / maxSetsPerBlock {
		blocks = append(blocks, blockOf(i))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Note(blocks[i%len(blocks):][:1], []*labels.Matcher{equal("a", fmt.Sprint(i))}, nil)
	}
}
