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

// Document is a configuration document whose values must not be repeated, but for names and what is
// Plain. The zero value is one that holds nothing.
type Document struct {
	values []value // the longest first, since one may contain another
}

// value is a text that is not repeated.
type value struct {
	text string
	// secret says that it is a secret for all that is known: it stands under a key of secrets, or
	// is no name. Other values are hidden because they stand where they should not.
	secret bool
}

// secretKey is a key whose values are never repeated.
var secretKey = regexp.MustCompile(`(?i)secret|token|passw|passphrase|credential|private_?key|` +
	`access_?key|account_?key|encryption_?key|connection_?string|service_account|authorization|` +
	`headers|users|bearer|sas|msi_resource`)

// placeKey is a key that says where a secret is, or of what kind.
var placeKey = regexp.MustCompile(`_(file|type|uri|url)$`)

// SecretKey tells whether values under the key are secrets.
func SecretKey(key string) bool {
	return secretKey.MatchString(key) && !placeKey.MatchString(key)
}

// nameLike are the names and ids that values may be which are no secrets: of accounts and projects,
// UUIDs and the ids of Oracle's cloud.
var nameLike = regexp.MustCompile(`^([a-z0-9][a-z0-9._-]{0,23}|` +
	`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|ocid1\..*)$`)

// shownName tells whether a value names something that people look for: a bucket, a place, a file.
// A name that comes with a user, a password or a query is hidden as a whole.
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

// NewDocument reads a document in YAML. One that is not YAML has no values that anything could
// repeat.
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

// Secrets returns a document that hides less: not what may be the name of an account or of a
// project, which people look for in an error long after the document was taken.
func (d Document) Secrets() Document {
	d.values = slices.DeleteFunc(slices.Clone(d.values), func(v value) bool { return !v.secret })
	return d
}

// NewValues returns a document that consists of values without keys. Those that are Plain stay.
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
			// A secret may stand in the place of a header's name.
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
	default: // aliases end where their anchors were read
		for _, c := range n.Content {
			d.read(c, key, secret)
		}
	}
}

// readJSON reads a value that is a document by itself, such as a service account: what has keys of
// its own is not a secret as a whole. The mail address in it is what errors about permissions name.
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

// add hides a value, and its parts because errors repeat parts: a line of a key, what a URL has in
// the place of a port. The host of a URL is no such part.
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

// Text returns s without the values of the document, and without what Text finds.
func (d Document) Text(s string) string {
	for _, v := range d.values {
		if len(v.text) >= shortest {
			s = hide(s, v.text)
		}
	}
	return Text(s)
}

// Error is Text for the text of an error.
func (d Document) Error(err error) error { return with(err, d.Text) }
