package yamldoc

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"larder/internal/redaction"
)

// Shape describes the Go type that a document is decoded into.
type Shape struct {
	// Of is a value of that type, or a pointer to one.
	Of any
	// Parts has a value for each interface field within Of, by the path of its keys: config,
	// config.memcached.
	Parts map[string]any
	// Item names the elements of a document that is a list, for instance rule. Errors then repeat
	// the element.
	Item string
}

// maxProblems bounds the problems in one explanation. Users fix the first ones first.
const maxProblems = 5

// Explain explains the error err with which a YAML library rejected text; nil for nil. If it finds
// no explanation, it returns err without the names of Go types.
func (s Shape) Explain(text []byte, err error) error {
	if err == nil {
		return nil
	}
	if plain := syntax(text); plain != nil {
		return plain
	}
	var doc yaml.Node
	if yaml.Unmarshal(text, &doc) != nil || len(doc.Content) == 0 {
		return Plain(err)
	}
	w := walk{shape: s}
	w.value(doc.Content[0], reflect.TypeOf(s.Of), place{})
	if len(w.problems) == 0 {
		return Plain(err)
	}
	if more := len(w.problems) - maxProblems; more > 0 {
		w.problems = append(w.problems[:maxProblems], fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(w.problems, "; "))
}

// Items returns the elements of a document that is a list, each on one line and shortened; nil if
// it is not a list.
func Items(text []byte) []string {
	var doc yaml.Node
	if yaml.Unmarshal(text, &doc) != nil || len(doc.Content) == 0 ||
		doc.Content[0].Kind != yaml.SequenceNode {
		return nil
	}
	var items []string
	for _, n := range doc.Content[0].Content {
		items = append(items, oneLine(n))
	}
	return items
}

// maxItem is the longest part of an element that is repeated, in bytes.
const maxItem = 300

func oneLine(n *yaml.Node) string {
	flow := withoutSecrets(n)
	flow.Style |= yaml.FlowStyle
	b, err := yaml.Marshal(&flow)
	if err != nil {
		return ""
	}
	text := strings.Join(strings.Fields(string(b)), " ")
	if len(text) > maxItem {
		text = strings.ToValidUTF8(text[:maxItem], "") + "..."
	}
	return text
}

// withoutSecrets returns a copy of a value without the values of keys that name secrets.
func withoutSecrets(n *yaml.Node) yaml.Node {
	c := *n
	c.Content = slices.Clone(n.Content)
	for i, e := range c.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && redaction.SecretKey(c.Content[i-1].Value) {
			c.Content[i] = &yaml.Node{Kind: yaml.ScalarNode, Value: redaction.Mark}
			continue
		}
		copied := withoutSecrets(e)
		c.Content[i] = &copied
	}
	return c
}

// place locates a value in a document.
type place struct {
	item string // the element of a list, if Shape.Item is set
	path string // keys, separated by dots
}

func (p place) key(name string) place {
	if p.path != "" {
		name = p.path + "." + name
	}
	p.path = name
	return p
}

func (p place) index(i int) place {
	p.path += fmt.Sprintf("[%d]", i)
	return p
}

// walk compares the values of a document with the types that they are decoded into.
type walk struct {
	shape    Shape
	problems []string
}

func (w *walk) problem(n *yaml.Node, p place, format string, args ...any) {
	text := fmt.Sprintf("line %d: ", n.Line)
	for _, part := range []string{p.item, p.path} {
		if part != "" {
			text += part + ": "
		}
	}
	w.problems = append(w.problems, text+fmt.Sprintf(format, args...))
}

