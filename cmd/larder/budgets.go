package main

import (
	"larder/benchmarks"
	"larder/internal/budget"
)

// budgetsConfig has the flags of the latency budgets.
type budgetsConfig struct {
	yaml content

	defaults, parsed *budget.Document // set by load
}

func (c *budgetsConfig) flags(f flagger) {
	contentFlags(f, &c.yaml, "latency-budgets",
		"the time that requests may take, in total and by stage. Keys: requests, bucket_read. "+
			"A request that takes longer is counted and logged as slow, and continues. "+
			"Also accepts a file of larder bench.")
}

// load parses the budgets over those of larder, which are in budgets.yaml.
func (c *budgetsConfig) load() (err error) {
	if c.defaults, err = budget.Parse(benchmarks.Budgets(), nil); err != nil {
		return err
	}
	b, err := c.yaml.read()
	if err != nil {
		return err
	}
	c.parsed, err = budget.Parse(b, c.defaults)
	return c.yaml.wrap(err)
}

// reload parses the file again.
func (c *budgetsConfig) reload() (*budget.Document, error) {
	b, err := c.yaml.reread()
	if err != nil {
		return nil, err
	}
	d, err := budget.Parse(b, c.defaults)
	return d, c.yaml.wrap(err)
}
