package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kingpin/v2"

	"larder/benchmarks/curves"
	"larder/internal/pagetrace"
)

// curvesCommand is `larder bench curves`: it computes hit ratios of other cache sizes.
type curvesCommand struct {
	cmd                *kingpin.CmdClause
	path               string
	accesses           int
	jsonPath, htmlPath string
}

func registerCurves(group *kingpin.CmdClause) *curvesCommand {
	c := &curvesCommand{}
	c.cmd = group.Command("curves",
		"Compute the hit ratios of caches of other sizes from a page trace of larder store.")
	c.cmd.Arg("trace", "Trace that larder store --page-trace-size has recorded.").Required().
		StringVar(&c.path)
	flag(c.cmd, "max-accesses", "2000000", &c.accesses, integer(1),
		"Maximum number of page accesses to replay. A longer trace is sampled by pages. "+
			"More are more exact and take longer.")
	flag(c.cmd, "json", "", &c.jsonPath, text, "Path to write the result to as JSON.")
	flag(c.cmd, "html", "", &c.htmlPath, text, "Path to write the result to as one HTML page.")
	return c
}

func (c *curvesCommand) run(stdout io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := checkOutputs(c.outputs(&curves.Curves{})...); err != nil {
		return err
	}
	open := func() (*pagetrace.Reader, func() error, error) { return pagetrace.Open(c.path) }
	result, err := curves.Draw(ctx, open, curves.Options{MaxAccesses: c.accesses})
	if err != nil {
		return err
	}
	return errors.Join(result.WriteText(stdout), writeFiles(c.outputs(result)...))
}

// outputs are the files of a result.
func (c *curvesCommand) outputs(result *curves.Curves) []output {
	return []output{
		{"json", c.jsonPath, result.WriteJSON}, {"html", c.htmlPath, result.WriteHTML},
	}
}
