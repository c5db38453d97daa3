package redaction

import (
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Document has the values of a configuration document that must not be repeated. Names and values
// that are Plain may be. The zero value hides nothing.
type Document struct {
	values []value // the longest first, because one may contain another
}

// value is a text to hide.
type value struct {
	text string
	// secret marks a value that must be treated as a secret: it is under a key of secrets, or does
	// not look like a name. Other values are hidden because they may be secrets under a wrong key.
	secret bool
}

// secretKey matches keys whose values are secrets.
var secretKey = regexp.MustCompile(`(?i)secret|token|passw|passphrase|credential|private_?key|` +
	`access_?key|account_?key|encryption_?key|connection_?string|service_account|authorization|` +
	`headers|users|bearer|sas|msi_resource`)

// placeKey matches keys that name the location or the kind of a secret.
var placeKey = regexp.MustCompile(`_(file|type|uri|url)$`)

// SecretKey reports whether values under the key are secrets.
func SecretKey(key string) bool {
	return secretKey.MatchString(key) && !placeKey.MatchString(key)
}

// nameLike matches names and ids that are not secrets: names of accounts and projects, UUIDs, ids
// of Oracle's cloud.
var nameLike = regexp.MustCompile(`^([a-z0-9][a-z0-9._-]{0,23}|` +
	`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|ocid1\..*)$`)

// shownName reports whether a value is a name that may be shown: of a bucket, a region, a file. A
// name with a user, a password or a query is hidden completely.
func shownName(key, value string) bool {
	if !Path(value) {
		return false
	}
	if strings.HasSuffix(key, "_file") || strings.HasSuffix(key, "_email") {
		return true
	}
	return Address(value) == value && (placeKey.MatchString(key) || slices.Contains([]string{
		"type", "bucket", "container", "container_name", "directory", "prefix", "region",
		"endpoint", "auth_url", "addresses", "namespace", "path", "service", "method",
	}, key))
}

// NewDocument parses a YAML document. The Document of a text that is not YAML hides nothing.
func NewDocument(text []byte) Document {
	var root yaml.Node
	if yaml.Unmarshal(text, &root) != nil {
		return Document{}
	}
	var d Document
	d.read(&root, "", false)
	d.sort()
	return d
}

// Secrets returns a Document that hides only secrets. Names of accounts and projects are shown,
// because later errors need them.
func (d Document) Secrets() Document {
	d.values = slices.DeleteFunc(slices.Clone(d.values), func(v value) bool { return !v.secret })
	return d
}

// NewValues returns a Document of values without keys. It shows values that are Plain.
func NewValues(values ...string) Document {
	var d Document
	for _, v := range values {
		if !Plain(v) {
			d.add(v, true)
		}
	}
	d.sort()
	return d
}

func (d *Document) sort() {
	slices.SortFunc(d.values, func(a, b value) int { return cmp.Compare(len(b.text), len(a.text)) })
}

func (d *Document) read(n *yaml.Node, key string, secret bool) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i].Value
			// A secret may be given as the name of a header.
			if secret && len(k) >= 2*shortest && !word.MatchString(k) {
				d.add(k, true)
			}
			d.read(n.Content[i+1], k, secret || SecretKey(k))
		}
	case yaml.ScalarNode:
		switch {
		case secret && d.readJSON(n.Value):
		case secret || !shownName(key, n.Value) && !Plain(n.Value):
			d.add(n.Value, secret || !nameLike.MatchString(n.Value))
		}
	default: // aliases are read at their anchors
		for _, c := range n.Content {
			d.read(c, key, secret)
		}
	}
}

// readJSON reads a value that is a JSON document, such as a service account. Its keys decide which
// of its values are hidden. Its mail address is shown, because errors about permissions name it.
func (d *Document) readJSON(text string) bool {
	var inner yaml.Node
	if !json.Valid([]byte(text)) || !strings.HasPrefix(strings.TrimSpace(text), "{") ||
		yaml.Unmarshal([]byte(text), &inner) != nil {
		return false
	}
	d.values = append(d.values, value{text, true})
	d.read(&inner, "", false)
	return true
}

// add hides a value and its parts, because errors repeat parts such as a line of a key or the port
// of a URL. It does not hide the host of a URL.
func (d *Document) add(text string, secret bool) {
	d.values = append(d.values, value{text, secret})
	for _, part := range strings.FieldsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || strings.ContainsRune("\"'`\\{}[],:;@?&=<>", r)
	}) {
		if len(part) >= 2*shortest && !Plain(part) && !strings.HasPrefix(part, "//") {
			d.values = append(d.values, value{part, secret})
		}
	}
}

// Text returns s with the values of the document hidden, and the secrets that the function Text
// finds.
func (d Document) Text(s string) string {
	for _, v := range d.values {
		if len(v.text) >= shortest {
			s = hide(s, v.text)
		}
	}
	return Text(s)
}

// Error applies Text to the text of an error.
func (d Document) Error(err error) error { return with(err, d.Text) }
