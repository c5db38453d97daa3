package main

import (
	"errors"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/client"
	"github.com/thanos-io/objstore/providers/bos"
	"github.com/thanos-io/objstore/providers/cos"
	"github.com/thanos-io/objstore/providers/filesystem"
	"github.com/thanos-io/objstore/providers/oci"
	"github.com/thanos-io/objstore/providers/oss"
	"go.yaml.in/yaml/v2"

	"larder/internal/telemetry"
)

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

// openBucket makes the client that the configuration describes. Its metrics have the names that Thanos's dashboards and alerts
// read: thanos_objstore_bucket_*.
func openBucket(conf *storeConfig, logger *slog.Logger, reg prometheus.Registerer) (objstore.InstrumentedBucket, error) {
	b, err := client.NewBucketFromConfig(telemetry.GoKit(logger), conf.bucket, "larder", nil)
	if err != nil {
		return nil, conf.objstoreYAML.wrap(err)
	}
	return objstore.WrapWith(b, objstore.BucketMetrics(prometheus.WrapRegistererWithPrefix("thanos_", reg), b.Name())), nil
}
