package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bucket"
	"larder/internal/bucket/slots"
	"larder/store/catalog"
)

// bucketConfig has the flags and documents of the bucket and of the Parquet bucket.
type bucketConfig struct {
	yaml, parquetYAML content
	request           time.Duration // price of a request, 0 = free

	// set by load
	parsed  *bucket.Config
	parquet *bucket.Config // nil for none
}

func (c *bucketConfig) flags(f flagger) {
	c.objstoreFlags(f)
	contentFlags(f, &c.parquetYAML, "objstore-parquet.config",
		"the configuration of a Parquet converter's bucket. "+
			"Blocks that the converter has converted are not served.")
	c.priceFlag(f)
}

// priceFlag registers the price of a request.
func (c *bucketConfig) priceFlag(f flagger) {
	flag(f, "store.read-cost.request", "1ms", &c.request, goDuration,
		"Price of a request to the bucket as a time. Unneeded bytes between needed ones are read "+
			"if that costs less than another request. A higher price means fewer requests and "+
			"more bytes. 0 = requests are free, read no unneeded bytes.")
}

// objstoreFlags registers the flags of the bucket.
func (c *bucketConfig) objstoreFlags(f flagger) {
	c.yaml.required = true
	contentFlags(f, &c.yaml, "objstore.config",
		"the bucket configuration in Thanos's format: type, config, prefix, hedging_config.")
}

// loadBucket reads the document of the bucket.
func (c *bucketConfig) loadBucket() error {
	b, err := c.yaml.read()
	if err != nil {
		return err
	}
	c.parsed, err = bucket.Parse(b)
	return c.yaml.wrap(err)
}

func (c *bucketConfig) load() error {
	if err := c.loadBucket(); err != nil {
		return err
	}
	b, err := c.parquetYAML.read()
	if err != nil || b == nil {
		return err
	}
	c.parquet, err = bucket.Parse(b)
	return c.parquetYAML.wrap(err)
}

// openBucket opens the client stack of the bucket.
func (b *backend) openBucket(reads *slots.Limiter, reg prometheus.Registerer) error {
	var err error
	b.blocks, err = bucket.Open(b.conf.bucket.parsed, bucket.Options{
		Limiter: reads, WholeBytes: b.conf.caches.Memory.WholeObjects(),
		ReadBudget: b.budgets.BucketRead,
		Beneath:    b.conf.hooks.beneath, Logger: b.logger, Registerer: reg,
	})
	if err != nil {
		return b.conf.bucket.yaml.wrap(err)
	}
	b.onClose(func() {
		if err := b.blocks.Close(); err != nil {
			b.logger.Warn("closing failed", "what", "bucket client", "err", err)
		}
	})
	return nil
}

// openParquet opens the client stack of the Parquet converter's bucket. It returns nil if none is
// configured.
func (b *backend) openParquet(
	reads *slots.Limiter, reg prometheus.Registerer,
) (catalog.ParquetBucket, error) {
	conf := b.conf.bucket.parquet
	if conf == nil {
		return nil, nil
	}
	var err error
	b.parquet, err = bucket.Open(conf, bucket.Options{
		Limiter: reads, WholeBytes: b.conf.caches.Memory.WholeObjects(), Beside: b.blocks,
		Logger: b.logger, Registerer: reg,
	})
	if err != nil {
		return nil, err
	}
	b.onClose(func() {
		if err := b.parquet.Close(); err != nil {
			b.logger.Warn("closing failed", "what", "client of the Parquet bucket", "err", err)
		}
	})
	return b.parquet.Bound(), nil
}
