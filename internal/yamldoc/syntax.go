package yamldoc

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	v2 "go.yaml.in/yaml/v2"
	"go.yaml.in/yaml/v3"
)

var (
	syntaxError = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)
	unknownName = regexp.MustCompile(`(?s)^unknown anchor '(.*)' referenced$`)
)

// syntax returns the syntax error of a text with its line, nil if the text is YAML. The libraries
// count lines from zero in errors of the parser, and from one in errors of the scanner. Version 2
// reports the line where it noticed the error, version 3 mostly where the unfinished element
// begins.
func syntax(text []byte) error {
	var any2 any
	noticed := v2.Unmarshal(text, &any2)
	if noticed == nil {
		return nil
	}
	m := syntaxError.FindStringSubmatch(noticed.Error())
	if m == nil || strings.HasPrefix(m[2], "unmarshal errors") {
		return nil
	}
	line, what := number(m[1]), m[2]
	begun := 0
	if err := yaml.Unmarshal(text, new(yaml.Node)); err != nil {
		if b := syntaxError.FindStringSubmatch(err.Error()); b != nil && b[2] == what {
			begun = number(b[1])
		}
	}
	if a := unknownName.FindStringSubmatch(what); a != nil {
		what = "unknown anchor: a string that begins with * must be quoted"
		use := regexp.MustCompile(`(?m)(?:^|[\s,:\[{-])\*` + regexp.QuoteMeta(a[1]))
		if at := use.FindIndex(text); at != nil {
			line = 1 + bytes.Count(text[:at[1]], []byte("\n"))
		}
		return fmt.Errorf("yaml: line %d: %s", line, what)
	}
	last := 1 + bytes.Count(bytes.TrimRight(text, "\n"), []byte("\n"))
	if strings.HasPrefix(what, "did not find expected") {
		line, begun = min(line+1, last), begun+1
		if strings.Contains(what, "',' or") && begun < line {
			what += fmt.Sprintf(" for what begins in line %d", begun)
		}
	} else if begun > 0 {
		line = begun
	}
	return fmt.Errorf("yaml: line %d: %s", max(line, 1), what)
}

func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0 // the library named no line
	}
	return n
}

// withoutLine returns an error without the line numbers of the library.
func withoutLine(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: unmarshal errors:")
	return errors.New(strings.Join(strings.Fields(lineNumber.ReplaceAllString(text, "")), " "))
}

var lineNumber = regexp.MustCompile(`(?m)^ *line \d+: `)
