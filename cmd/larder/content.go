package main

import (
	"fmt"
	"os"
	"regexp"
)

// content is Thanos's pair of flags for a YAML document: X holds it, X-file names a file that does. $(NAME) in it stands for
// an environment variable.
type content struct {
	name, inline, path string
	required           bool
}

func contentFlags(f flagger, c *content, name, help string) {
	c.name = name
	flag(f, name+"-file", "Path to the YAML file that "+help, "", &c.path, text).PlaceHolder("<file-path>")
	flag(f, name, "Alternative to --"+name+"-file (mutually exclusive): the YAML itself.", "", &c.inline, text).PlaceHolder("<content>")
}

// read returns the document, nil if none was given.
func (c *content) read() ([]byte, error) {
	b := []byte(c.inline)
	if c.path != "" {
		if c.inline != "" {
			return nil, fmt.Errorf("--%s and --%s-file exclude each other", c.name, c.name)
		}
		var err error
		if b, err = os.ReadFile(c.path); err != nil {
			return nil, fmt.Errorf("--%s-file: %w", c.name, err)
		}
	}
	if len(b) == 0 {
		if c.required {
			return nil, fmt.Errorf("--%s or --%s-file is required and must not be empty", c.name, c.name)
		}
		return nil, nil
	}
	return c.expand(b)
}

// wrap names the flag that the document came from.
func (c *content) wrap(err error) error {
	if err == nil {
		return nil
	}
	if c.path != "" {
		return fmt.Errorf("--%s-file %s: %w", c.name, c.path, err)
	}
	return fmt.Errorf("--%s: %w", c.name, err)
}

// expand replaces $(NAME). A variable that is not set is an error: an empty secret key would fail much later and elsewhere.
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
