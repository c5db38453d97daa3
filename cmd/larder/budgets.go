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
			"bucket_read has an effect only with hedging_config in --objstore.config. "+
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

// setBudgets replaces the budgets.
func (b *backend) setBudgets(d *budget.Document) {
	b.budgets.Set(d)
	b.warnOfBudgets(d)
}

// warnOfBudgets warns of a budget without effect.
func (b *backend) warnOfBudgets(d *budget.Document) {
	if d.BucketRead > 0 && !b.conf.bucket.parsed.Hedging.Enabled {
		b.logger.Warn("latency budget bucket_read has no effect without hedging_config",
			"bucket_read", d.BucketRead)
	}
}
