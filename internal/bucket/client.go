package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/thanos-io/objstore"
	providers "github.com/thanos-io/objstore/client"
	"go.yaml.in/yaml/v2"

	"larder/internal/bucket/listing"
	"larder/internal/bucket/slots"
	"larder/internal/extent"
	"larder/internal/redaction"
	"larder/internal/telemetry"
)

// client forwards requests to the provider's current client, which replace exchanges when the
// credentials change. Requests may still use a former client, so it is never closed. Most types
// have nothing to close, and there is one former client per change of credentials.
type client struct {
	logger  *slog.Logger
	conf    *Config // of the current client; used by replace only
	current atomic.Pointer[objstore.Bucket]
	hidden  atomic.Pointer[redaction.Document] // the secrets of the current client's configuration
	// place is what errors name.
	place struct{ bucket, endpoint string }
	// answered reports whether the bucket has answered any request. failure is the error of the
	// last operation that failed.
	answered atomic.Bool
	failure  atomic.Pointer[error]
}

func newClient(conf *Config, logger *slog.Logger) (*client, error) {
	c := &client{logger: logger, conf: conf}
	b, err := c.connect(conf)
	if err != nil {
		return nil, err
	}
	c.current.Store(&b)
	c.hide(conf)
	c.place.bucket, c.place.endpoint = conf.where()
	return c, nil
}

func (c *client) connect(conf *Config) (objstore.Bucket, error) {
	verify := listing.Transport(conf.Type, conf.name())
	logger := telemetry.GoKit(c.logger, conf.hidden)
	b, err := providers.NewBucketFromConfig(logger, &conf.BucketConfig, "larder",
		func(rt http.RoundTripper) http.RoundTripper {
			keepConnections(rt)
			if rt = extent.Transport(rt); verify != nil {
				rt = verify(rt)
			}
			return rt
		})
	if err != nil {
		return nil, err
	}
	b = withFiles(b, conf)
	if strings.EqualFold(string(conf.Type), string(objstore.FILESYSTEM)) {
		b = extent.Stating(b)
	}
	return b, nil
}

// keepConnections makes a transport with the default limits keep an idle connection for each read
// that may run at once. With fewer, a burst of reads would open and close connections all the time.
// Limits that an operator has set to another value stay.
func keepConnections(rt http.RoundTripper) {
	const byDefault = 100 // of objstore's clients
	t, ok := rt.(*http.Transport)
	if ok && t.MaxIdleConns == byDefault && t.MaxIdleConnsPerHost == byDefault {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = slots.DefaultMax, slots.DefaultMax
	}
}

// tryTimeout bounds the listing that tests new credentials.
const tryTimeout = 30 * time.Second

// replace builds a client from a configuration that differs in credentials only, tests it with a
// listing, and makes it the current one. After an error the former client stays. Calls must not
// overlap.
func (c *client) replace(ctx context.Context, conf *Config) error {
	if reflect.DeepEqual(c.conf, conf) {
		return nil
	}
	if keys := changedKeys(c.conf, conf); len(keys) > 0 {
		return fmt.Errorf("only credentials can change while larder runs: %s needs a restart",
			strings.Join(keys, ", "))
	}
	next, err := c.connect(conf)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	found := errors.New("found")
	err = next.Iter(ctx, "", func(string) error { return found })
	if err != nil && !errors.Is(err, found) {
		return fmt.Errorf("the bucket cannot be listed with it: %w", err)
	}
	c.hide(conf)
	c.current.Store(&next)
	c.conf = conf
	return nil
}

// credentialKeys returns the keys, of all types of buckets, that authenticate larder. They do not
// say where the bucket is.
func credentialKeys() []string {
	return []string{
		"access_key", "secret_key", "session_token", // S3, BOS, OBS, COS
		"service_account",                                                   // GCS
		"storage_account_key", "client_id", "client_secret", "az_tenant_id", // AZURE
		"user_assigned_id",                   // AZURE
		"secret_id",                          // COS
		"access_key_id", "access_key_secret", // ALIYUNOSS
		"username", "password", "application_credential_id", // SWIFT
		"application_credential_name", "application_credential_secret", // SWIFT
		"user_ocid", "fingerprint", "privatekey", "passphrase", // OCI
	}
}