func (w *walk) value(n *yaml.Node, t reflect.Type, p place) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t != nil && t.Kind() == reflect.Interface {
		t = reflect.TypeOf(w.shape.Parts[p.path])
		for t != nil && t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
	}
	if t == nil || n.Tag == "!!null" {
		return
	}
	found := len(w.problems)
	switch {
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode && !isText(t):
		w.mapping(n, t, p)
	case t.Kind() == reflect.Map && n.Kind == yaml.MappingNode:
		w.duplicates(n, p)
		for i := 0; i+1 < len(n.Content); i += 2 {
			w.value(n.Content[i+1], t.Elem(), p.key(n.Content[i].Value))
		}
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for i, e := range n.Content {
			q := p.index(i)
			if p == (place{}) && w.shape.Item != "" {
				q = place{item: fmt.Sprintf("%s %d %s", w.shape.Item, i+1, oneLine(e))}
			}
			w.value(e, t.Elem(), q)
		}
	}
	if len(w.problems) > found {
		return
	}
	want, composed := map[reflect.Kind]yaml.Kind{
		reflect.Struct: yaml.MappingNode, reflect.Map: yaml.MappingNode,
		reflect.Slice: yaml.SequenceNode,
	}[t.Kind()]
	switch {
	case !composed || decodesItself(t):
		if err := n.Decode(reflect.New(t).Interface()); err != nil {
			w.problem(n, p, "%s", w.leaf(n, t, err))
		}
	case want != n.Kind && want == yaml.SequenceNode:
		w.problem(n, p, "got %s, want a list", yamlTag(strings.TrimPrefix(n.Tag, "!!")))
	case want != n.Kind:
		w.problem(n, p, "got %s, want a mapping", yamlTag(strings.TrimPrefix(n.Tag, "!!")))
	}
}

// leaf words the error of a value's type. Types that decode themselves often repeat the value in
// their error. Only items may do so, because they are shown anyway.
func (w *walk) leaf(n *yaml.Node, t reflect.Type, err error) string {
	text := withoutLine(Plain(err)).Error()
	if w.shape.Item != "" || n.Value == "" ||
		!strings.Contains(text, strings.Trim(strconv.Quote(n.Value), `"`)) {
		return text
	}
	if want := yamlKind(t.String()); want != "" {
		return "got " + yamlTag(strings.TrimPrefix(n.Tag, "!!")) + ", want " + want
	}
	return "the value does not belong here"
}

// mapping checks the keys of a structure.
func (w *walk) mapping(n *yaml.Node, t reflect.Type, p place) {
	w.duplicates(n, p)
	fields := fieldsOf(t)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			w.value(value, t, p)
			continue
		}
		f := slices.IndexFunc(fields, func(f field) bool { return f.key == key.Value })
		if f >= 0 {
			w.value(value, fields[f].of, p.key(key.Value))
			continue
		}
		var known []string
		for _, f := range fields {
			known = append(known, f.key)
		}
		name := Nearest(key.Value, known)
		if name == "" && !redaction.Plain(key.Value) {
			// The key contains its value, because the space after the colon is missing.
			w.problem(key, p,
				"unknown key that is not a word: is a space after a colon missing? "+
					"known keys are %s", strings.Join(known, ", "))
			continue
		}
		meant := ""
		if name != "" {
			meant = fmt.Sprintf(" did you mean %s?", name)
		}
		w.problem(key, p, "unknown key %s,%s known keys are %s",
			key.Value, meant, strings.Join(known, ", "))
	}
}

func (w *walk) duplicates(n *yaml.Node, p place) {
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if line, ok := first[key.Value]; ok && key.Kind == yaml.ScalarNode {
			w.problem(key, p, "key %s is already in line %d", redaction.Value(key.Value), line)
			continue
		}
		first[key.Value] = key.Line
	}
}

// field is a key of a structure.
type field struct {
	key string
	of  reflect.Type
}

// fieldsOf returns the keys by which the YAML libraries decode a structure, in the order of its
// fields.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("yaml")
		name, options, _ := strings.Cut(tag, ",")
		switch of := f.Type; {
		case strings.Contains(options, "inline"):
			for of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			if of.Kind() == reflect.Struct {
				fields = append(fields, fieldsOf(of)...)
			}
		case !f.IsExported() || name == "-":
		case name == "":
			fields = append(fields, field{strings.ToLower(f.Name), of})
		default:
			fields = append(fields, field{name, of})
		}
	}
	return fields
}

type oldUnmarshaler interface {
	UnmarshalYAML(func(any) error) error
}

// decodesItself reports whether a type has a method that decodes it.
func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[yaml.Unmarshaler]()) ||
		p.Implements(reflect.TypeFor[oldUnmarshaler]()) ||
		isText(t)
}

func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}
