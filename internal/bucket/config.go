package bucket

import (
	"errors"
	"fmt"
	"strings"

	"github.com/thanos-io/objstore"
	providers "github.com/thanos-io/objstore/client"
	"github.com/thanos-io/objstore/providers/azure"
	"github.com/thanos-io/objstore/providers/bos"
	"github.com/thanos-io/objstore/providers/cos"
	"github.com/thanos-io/objstore/providers/filesystem"
	"github.com/thanos-io/objstore/providers/gcs"
	"github.com/thanos-io/objstore/providers/obs"
	"github.com/thanos-io/objstore/providers/oci"
	"github.com/thanos-io/objstore/providers/oss"
	"github.com/thanos-io/objstore/providers/s3"
	"github.com/thanos-io/objstore/providers/swift"
	"go.yaml.in/yaml/v2"

	"larder/internal/redaction"
	"larder/internal/yamldoc"
)

// Config is the content of Thanos's bucket.yml. Parse makes it.
type Config struct {
	providers.BucketConfig `yaml:",inline"`
	Hedging                Hedging `yaml:"hedging_config"`
	// hidden has the secrets of the document. Log lines of the client and errors about the document
	// do not repeat them.
	hidden redaction.Document
}

// Hedging has the keys that Thanos documents, with the same meaning. Thanos itself rejects the key.
type Hedging struct {
	Enabled bool `yaml:"enabled"`
	// UpTo is how many requests may follow the first.
	UpTo int `yaml:"up_to"`
	// Quantile of the times to the first byte is the delay before another request starts.
	Quantile float64 `yaml:"quantile"`
}

// name returns the name of the bucket or container, "" for types without one.
func (c *Config) name() string {
	inner, ok := c.Config.(map[any]any)
	if !ok {
		return ""
	}
	for _, key := range []string{"bucket", "container", "container_name"} {
		if name, ok := inner[key].(string); ok {
			return name
		}
	}
	return ""
}

// maxHedges is far more than is useful. A larger number is taken for a mistake.
const maxHedges = 10

func (c *Hedging) check() error {
	if c.UpTo < 1 || c.UpTo > maxHedges {
		return fmt.Errorf("hedging_config: up_to must be from 1 to %d, got %d", maxHedges, c.UpTo)
	}
	if !(c.Quantile > 0 && c.Quantile < 1) {
		return fmt.Errorf("hedging_config: quantile must be between 0 and 1, got %v", c.Quantile)
	}
	return nil
}

// Parse decodes a document {type, config, prefix, hedging_config} and checks its keys and the name
// of the bucket. It uses the YAML library of the object store clients, so that a value such as yes
// has the same type for larder and for the client.
func Parse(b []byte) (*Config, error) {
	conf := &Config{
		Hedging: Hedging{UpTo: 3, Quantile: 0.95}, hidden: redaction.NewDocument(b),
	}
	if err := yaml.UnmarshalStrict(b, conf); err != nil {
		return nil, Shape(conf.Type).Explain(b, err)
	}
	if conf.Type == "" {
		return nil, errors.New("type is missing")
	}
	if err := conf.Hedging.check(); err != nil {
		return nil, err
	}
	if inner, ok := conf.Config.(map[any]any); ok {
		if strings.EqualFold(string(conf.Type), string(objstore.AZURE)) {
			// Otherwise the client looks for the container on creation and creates a missing one.
			// larder starts without its bucket and writes nothing.
			inner["storage_create_container"] = false
		}
		oneRetrier(conf.Type, inner)
	}
	if keys := clientConfig(conf.Type); keys != nil {
		// Some clients accept unknown keys. Others report lines of the inner document only.
		inner, err := yaml.Marshal(conf.Config)
		if err != nil {
			return nil, err
		}
		if err := yaml.UnmarshalStrict(inner, keys); err != nil {
			return nil, Shape(conf.Type).Explain(b, err)
		}
	}
	if err := conf.checkName(); err != nil {
		return nil, err
	}
	return conf, nil
}

// oneRetrier disables the retries of a client whose configuration does not ask for them.
// internal/bucket/retry repeats requests instead, within the budget of the bucket. It must see each
// refusal, because it lowers the number of concurrent reads by them.
func oneRetrier(kind objstore.ObjProvider, conf map[any]any) {
	switch objstore.ObjProvider(strings.ToUpper(string(kind))) {
	case objstore.S3, objstore.GCS, objstore.AZURE, objstore.COS, objstore.OBS:
	default:
		return
	}
	if _, given := conf["max_retries"]; given {
		return
	}
	conf["max_retries"] = 1 // S3, GCS and COS count the first request
	isS3 := strings.EqualFold(string(kind), string(objstore.S3))
	if region, _ := conf["region"].(string); region == "" && isS3 {
		// The first request may find out that the bucket is in another region.
		conf["max_retries"] = 2
	}
}

// clientConfig returns a value of the type that a provider's client decodes its configuration into.
// It is nil for an unknown type of bucket.
func clientConfig(kind objstore.ObjProvider) any {
	switch objstore.ObjProvider(strings.ToUpper(string(kind))) {
	case objstore.FILESYSTEM:
		return &filesystem.Config{}
	case objstore.S3:
		return &s3.Config{}
	case objstore.GCS:
		return &gcs.Config{}
	case objstore.AZURE:
		return &azure.Config{}
	case objstore.SWIFT:
		return &swift.Config{}
	case objstore.OBS:
		return &obs.Config{}
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

// Shape describes the document of a bucket of a type, for errors about its keys.
func Shape(kind objstore.ObjProvider) yamldoc.Shape {
	return yamldoc.Shape{Of: Config{}, Parts: map[string]any{"config": clientConfig(kind)}}
}
