package membership

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v2"

	"larder/internal/yamldoc"
	"larder/shard"
)

// configDoc is the document of --shard.config-file.
type configDoc struct {
	Epoch uint64   `yaml:"epoch"`
	Count int      `yaml:"count"`
	Zones []string `yaml:"zones"`
	// Cluster names the processes that share blocks.
	Cluster string `yaml:"cluster"`
}

// ParseConfig parses a configuration: epoch, count and zones, all required, and the name of the
// cluster, which may be empty. Zones may be in any order.
func ParseConfig(b []byte) (c shard.Config, cluster string, err error) {
	var doc configDoc
	if len(bytes.TrimSpace(b)) == 0 {
		return c, "", errors.New("the document is empty: want epoch, count and zones")
	}
	if err := yaml.UnmarshalStrict(b, &doc); err != nil {
		return c, "", yamldoc.Shape{Of: doc}.Explain(b, err)
	}
	if len(doc.Cluster) > maxClusterBytes {
		return c, "", fmt.Errorf("the name of the cluster has %d bytes, want at most %d",
			len(doc.Cluster), maxClusterBytes)
	}
	slices.Sort(doc.Zones)
	c = shard.Config{Epoch: doc.Epoch, Count: doc.Count, Zones: doc.Zones}
	return c, doc.Cluster, c.Validate()
}

// contradiction returns an error if a configuration has the epoch of a persisted one and another
// content.
func contradiction(record shard.State, c shard.Config) error {
	for _, known := range []shard.Config{record.Previous, record.Current, record.Next} {
		if !known.IsZero() && known.Epoch == c.Epoch && !known.Equal(c) {
			return changed(known, c)
		}
	}
	return nil
}

// backwards returns an error if a configuration changed without a higher epoch.
func backwards(old, c shard.Config) error {
	switch {
	case c.Epoch == old.Epoch && !c.Equal(old):
		return changed(old, c)
	case c.Epoch < old.Epoch:
		return fmt.Errorf("epoch %d is below %d, which was read before: "+
			"to go back to a former count, give it a new, higher epoch", c.Epoch, old.Epoch)
	}
	return nil
}

func changed(old, c shard.Config) error {
	return fmt.Errorf("epoch %d is already known with count %d and zones %q, "+
		"now it has count %d and zones %q: raise the epoch with each change",
		c.Epoch, old.Count, old.Zones, c.Count, c.Zones)
}
