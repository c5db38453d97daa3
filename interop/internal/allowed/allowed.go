// Package allowed decides what may differ between Thanos's answer and larder's: the entries of
// allowed_differences.yaml, and nothing else. An entry names one field of an answer and a
// predicate, and exempts only that field. A predicate does not accept any difference. It computes
// the right answer, mostly by asking Thanos another question that Thanos answers correctly, and the
// field must equal that.
package allowed

import (
	"context"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"sort"
	"sync/atomic"

	"gopkg.in/yaml.v3"

	"larder/interop/internal/answer"
	"larder/interop/internal/layout"
	"larder/interop/internal/query"
)

// Entry is one allowed difference.
type Entry struct {
	Name      string       `yaml:"name"`
	Field     answer.Field `yaml:"field"`
	Predicate string       `yaml:"predicate"`
	Reason    string       `yaml:"reason"`

	matched atomic.Int64
	rule    rule
}

// Matched returns how often the entry was needed.
func (e *Entry) Matched() int64 { return e.matched.Load() }

// List is the list of all allowed differences.
type List struct{ Entries []*Entry }

// Load reads the file. A field or predicate that does not exist, or a predicate that no entry uses,
// is an error.
func Load(path string) (*List, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	l := &List{}
	if err := yaml.Unmarshal(b, &l.Entries); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	used, seen := map[string]bool{}, map[string]bool{}
	for _, e := range l.Entries {
		var ok bool
		if e.rule, ok = rules[e.Predicate]; !ok {
			return nil, fmt.Errorf("%s: %s: no predicate is called %q", path, e.Name, e.Predicate)
		}
		if !slices.Contains(answer.Fields, e.Field) {
			return nil, fmt.Errorf("%s: %s: answers have no field %q", path, e.Name, e.Field)
		}
		if e.Name == "" || e.Reason == "" || seen[e.Name] {
			return nil, fmt.Errorf(
				"%s: %q: an entry needs a name of its own and a reason", path, e.Name,
			)
		}
		used[e.Predicate], seen[e.Name] = true, true
	}
	for name := range rules {
		if !used[name] {
			return nil, fmt.Errorf("%s: no entry uses the predicate %q", path, name)
		}
	}
	return l, nil
}

// NeverMatched returns the names of the entries that were not needed.
func (l *List) NeverMatched() []string {
	var out []string
	for _, e := range l.Entries {
		if e.Matched() == 0 {
			out = append(out, e.Name)
		}
	}
	return out
}

// Counts returns how often each entry was needed.
func (l *List) Counts() string {
	var out string
	for _, e := range l.Entries {
		out += fmt.Sprintf("  %6d  %s (%s)\n", e.Matched(), e.Name, e.Field)
	}
	return out
}

// Case is one request with both answers.
type Case struct {
	Layout *layout.Layout
	Query  *query.Query
	// Thanos and Larder are the answers; Thanos's is the reference.
	Thanos, Larder *answer.Answer
	Options        answer.Options
	// AskThanos asks Thanos another question.
	AskThanos func(context.Context, *query.Query) (*answer.Answer, error)

	asked map[string]*answer.Answer
}

func (c *Case) ask(ctx context.Context, q *query.Query) (*answer.Answer, error) {
	k := q.String()
	if a, ok := c.asked[k]; ok {
		return a, nil
	}
	a, err := c.AskThanos(ctx, q)
	if err == nil {
		if c.asked == nil {
			c.asked = map[string]*answer.Answer{}
		}
		c.asked[k] = a
	}
	return a, err
}

// rule is a predicate. It sets one or more of its functions; each function that is set must have
// changed or judged something.
type rule struct {
	// request changes the question so that Thanos answers it correctly. It returns false if the
	// rule does not apply to the request.
	request func(c *Case, q *query.Query) bool
	// answer changes Thanos's answer into the right one. It returns false if there was nothing to
	// change.
	answer func(ctx context.Context, c *Case, want *answer.Answer) (bool, error)
	// accept judges larder's answer by itself, where Thanos has no right answer.
	accept func(c *Case) bool
}

// Explain returns the differences that no entry allows.
func (l *List) Explain(ctx context.Context, c *Case) ([]answer.Difference, error) {
	var left []answer.Difference
	for _, d := range answer.Diff(c.Thanos, c.Larder, c.Options) {
		ok, err := l.explainField(ctx, c, d.Field)
		if err != nil {
			return nil, fmt.Errorf("explain %s: %w", d, err)
		}
		if !ok {
			left = append(left, d)
		}
	}
	return left, nil
}

// explainField finds the smallest set of the field's entries that together make the field right.
func (l *List) explainField(ctx context.Context, c *Case, f answer.Field) (bool, error) {
	var es []*Entry
	for _, e := range l.Entries {
		if e.Field == f {
			es = append(es, e)
		}
	}
	sets := make([]uint, 0, 1<<len(es))
	for s := uint(1); s < 1<<len(es); s++ {
		sets = append(sets, s)
	}
	sort.SliceStable(
		sets, func(i, j int) bool { return bits.OnesCount(sets[i]) < bits.OnesCount(sets[j]) },
	)
	for _, s := range sets {
		var chosen []*Entry
		for i, e := range es {
			if s&(1<<i) != 0 {
				chosen = append(chosen, e)
			}
		}
		ok, err := right(ctx, c, f, chosen)
		if err != nil {
			return false, err
		}
		if ok {
			for _, e := range chosen {
				e.matched.Add(1)
			}
			return true, nil
		}
	}
	return false, nil
}

// right reports whether the field is right after all the chosen entries were applied.
func right(ctx context.Context, c *Case, f answer.Field, chosen []*Entry) (bool, error) {
	q, reask, accepted := c.Query.Clone(), false, false
	for _, e := range chosen {
		if e.rule.request != nil {
			if !e.rule.request(c, q) {
				return false, nil
			}
			reask = true
		}
		if e.rule.accept != nil {
			if !e.rule.accept(c) {
				return false, nil
			}
			accepted = true
		}
	}
	if accepted {
		return true, nil
	}
	base := c.Thanos
	if reask {
		var err error
		if base, err = c.ask(ctx, q); err != nil {
			return false, err
		}
	}
	want := clone(base)
	for _, e := range chosen {
		if e.rule.answer == nil {
			continue
		}
		if ok, err := e.rule.answer(ctx, c, want); err != nil || !ok {
			return false, err
		}
	}
	for _, d := range answer.Diff(want, c.Larder, c.Options) {
		if d.Field == f {
			return false, nil
		}
	}
	return true, nil
}

// clone copies an answer as deeply as rules change it.
func clone(a *answer.Answer) *answer.Answer {
	b := *a
	b.Series = slices.Clone(a.Series)
	if a.Info != nil {
		i := *a.Info
		b.Info = &i
	}
	return &b
}
