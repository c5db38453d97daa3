package listing

import (
	"encoding/json"
	"slices"
)

// jsonScanner checks the keys of a JSON object, and some of its values that are strings. It does
// not check that the document is well formed, because the client decodes it.
type jsonScanner struct {
	wanted []string
	// verify is called at the end of the document with the keys of the object and the string values
	// of the wanted keys. It returns why the document is no listing, "" if it is one.
	verify func(keys map[string]bool, values map[string]string) string

	depth   int
	done    bool
	text    bool // in a string
	escaped bool // after a backslash in it
	isKey   bool // the next string of the object is a key
	key     string
	keep    bool // the string is kept in value
	value   kept
	keys    map[string]bool
	values  map[string]string
}

// maxKeys bounds the keys that are kept. No listing has as many.
const maxKeys = 32

func (s *jsonScanner) complete() bool { return s.done }

func (s *jsonScanner) feed(p []byte) string {
	for _, c := range p {
		switch {
		case s.done:
			return ""
		case s.text:
			s.inText(c)
		case s.depth == 0:
			switch c {
			case ' ', '\t', '\r', '\n', 0xef, 0xbb, 0xbf:
			case '{':
				s.depth, s.isKey, s.keys, s.values = 1, true, map[string]bool{}, map[string]string{}
			default:
				return "it is no JSON object"
			}
		case c == '"':
			s.text, s.keep, s.value = true, s.depth == 1, kept{b: append(s.value.b[:0], '"')}
		case c == '{' || c == '[':
			s.depth++
		case c == '}' || c == ']':
			if s.depth--; s.depth == 0 {
				s.done = true
				return s.verify(s.keys, s.values)
			}
		case s.depth == 1 && c == ':':
			s.isKey = false
		case s.depth == 1 && c == ',':
			s.isKey = true
		}
	}
	return ""
}

// inText handles a byte of a string, which may be its last.
func (s *jsonScanner) inText(c byte) {
	if s.keep {
		s.value.add([]byte{c})
	}
	switch {
	case s.escaped:
		s.escaped = false
	case c == '\\':
		s.escaped = true
	case c == '"':
		s.text = false
		if s.keep {
			s.endText()
		}
	}
}

func (s *jsonScanner) endText() {
	var text string
	if s.value.cut || json.Unmarshal(s.value.b, &text) != nil {
		s.key = ""
		return
	}
	switch {
	case s.isKey:
		if s.key = text; len(s.keys) < maxKeys {
			s.keys[text] = true
		}
	case slices.Contains(s.wanted, s.key):
		s.values[s.key] = text
	}
}
