package storepb

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// finished encodes labels in the same way as the segments of a block.
func finished(ls labels.Labels) []byte {
	var b []byte
	ls.Range(func(l labels.Label) { b = AppendLabel(b, l.Name, l.Value) })
	return b
}

func messages(ls labels.Labels) []*Label {
	var out []*Label
	ls.Range(func(l labels.Label) { out = append(out, &Label{Name: l.Name, Value: l.Value}) })
	return out
}

// text returns a random short string. Strings share prefixes, so that sets differ late. Lengths
// need one or two bytes as a varint.
func text(r *rand.Rand, minLen int) string {
	alphabet := []string{"a", "b", "_", "0", "Z", "\x00", "\x01", "é", "日", "\U0001f600"}
	n := minLen + r.IntN(4)
	switch r.IntN(12) {
	case 0:
		return strings.Repeat("a", 125+r.IntN(6)) + alphabet[r.IntN(len(alphabet))]
	case 1:
		return strings.Repeat("x", 1+r.IntN(400))
	}
	var sb strings.Builder
	for range n {
		sb.WriteString(alphabet[r.IntN(len(alphabet))])
	}
	return sb.String()
}

func randomLabels(r *rand.Rand, n int) labels.Labels {
	m := map[string]string{}
	for range n {
		m[text(r, 1)] = text(r, 0)
	}
	return labels.FromMap(m)
}

// vary returns a set that differs from ls in at most one label, like a neighbour in a sorted block.
func vary(r *rand.Rand, ls labels.Labels) labels.Labels {
	m := ls.Map()
	var names []string
	for n := range m {
		names = append(names, n)
	}
	if len(names) == 0 {
		return randomLabels(r, 1)
	}
	n := names[r.IntN(len(names))]
	switch r.IntN(5) {
	case 0:
		delete(m, n)
	case 1:
		m[n] = text(r, 0)
	case 2:
		m[n] += text(r, 1)
	case 3:
		m[text(r, 1)] = text(r, 0)
	}
	return labels.FromMap(m)
}

func TestAppendLabel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		ls := randomLabels(r, r.IntN(8))
		got := finished(ls)
		want, err := proto.MarshalOptions{
			Deterministic: true,
		}.Marshal(&Series{Labels: messages(ls)})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("case %d, %s: got %x, want %x", i, ls, got, want)
		}
		size := 0
		ls.Range(func(l labels.Label) { size += LabelSize(l.Name, l.Value) })
		if size != len(got) {
			t.Fatalf("case %d, %s: LabelSize says %d, appended %d", i, ls, size, len(got))
		}
	}
	if a, b := AppendLabel(nil, "name", ""),
		AppendLabel(nil, []byte("name"), []byte("")); !bytes.Equal(
		a, b,
	) {
		t.Errorf("strings give %x, bytes %x", a, b)
	}
}

func TestNextLabel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		ls := randomLabels(r, r.IntN(8))
		var got []*Label
		rest := finished(ls)
		for {
			name, value, next, ok := NextLabel(rest)
			if !ok {
				break
			}
			got = append(got, &Label{Name: string(name), Value: string(value)})
			rest = next
		}
		if diff := cmp.Diff(messages(ls), got, protocmp.Transform()); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", ls, diff)
		}
		if len(rest) != 0 {
			t.Fatalf("%s: %d bytes left", ls, len(rest))
		}
	}
}

func TestCompareLabels(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	seen := map[int]int{}
	check := func(a, b labels.Labels) {
		t.Helper()
		// The slice form of labels.Labels returns -1, 0 or 1. The packed form of Prometheus returns
		// other numbers with the same sign.
		want := sign(labels.Compare(a, b))
		got := CompareLabels(finished(a), finished(b))
		if got != want {
			t.Fatalf("CompareLabels(%s, %s): got %d, want %d", a, b, got, want)
		}
		seen[want]++
	}
	for range 100_000 {
		a := randomLabels(r, r.IntN(6))
		b := vary(r, a)
		if r.IntN(8) == 0 {
			b = randomLabels(r, r.IntN(6))
		}
		check(a, b)
	}
	for _, s := range []int{-1, 0, 1} {
		if seen[s] < 1000 {
			t.Errorf("the test has only %d pairs that compare as %d", seen[s], s)
		}
	}
	// A comparison of the length-prefixed bytes would order these the other way round.
	check(labels.FromStrings("a", "zz"), labels.FromStrings("a", "zzz"))
	check(labels.FromStrings("a", "b"), labels.FromStrings("a", "aaaa"))
	check(labels.FromStrings("b", "1"), labels.FromStrings("aaaa", "1"))
	check(labels.FromStrings("a", strings.Repeat("b", 127)),
		labels.FromStrings("a", strings.Repeat("a", 200)))
	// A set that is a prefix of another one.
	check(labels.FromStrings("a", "1"), labels.FromStrings("a", "1", "b", "2"))
	check(labels.EmptyLabels(), labels.FromStrings("a", ""))
	check(labels.EmptyLabels(), labels.EmptyLabels())
}

func sign(c int) int { return min(1, max(-1, c)) }

// FuzzLabels checks that arbitrary bytes cause neither panics, endless loops nor contradictory
// comparisons.
func FuzzLabels(f *testing.F) {
	f.Add([]byte("\x0a\x08\x0a\x01a\x12\x03bbb"), []byte("\x0a\x03\x0a\x01a"))
	f.Add([]byte("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), []byte("\x0a\x80"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		for rest := a; ; {
			name, value, next, ok := NextLabel(rest)
			if !ok {
				break
			}
			if len(name)+len(value)+len(next) >= len(rest) {
				t.Fatalf("NextLabel(%x) does not get shorter", rest)
			}
			rest = next
		}
		if c, d := CompareLabels(a, b), CompareLabels(b, a); c != -d {
			t.Fatalf("CompareLabels(%x, %x) is %d, and %d with the arguments swapped", a, b, c, d)
		}
		(&ShardInfo{TotalShards: 2}).Matcher().Matches(a)
	})
}

func TestShardMatcher(t *testing.T) {
	ls := labels.FromStrings("__name__", "up", "instance", "a:1", "job", "")
	sum := func(parts ...string) uint64 { return xxhash.Sum64String(strings.Join(parts, "\xff")) }
	for _, c := range []struct {
		name string
		info *ShardInfo
		hash uint64
	}{
		{"by two", &ShardInfo{By: true, Labels: []string{"job", "instance"}},
			sum("instance", "a:1", "job", "", "")},
		{"by none", &ShardInfo{By: true}, sum("")},
		{"by a missing one", &ShardInfo{By: true, Labels: []string{"zone"}}, sum("")},
		{"without one", &ShardInfo{Labels: []string{"instance"}},
			sum("__name__", "up", "job", "", "")},
		{"without none", &ShardInfo{}, sum("__name__", "up", "instance", "a:1", "job", "", "")},
	} {
		t.Run(c.name, func(t *testing.T) {
			const total = 7
			for i := range int64(total) {
				info := proto.CloneOf(c.info)
				info.TotalShards, info.ShardIndex = total, i
				m := info.Matcher()
				for range 2 {
					if got, want := m.Matches(finished(ls)),
						c.hash%total == uint64(i); got != want {
						t.Errorf("shard %d: got %v, want %v", i, got, want)
					}
				}
			}
		})
	}
	for _, info := range []*ShardInfo{nil, {}, {TotalShards: 0, ShardIndex: 3}, {TotalShards: -1}} {
		if m := info.Matcher(); !m.Matches(finished(ls)) {
			t.Errorf("%v: the request is not sharded, but the matcher rejects a series", info)
		}
	}
}
