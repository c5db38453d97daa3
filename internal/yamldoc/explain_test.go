package yamldoc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v2 "go.yaml.in/yaml/v2"
)

type outer struct {
	Type   string `yaml:"type"`
	Config any    `yaml:"config"`
	Shared `yaml:",inline"`
	Wait   time.Duration     `yaml:"wait"`
	Names  []string          `yaml:"names"`
	Labels map[string]int    `yaml:"labels"`
	Level  level             `yaml:"level"`
	Nested map[string]*inner `yaml:"nested"`
}

type Shared struct {
	Prefix string `yaml:"prefix"`
}

type inner struct {
	Size     int `yaml:"size"`
	Insecure bool
	Deeper   []inner `yaml:"deeper"`
}

// level decodes itself by the interface of yaml v2.
type level string

func (l *level) UnmarshalYAML(unmarshal func(any) error) error {
	var s string
	if err := unmarshal(&s); err != nil {
		return err
	}
	if s != "high" {
		return fmt.Errorf("got %q, want high", s)
	}
	*l = level(s)
	return nil
}

// TestExplain: an explanation names the line, the keys above it and what belongs there.
func TestExplain(t *testing.T) {
	shape := Shape{Of: outer{}, Parts: map[string]any{"config": &inner{}}}
	f := func(doc, want string) {
		t.Helper()
		var o outer
		err := v2.UnmarshalStrict([]byte(doc), &o)
		if err == nil {
			b, mErr := v2.Marshal(o.Config)
			if err = v2.UnmarshalStrict(b, &inner{}); mErr != nil || err == nil {
				t.Fatalf("the library accepts %q", doc)
			}
		}
		if got := shape.Explain([]byte(doc), err).Error(); got != want {
			t.Errorf("%q:\n got %s\nwant %s", doc, got, want)
		}
	}
	const top = "known keys are type, config, prefix, wait, names, labels, level, nested"
	f("type: a\n\ntpye: b\n", "line 3: unknown key tpye, did you mean type? "+top)
	f("colour: red\n", "line 1: unknown key colour, "+top)
	f(
		"type: a\n# text\nconfig:\n  size: 1\n  sise: 2\n",
		"line 5: config: unknown key sise, did you mean size? known keys are size, insecure, deeper",
	)
	f("config: {size: big}\n", "line 1: config.size: got a string, want a number")
	f(
		"config:\n  deeper:\n  - size: 1\n  - insecure: hunter2\n",
		"line 4: config.deeper[1].insecure: got a string, want true or false",
	)
	f("config: [a]\n", "line 1: config: got a list, want a mapping")
	f("names: {a: b}\n", "line 1: names: got a mapping, want a list")
	f("names: hunter2\n", "line 1: names: got a string, want a list")
	f("wait: often\n", "line 1: wait: got a string, want a duration such as 1m30s")
	f("labels:\n  a: 1\n  b: x\n", "line 3: labels.b: got a string, want a number")
	f("level: low\n", "line 1: level: the value does not belong here")
	f(
		"nested:\n  a: &x {size: 1}\n  b: {<<: *x, sizes: 1}\n",
		"line 3: nested.b: unknown key sizes, did you mean size? known keys are size, insecure, deeper",
	)
	f("type: a\ntype: b\n", "line 2: key type is already in line 1")
	f("a: 1\nb: 2\n", "line 1: unknown key a, "+top+"; line 2: unknown key b, "+top)
	f("hunter2\n", "line 1: got a string, want a mapping")
}

// TestSyntax: a syntax error names the right line. The libraries are off by one for errors of their
// parser.
func TestSyntax(t *testing.T) {
	f := func(doc, want string) {
		t.Helper()
		var any2 any
		err := v2.Unmarshal([]byte(doc), &any2)
		if err == nil {
			t.Fatalf("the library accepts %q", doc)
		}
		if got := (Shape{Of: outer{}}).Explain([]byte(doc), err).Error(); got != want {
			t.Errorf("%q:\n got %s\nwant %s", doc, got, want)
		}
	}
	f("type: S3\nconfig:\n  bucket: b\n endpoint: e\n", "yaml: line 4: did not find expected key")
	f(
		"type: S3\nconfig:\n  bucket: b: c\n  endpoint: e\n",
		"yaml: line 3: mapping values are not allowed in this context",
	)
	f(
		"type: S3\nconfig:\n\tbucket: b\n",
		"yaml: line 3: found character that cannot start any token",
	)
	f(
		"type: S3\nconfig:\n  bucket: 'b\n  endpoint: e\n",
		"yaml: line 3: found unexpected end of stream",
	)
	f(
		"type: S3\nconfig: {bucket: b\nprefix: a\n",
		"yaml: line 3: did not find expected ',' or '}' for what begins in line 2",
	)
	f("type: S3\nconfig:\n  - a\n  b: c\n", "yaml: line 4: did not find expected '-' indicator")
	f("type: S3\nconfig\nprefix: a\n", "yaml: line 2: could not find expected ':'")
	f(
		"type: S3\nconfig:\n  secret_key: *hunter2\n",
		"yaml: line 3: unknown anchor: a string that begins with * must be quoted",
	)
	f("type: S3\nconfig:\n  key: |\n abc\n  z: 1\n", "yaml: line 4: did not find expected key")
	f("type: [", "yaml: line 1: did not find expected node content")
}

// TestItems: the elements of a list are repeated on one line, shortened.
func TestItems(t *testing.T) {
	got := Items(
		[]byte("- action: keep\n  source_labels: [a, b]\n- " + strings.Repeat("x", 1000) + "\n"),
	)
	if len(got) != 2 || got[0] != "{action: keep, source_labels: [a, b]}" ||
		len(got[1]) != maxItem+3 {
		t.Errorf("got %q", got)
	}
	if got := Items([]byte("a: b")); got != nil {
		t.Errorf("items of a mapping: got %q, want none", got)
	}
}
