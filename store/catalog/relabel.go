package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"larder/internal/yamldoc"
)

// BlockIDLabel is the label with a block's ULID in selector relabelling and block matchers.
const BlockIDLabel = "__block_id"

// ParseRelabelConfig parses Thanos's --selector.relabel-config: a YAML list of relabel rules. Only
// the actions keep, drop and hashmod are allowed. Unknown keys are errors. Empty content means no
// rules.
func ParseRelabelConfig(content []byte) ([]*relabel.Config, error) {
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	var rules []*relabel.Config
	if err := dec.Decode(&rules); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf(
			"selector relabelling: %w",
			yamldoc.Shape{Of: rules, Item: "rule"}.Explain(content, err),
		)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("selector relabelling: more than one YAML document")
	}
	if err := checkRelabel(rules, yamldoc.Items(content)); err != nil {
		return nil, err
	}
	return rules, nil
}

// checkRelabel rejects the rules that Thanos's store rejects, and sets the defaults of rules that
// were built in code. quoted are the rules as their document has them, for errors.
func checkRelabel(rules []*relabel.Config, quoted []string) error {
	for i, r := range rules {
		rule := fmt.Sprintf("rule %d", i+1)
		if r == nil {
			return fmt.Errorf("selector relabelling: %s is empty", rule)
		}
		if i < len(quoted) {
			rule += " " + quoted[i]
		}
		switch r.Action {
		case relabel.Keep, relabel.Drop, relabel.HashMod:
		default:
			return fmt.Errorf(
				"selector relabelling: %s: action %q is not supported: only keep, drop and hashmod select blocks",
				rule, r.Action,
			)
		}
		if err := r.Validate(model.UTF8Validation); err != nil {
			return fmt.Errorf("selector relabelling: %s: %w", rule, err)
		}
		if r.Regex.Regexp == nil {
			return fmt.Errorf("selector relabelling: %s: regex is missing", rule)
		}
	}
	return nil
}

// selector selects blocks by relabel rules. It is not safe for concurrent use.
type selector struct {
	rules   []*relabel.Config
	former  [][]*relabel.Config // select more blocks: see ruling
	builder *labels.Builder
}

func newSelector(rules []*relabel.Config) selector {
	return selector{rules: rules, builder: labels.NewBuilder(labels.EmptyLabels())}
}

// keeps reports whether the block has labels left after the rules, or after any former ones.
func (s *selector) keeps(b *Block) bool {
	return s.pass(b, s.rules) ||
		slices.ContainsFunc(s.former, func(f []*relabel.Config) bool { return s.pass(b, f) })
}

// pass reports whether the block has labels left after the rules.
func (s *selector) pass(b *Block, rules []*relabel.Config) bool {
	if len(rules) == 0 {
		return true
	}
	s.builder.Reset(b.Labels)
	s.builder.Set(BlockIDLabel, b.ID.String())
	return relabel.ProcessBuilder(s.builder, rules...) && !s.builder.Labels().IsEmpty()
}
