package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/client"
	"github.com/thanos-io/objstore/providers/bos"
	"github.com/thanos-io/objstore/providers/cos"
	"github.com/thanos-io/objstore/providers/filesystem"
	"github.com/thanos-io/objstore/providers/oci"
	"github.com/thanos-io/objstore/providers/oss"
	"go.yaml.in/yaml/v2"

	"larder/store/catalog"
)

// load reads the documents that flags name and checks what one flag alone cannot show. It changes nothing outside c.
func (c *storeConfig) load(now time.Time) error {
	if c.minTime.Millis(now, math.MinInt64) > c.maxTime.Millis(now, math.MaxInt64) {
		return fmt.Errorf("--min-time %s is after --max-time %s", c.minTime, c.maxTime)
	}
	if err := toolkit.Validate(c.http.configFile); err != nil {
		return fmt.Errorf("--http.config %s: %w", c.http.configFile, err)
	}
	if err := c.grpc.tls.check(); err != nil {
		return err
	}

	b, err := c.objstoreYAML.read()
	if err != nil {
		return err
	}
	c.bucket, err = parseBucket(b)
	if err != nil {
		return c.objstoreYAML.wrap(err)
	}

	b, err = c.relabelYAML.read()
	if err != nil {
		return err
	}
	c.relabel, err = catalog.ParseRelabelConfig(b)
	if err != nil {
		return c.relabelYAML.wrap(err)
	}

	c.tracing, err = c.tracingYAML.read()
	return err
}

// parseBucket reads {type, config, prefix}. It is decoded by the YAML library that the object store clients use: what they take
// for a boolean, for instance, must stay one on the way to them.
func parseBucket(b []byte) (*client.BucketConfig, error) {
	conf := &client.BucketConfig{}
	if err := yaml.UnmarshalStrict(b, conf); err != nil {
		return nil, err
	}
	if conf.Type == "" {
		return nil, errors.New("type is missing")
	}
	if keys := lenientClient(conf.Type); keys != nil {
		inner, err := yaml.Marshal(conf.Config)
		if err != nil {
			return nil, err
		}
		if err := yaml.UnmarshalStrict(inner, keys); err != nil {
			return nil, err
		}
	}
	return conf, nil
}

// lenientClient returns what the configuration of a type is decoded into, for the clients that let unknown keys pass; nil for
// those that refuse them by themselves.
func lenientClient(kind objstore.ObjProvider) any {
	switch objstore.ObjProvider(strings.ToUpper(string(kind))) {
	case objstore.FILESYSTEM:
		return &filesystem.Config{}
	case objstore.BOS:
		return &bos.Config{}
	case objstore.COS:
		return &cos.Config{}
	case objstore.OCI:
		return &oci.Config{}
	case objstore.ALIYUNOSS:
		return &oss.Config{}
	}
	return nil
}

// dataDirError names the flag where the fault is the directory's, which there is only when it is used.
func (c *storeConfig) dataDirError(err error) error {
	if c.cacheIndexHeader {
		return fmt.Errorf("--data-dir: %w", err)
	}
	return err
}
