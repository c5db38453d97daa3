package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/alecthomas/kingpin/v2"

	"larder/internal/redaction"
	"larder/internal/yamldoc"
)

// content is Thanos's pair of flags for a YAML document: X has the document, X-file the path of its
// file. $(NAME) in the document is replaced by an environment variable.
type content struct {
	name, inline, path string
	required           bool
	// empty reports that the document was always empty so far.
	empty bool
	// hidden has the values of the last document, which errors must not repeat.
	hidden redaction.Document
}

func contentFlags(f flagger, c *content, name, help string) { c.register(f, name, help) }

func hiddenContentFlags(f flagger, c *content, name, help string) {
	file, inline := c.register(f, name, help)
	file.Hidden()
	inline.Hidden()
}

func (c *content) register(f flagger, name, help string) (file, inline *kingpin.FlagClause) {
	c.name = name
	file = flag(f, name+"-file", "", &c.path, text,
		"Path to a YAML file with "+help).PlaceHolder("<file-path>")
	inline = flag(f, name, "", &c.inline, text,
		"Content of that YAML file. Alternative to --"+name+"-file (mutually exclusive).",
	).PlaceHolder("<content>")
	return file, inline
}

// read returns the document at the start, nil if none was given.
func (c *content) read() ([]byte, error) {
	b, err := c.document()
	c.empty = b == nil
	return b, err
}

func (c *content) document() ([]byte, error) {
	b := []byte(c.inline)
	if c.path != "" {
		if c.inline != "" {
			return nil, fmt.Errorf("--%s and --%s-file are mutually exclusive", c.name, c.name)
		}
		var err error
		if b, err = os.ReadFile(c.path); err != nil {
			return nil, fmt.Errorf("--%s-file: %w", c.name, redaction.File(err))
		}
	}
	if len(b) == 0 {
		if c.required {
			return nil, fmt.Errorf(
				"--%s or --%s-file is required and must not be empty", c.name, c.name,
			)
		}
		return nil, nil
	}
	b, err := c.expand(b)
	c.hidden = redaction.NewDocument(b)
	return b, err
}

// reread reads a file that may have changed. A file that has become empty is an error, because it
// may be half written.
func (c *content) reread() ([]byte, error) {
	b, err := c.document()
	if err == nil && b == nil && !c.empty {
		err = c.wrap(errors.New("the file is empty"))
	}
	c.empty = c.empty && b == nil
	return b, err
}

// flag returns the flag that gave the document.
func (c *content) flag() string {
	if c.path != "" {
		return "--" + c.name + "-file"
	}
	return "--" + c.name
}

// wrap adds the flag and the file of the document to an error, and hides values of the document
// that may be secrets.
func (c *content) wrap(err error) error {
	if err == nil {
		return nil
	}
	err = c.hidden.Error(yamldoc.Plain(err))
	if c.path != "" {
		return fmt.Errorf("%s %s: %w", c.flag(), c.path, err)
	}
	return fmt.Errorf("%s: %w", c.flag(), err)
}

// expand replaces $(NAME). A variable that is not set is an error, because an empty secret key
// would fail much later and elsewhere.
func (c *content) expand(b []byte) ([]byte, error) {
	var missing error
	out := regexp.MustCompile(`\$\([a-zA-Z_0-9]+\)`).ReplaceAllFunc(b, func(ref []byte) []byte {
		name := string(ref[2 : len(ref)-1])
		v, ok := os.LookupEnv(name)
		if !ok && missing == nil {
			missing = fmt.Errorf("$(%s): the environment variable is not set", name)
		}
		return []byte(v)
	})
	return out, c.wrap(missing)
}
