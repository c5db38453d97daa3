package bucket

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/thanos-io/objstore"

	"larder/internal/redaction"
)

var (
	// s3Name matches names that the client accepts. Some stores allow more than Amazon's rules.
	s3Name    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.:_-]{1,61}[A-Za-z0-9]$`)
	gcsName   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$`)
	azureName = regexp.MustCompile(`^([a-z0-9](-?[a-z0-9]){2,62}|\$root|\$web|\$logs)$`)
)

// bucketKey returns the key whose value names the bucket, "" for an unknown type.
func (c *Config) bucketKey() string {
	switch objstore.ObjProvider(strings.ToUpper(string(c.Type))) {
	case objstore.S3, objstore.GCS, objstore.COS, objstore.OBS, objstore.BOS, objstore.OCI,
		objstore.ALIYUNOSS:
		return "bucket"
	case objstore.AZURE:
		return "container"
	case objstore.SWIFT:
		return "container_name"
	case objstore.FILESYSTEM:
		return "directory"
	}
	return ""
}

func (c *Config) text(key string) string {
	inner, _ := c.Config.(map[any]any)
	s, _ := inner[key].(string)
	return s
}

// checkName rejects a name that no bucket of the type can have. It accepts a missing name, because
// some clients have other sources for it.
//
// Metrics and pages show the name. Therefore checkName rejects a document, or an address with a
// password, in its place. Directories of FILESYSTEM and prefixes may contain an @.
func (c *Config) checkName() error {
	if !redaction.Path(c.Prefix) {
		return errors.New("prefix: the value is no prefix, but a document or an address")
	}
	key := c.bucketKey()
	name := c.text(key)
	if name == "" {
		return nil
	}
	if !redaction.Path(name) || key != "directory" && redaction.Address(name) != name {
		return fmt.Errorf("config.%s: the value is no name, but a document or an address", key)
	}
	rule := ""
	switch objstore.ObjProvider(strings.ToUpper(string(c.Type))) {
	case objstore.S3:
		_, err := netip.ParseAddr(name)
		if err == nil || !s3Name.MatchString(name) || strings.Contains(name, "..") ||
			strings.Contains(name, ".-") || strings.Contains(name, "-.") {
			rule = "S3 names are 3 to 63 letters, digits, dots, hyphens and underscores, " +
				"begin and end with a letter or digit, and are no address"
		}
	case objstore.GCS:
		if !gcsName.MatchString(name) || strings.Contains(name, "..") ||
			strings.HasPrefix(name, "goog") || len(name) > 63 && !strings.Contains(name, ".") {
			rule = "GCS names are 3 to 63 lower-case letters, digits, dots, hyphens and " +
				"underscores, begin and end with a letter or digit, and not with goog"
		}
	case objstore.AZURE:
		if !azureName.MatchString(name) || len(name) > 63 {
			rule = "Azure's containers have 3 to 63 lower-case letters, digits and single " +
				"hyphens, and begin and end with a letter or digit"
		}
	}
	if rule == "" {
		return nil
	}
	return fmt.Errorf("config.%s: %q cannot exist: %s", key, name, rule)
}

// Fingerprint tells buckets apart: a hash of the provider, the name and the prefix. The endpoint
// does not count. It has no secrets.
func (c *Config) Fingerprint() string {
	key := c.bucketKey()
	name := c.text(key)
	if key == "directory" {
		if path, err := filepath.Abs(name); err == nil {
			name = path
		}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", strings.ToUpper(string(c.Type)), name,
		strings.Trim(c.Prefix, "/")))
	return hex.EncodeToString(sum[:8])
}

// where returns the bucket and its endpoint for errors and the log, without secrets.
func (c *Config) where() (bucket, endpoint string) {
	bucket = c.text(c.bucketKey())
	for _, key := range []string{"endpoint", "auth_url", "region"} {
		if endpoint = c.text(key); endpoint != "" {
			break
		}
	}
	if endpoint == "" {
		endpoint = strings.ToUpper(string(c.Type))
	}
	if i := strings.LastIndex(endpoint, "@"); i >= 0 { // after a user and a password
		endpoint = endpoint[i+1:]
	}
	return redaction.Text(bucket), redaction.Address(endpoint)
}
