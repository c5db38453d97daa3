package catalog

import (
	"slices"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

// Hashmod is the part of selector rules that divides blocks among shards: one rule writes a hash
// into a label, and a later rule keeps some of its values. No other rule uses the label.
type Hashmod struct {
	rules      []*relabel.Config
	hash, keep int // their indexes
}

// FindHashmod returns the Hashmod of rules, and false if they have none or several.
func FindHashmod(rules []*relabel.Config) (Hashmod, bool) {
	h := Hashmod{rules: rules, hash: -1, keep: -1}
	for i, r := range rules {
		if r.Action != relabel.HashMod {
			continue
		}
		if h.hash >= 0 {
			return Hashmod{}, false
		}
		h.hash = i
	}
	if h.hash < 0 {
		return Hashmod{}, false
	}
	label := model.LabelName(rules[h.hash].TargetLabel)
	for i, r := range rules {
		switch {
		case !slices.Contains(r.SourceLabels, label):
		case i > h.hash && h.keep < 0 && r.Action == relabel.Keep && len(r.SourceLabels) == 1:
			h.keep = i
		default:
			return Hashmod{}, false
		}
	}
	return h, h.keep >= 0
}

// Modulus returns the number of shards.
func (h Hashmod) Modulus() uint64 { return h.rules[h.hash].Modulus }

// Kept returns the expression of the remainders that this process keeps.
func (h Hashmod) Kept() string { return h.rules[h.keep].Regex.String() }

// Others returns the rules without the one that keeps remainders. They select the blocks of all
// shards.
func (h Hashmod) Others() []*relabel.Config {
	return slices.Concat(h.rules[:h.keep], h.rules[h.keep+1:])
}

// Owner returns the remainder of a block for a modulus, and -1 for a block that the other rules
// exclude.
func (h Hashmod) Owner(b *Block, modulus uint64) int {
	rules := h.Others()
	hash := *rules[h.hash]
	hash.Modulus = modulus
	rules[h.hash] = &hash
	builder := labels.NewBuilder(b.Labels)
	builder.Set(BlockIDLabel, b.ID.String())
	if !relabel.ProcessBuilder(builder, rules...) {
		return -1
	}
	n, err := strconv.Atoi(builder.Get(hash.TargetLabel))
	if err != nil { // not possible: no other rule writes it
		return -1
	}
	return n
}

// differsOnlyInShards reports whether two lists of rules have a Hashmod each and differ in nothing
// but its modulus and the kept remainders.
func differsOnlyInShards(a, b []*relabel.Config) bool {
	x, ok := FindHashmod(a)
	y, ok2 := FindHashmod(b)
	if !ok || !ok2 || x.hash != y.hash || x.keep != y.keep || len(a) != len(b) {
		return false
	}
	for i := range a {
		r, s := *a[i], *b[i]
		switch i {
		case x.hash:
			r.Modulus, s.Modulus = 0, 0
		case x.keep:
			r.Regex, s.Regex = relabel.Regexp{}, relabel.Regexp{}
		}
		if !sameRule(&r, &s) {
			return false
		}
	}
	return true
}

// sameRules reports whether two lists of rules are equal.
func sameRules(a, b []*relabel.Config) bool { return slices.EqualFunc(a, b, sameRule) }

func sameRule(a, b *relabel.Config) bool {
	return slices.Equal(a.SourceLabels, b.SourceLabels) && a.Separator == b.Separator &&
		a.Regex.String() == b.Regex.String() && a.Modulus == b.Modulus &&
		a.TargetLabel == b.TargetLabel && a.Replacement == b.Replacement && a.Action == b.Action
}
