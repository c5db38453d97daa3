package requestlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"go.yaml.in/yaml/v3"

	"larder/internal/yamldoc"
)

// Config decides which requests are logged. nil logs none.
type Config struct {
	http struct {
		decision decision
		level    slog.Level // lines below it are suppressed
		// only has the endpoints to log. If it is empty, those of the API are logged.
		only map[endpoint]bool
	}
	grpc struct {
		decision decision
		// only has the full names of the methods to log. If it is empty, all are logged.
		only map[string]bool
	}
}

// decision says when a request is logged.
type decision int

const (
	never decision = iota
	atEnd
	atStartAndEnd
)

// endpoint is a path and a port; port 0 is any.
type endpoint struct {
	path string
	port uint16
}

// document is the YAML of --request.logging-config.
type document struct {
	HTTP struct {
		Options options `yaml:"options"`
		Config  []struct {
			Path string `yaml:"path"`
			Port uint16 `yaml:"port"`
		} `yaml:"config"`
	} `yaml:"http"`
	GRPC struct {
		Options options `yaml:"options"`
		Config  []struct {
			Service string `yaml:"service"`
			Method  string `yaml:"method"`
		} `yaml:"config"`
	} `yaml:"grpc"`
	Options options `yaml:"options"`
}

type options struct {
	Level    string `yaml:"level"`
	Decision struct {
		LogStart bool `yaml:"log_start"`
		LogEnd   bool `yaml:"log_end"`
	} `yaml:"decision"`
}

// Parse parses the YAML of --request.logging-config. Unknown keys are errors. It returns nil for
// empty content.
func Parse(content []byte) (*Config, error) {
	var doc document
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, yamldoc.Shape{Of: doc}.Explain(content, err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	return doc.config()
}

func (d *document) config() (*Config, error) {
	for _, o := range []struct {
		key string
		*options
	}{{"options", &d.Options}, {"http.options", &d.HTTP.Options},
		{"grpc.options", &d.GRPC.Options}} {
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("%s.%w", o.key, err)
		}
	}
	c := &Config{}

	o := d.HTTP.Options.or(d.Options)
	c.http.decision, c.http.level = o.decision(), o.level()
	c.http.only = map[endpoint]bool{}
	for i, e := range d.HTTP.Config {
		if e.Path == "" {
			return nil, fmt.Errorf("http.config[%d].path is missing", i)
		}
		c.http.only[endpoint{e.Path, e.Port}] = true
	}

	c.grpc.decision = d.GRPC.Options.or(d.Options).decision()
	c.grpc.only = map[string]bool{}
	for i, m := range d.GRPC.Config {
		switch {
		case m.Service == "":
			return nil, fmt.Errorf("grpc.config[%d].service is missing", i)
		case m.Method == "":
			return nil, fmt.Errorf("grpc.config[%d].method is missing", i)
		}
		c.grpc.only["/"+m.Service+"/"+m.Method] = true
	}
	return c, nil
}

// check refuses what Thanos refuses, wherever it stands.
func (o *options) check() error {
	start, end := o.Decision.LogStart, o.Decision.LogEnd
	switch o.Level {
	case "INFO", "DEBUG", "ERROR", "WARNING":
	case "":
		if start || end {
			return errors.New("level is missing: want INFO, DEBUG, ERROR or WARNING")
		}
	default:
		return fmt.Errorf("level: got %q, want INFO, DEBUG, ERROR or WARNING", o.Level)
	}
	if start && !end {
		return errors.New("decision: log_start needs log_end")
	}
	return nil
}

// or returns o, or global if o is empty.
func (o options) or(global options) options {
	if o == (options{}) {
		return global
	}
	return o
}

func (o options) decision() decision {
	switch {
	case o.Decision.LogStart:
		return atStartAndEnd
	case o.Decision.LogEnd:
		return atEnd
	}
	return never
}

func (o options) level() slog.Level {
	switch o.Level {
	case "DEBUG":
		return slog.LevelDebug
	case "INFO":
		return slog.LevelInfo
	case "WARNING":
		return slog.LevelWarn
	}
	return slog.LevelError
}
