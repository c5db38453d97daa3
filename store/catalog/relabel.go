package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"larder/internal/yamldoc"
)

// BlockIDLabel is the label under which selector relabelling and block matchers see a block's ULID.
const BlockIDLabel = "__block_id"

// ParseRelabelConfig parses Thanos's --selector.relabel-config: a YAML list of relabel rules of
// which only keep, drop and hashmod are allowed. Unknown keys are errors. Empty content is no
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

// checkRelabel refuses what Thanos's store refuses, and fills the defaults of rules made by hand.
// texts are what the rules say where they come from a document, for errors.
func checkRelabel(rules []*relabel.Config, texts []string) error {
	for i, r := range rules {
		rule := fmt.Sprintf("rule %d", i+1)
		if r == nil {
			return fmt.Errorf("selector relabelling: %s is empty", rule)
		}
		if i < len(texts) {
			rule += " " + texts[i]
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
			return fmt.Errorf("selector relabelling: %s: no regex", rule)
		}
	}
	return nil
}

// selector decides by relabel rules which blocks are served. It is not safe for concurrent use.
type selector struct {
	rules   []*relabel.Config
	builder *labels.Builder
}

func newSelector(rules []*relabel.Config) selector {
	return selector{rules: rules, builder: labels.NewBuilder(labels.EmptyLabels())}
}

// keeps reports whether anything of the block's labels is left after the rules.
func (s *selector) keeps(b *Block) bool {
	if len(s.rules) == 0 {
		return true
	}
	s.builder.Reset(b.Labels)
	s.builder.Set(BlockIDLabel, b.ID.String())
	return relabel.ProcessBuilder(s.builder, s.rules...) && !s.builder.Labels().IsEmpty()
}
