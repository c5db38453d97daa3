package yamldoc

import (
	"errors"
	"regexp"
	"strings"

	"larder/internal/redaction"
)

var (
	unknownKey = regexp.MustCompile(`field (.+) not found in type .*`)
	wrongKind  = regexp.MustCompile("cannot unmarshal !!(\\w+)(?s: `.*`)? into (.*)")
	wrongTag   = regexp.MustCompile("cannot decode !!\\w+(?s: `.*`)? as a (!!\\w+)")
	noAnchor   = regexp.MustCompile("unknown anchor '(?s:.*)' referenced")
)

// Plain rewords an error of a YAML library without the names of Go types and without values, which
// may be secrets in the wrong place.
func Plain(err error) error {
	if !strings.Contains(err.Error(), "yaml:") {
		return err
	}
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		line = unknownKey.ReplaceAllStringFunc(line, func(s string) string {
			return "field " + redaction.Value(unknownKey.FindStringSubmatch(s)[1]) + " not found"
		})
		line = wrongTag.ReplaceAllString(line, "a value is not a $1")
		line = noAnchor.ReplaceAllString(
			line, "unknown anchor: a string that begins with * must be quoted",
		)
		lines[i] = wrongKind.ReplaceAllStringFunc(line, func(s string) string {
			m := wrongKind.FindStringSubmatch(s)
			if want := yamlKind(m[2]); want != "" {
				return "got " + yamlTag(m[1]) + ", want " + want
			}
			return yamlTag(m[1]) + " does not belong here"
		})
	}
	return errors.New(strings.Join(lines, "\n"))
}

// yamlTag names the kind of a value in a document.
func yamlTag(tag string) string {
	switch tag {
	case "seq":
		return "a list"
	case "map":
		return "a mapping"
	case "bool":
		return "true or false"
	case "int", "float":
		return "a number"
	}
	return "a string"
}

// yamlKind names the kind of value that a Go type is decoded from; "" if the name of the type does
// not tell.
func yamlKind(goType string) string {
	switch name := strings.TrimLeft(goType, "*"); {
	case name == "bool":
		return "true or false"
	case name == "string":
		return "a string"
	case name == "uint16":
		return "a number from 0 to 65535"
	case name == "uint32":
		return "a number from 0 to 4294967295"
	case strings.HasPrefix(name, "int"),
		strings.HasPrefix(name, "uint"),
		strings.HasPrefix(name, "float"):
		return "a number"
	case strings.HasSuffix(name, ".Duration"):
		return "a duration such as 1m30s"
	case strings.HasPrefix(name, "[]"):
		return "a list"
	case strings.HasPrefix(name, "map["), strings.HasPrefix(name, "struct {"):
		return "a mapping"
	}
	return ""
}
