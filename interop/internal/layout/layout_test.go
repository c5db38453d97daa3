package layout

import (
	"context"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

func TestSameSeedSameBucket(t *testing.T) {
	describe := func(l *Layout) string {
		var b strings.Builder
		for _, x := range l.Blocks {
			b.WriteString(x.ID.String() + x.Labels.String())
			for _, s := range x.Series {
				b.WriteString(s.Labels.String())
				for _, c := range s.Chunks {
					b.WriteString(" ")
					b.WriteString(strings.Repeat("|", int(c.Max-c.Min)%7))
				}
			}
		}
		return b.String()
	}
	var first string
	for range 2 {
		l, err := Write(context.Background(), t.TempDir(), 42, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = describe(l)
		} else if got := describe(l); got != first {
			t.Errorf("the same seed gave two layouts:\n%s\n%s", first, got)
		}
	}
}

func TestChoose(t *testing.T) {
	block := func(min, max, res int64) *Block {
		return &Block{MinTime: min, MaxTime: max, Resolution: res}
	}
	for _, tc := range []struct {
		name          string
		blocks        []*Block
		mint, maxt    int64
		thanos, right string
	}{
		{"one fine block in two gaps", []*Block{block(0, 400, Raw), block(100, 200, FiveMinutes)},
			0, 399, "r0 f100 r0", "r0 f100"},
		{"a nested coarse block moves the cursor back",
			[]*Block{block(0, 300, Raw), block(300, 600, Raw), block(300, 600, FiveMinutes),
				block(400, 500, FiveMinutes)}, 0, 599,
			"r0 f300 f400 r300", "r0 f300 f400"},
		{"range ends on an edge", []*Block{block(0, 100, Raw), block(100, 200, Raw)}, 0, 100,
			"r0 r100", "r0 r100"},
		{"range starts on an edge", []*Block{block(0, 100, Raw), block(100, 200, Raw)}, 100, 150,
			"r100", "r100"},
	} {
		l := &Layout{Blocks: tc.blocks}
		for i, b := range tc.blocks {
			b.ID[15] = byte(i)
			b.Sources = append(b.Sources, b.ID)
		}
		c := l.Choose(tc.mint, tc.maxt, FiveMinutes, nil)
		if got := names(c.Thanos); got != tc.thanos {
			t.Errorf("%s: Thanos's blocks: got %s, want %s", tc.name, got, tc.thanos)
		}
		if got := names(c.Right); sortedWords(got) != sortedWords(tc.right) {
			t.Errorf("%s: right blocks: got %s, want %s", tc.name, got, tc.right)
		}
	}
}

func names(bs []*Block) string {
	var out []string
	for _, b := range bs {
		kind := "r"
		if b.Resolution == FiveMinutes {
			kind = "f"
		}
		out = append(out, kind+itoa(b.MinTime))
	}
	return strings.Join(out, " ")
}

func TestPrefixChainsAreThreeDeep(t *testing.T) {
	l, err := Write(context.Background(), t.TempDir(), 7, Options{})
	if err != nil {
		t.Fatal(err)
	}
	best := 0
	for _, b := range l.Blocks {
		best = max(best, Depth(b.Series))
	}
	if best < 3 {
		t.Errorf("deepest prefix chain: got %d, want at least 3", best)
	}
}

func TestServedLeavesOutCoveredAndMarked(t *testing.T) {
	child := &Block{MaxTime: 1, Labels: labels.FromStrings("a", "1")}
	child.ID[0], child.Sources = 1, append(child.Sources, child.ID)
	child.ID[0] = 1
	parent := &Block{MaxTime: 2, Labels: child.Labels}
	parent.ID[0] = 2
	child.Sources[0] = child.ID
	parent.Sources = append(parent.Sources, child.ID, parent.ID)
	other := &Block{MaxTime: 3, Labels: child.Labels, MarkAge: 25 * 3600 * 1e9}
	other.ID[0] = 3
	other.Sources = append(other.Sources, other.ID)
	l := &Layout{Blocks: []*Block{child, parent, other}}
	got := l.Served()
	if len(got) != 1 || got[0] != parent {
		t.Errorf("served: got %v, want only the compacted block", got)
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func sortedWords(s string) string {
	w := strings.Fields(s)
	sort.Strings(w)
	return strings.Join(w, " ")
}