// changedKeys returns the keys, except credentials, whose values differ between two configurations.
func changedKeys(a, b *Config) []string {
	keysOf := func(c *Config) map[string]any {
		keys := map[string]any{"type": c.Type, "prefix": c.Prefix, "hedging_config": c.Hedging}
		text, err := yaml.Marshal(c.Config)
		if err != nil {
			return keys // it was read from YAML
		}
		var inner map[string]any
		if yaml.Unmarshal(text, &inner) == nil {
			for k, v := range inner {
				keys["config."+k] = v
			}
		}
		for _, k := range credentialKeys() {
			delete(keys, "config."+k)
		}
		return keys
	}
	old, cur := keysOf(a), keysOf(b)
	changed := map[string]bool{}
	for k := range old {
		changed[k] = !reflect.DeepEqual(old[k], cur[k])
	}
	for k := range cur {
		changed[k] = !reflect.DeepEqual(old[k], cur[k])
	}
	maps.DeleteFunc(changed, func(_ string, is bool) bool { return !is })
	return slices.Sorted(maps.Keys(changed))
}

// hide makes redacted remove the secrets of a configuration from errors.
func (c *client) hide(conf *Config) {
	secrets := conf.hidden.Secrets()
	c.hidden.Store(&secrets)
}

func (c *client) use() objstore.Bucket { return *c.current.Load() }

// What follows is objstore.Bucket.

func (c *client) Close() error                   { return c.use().Close() }
func (c *client) Name() string                   { return c.use().Name() }
func (c *client) Provider() objstore.ObjProvider { return c.use().Provider() }

func (c *client) Iter(
	ctx context.Context, dir string, f func(string) error, opts ...objstore.IterOption,
) error {
	var stopped error // an error of f is not one of the bucket
	err := c.use().Iter(ctx, dir, func(name string) error {
		c.answered.Store(true)
		stopped = f(name)
		return stopped
	}, opts...)
	if stopped != nil {
		return err
	}
	return c.told("list", dir, err)
}

func (c *client) IterWithAttributes(
	ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	opts ...objstore.IterOption,
) error {
	var stopped error
	err := c.use().IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error {
		c.answered.Store(true)
		stopped = f(a)
		return stopped
	}, opts...)
	if stopped != nil {
		return err
	}
	return c.told("list", dir, err)
}

func (c *client) SupportedIterOptions() []objstore.IterOptionType {
	return c.use().SupportedIterOptions()
}

func (c *client) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := c.use().Get(ctx, name)
	return c.reads("read", name, r, err)
}

func (c *client) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	r, err := c.use().GetRange(ctx, name, off, length)
	return c.reads("read a range of", name, r, err)
}

func (c *client) Exists(ctx context.Context, name string) (bool, error) {
	ok, err := c.use().Exists(ctx, name)
	return ok, c.told("look for", name, err)
}

func (c *client) IsObjNotFoundErr(err error) bool  { return c.use().IsObjNotFoundErr(err) }
func (c *client) IsAccessDeniedErr(err error) bool { return c.use().IsAccessDeniedErr(err) }

func (c *client) Attributes(
	ctx context.Context, name string,
) (objstore.ObjectAttributes, error) {
	a, err := c.use().Attributes(ctx, name)
	return a, c.told("look at", name, err)
}

func (c *client) Upload(
	ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption,
) error {
	return c.told("write", name, c.use().Upload(ctx, name, r, opts...))
}

func (c *client) Delete(ctx context.Context, name string) error {
	return c.told("delete", name, c.use().Delete(ctx, name))
}
