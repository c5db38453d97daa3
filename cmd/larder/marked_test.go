package main

import (
	"bytes"
	"context"
	"encoding"
	"maps"
	"net"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"github.com/thanos-io/objstore"
	"go.yaml.in/yaml/v2"

	"larder/internal/clienttls"
)

// document is a configuration document of a test: what it is decoded into, and what it needs to be
// taken.
type document struct {
	flag  string
	of    any
	parts map[string]any // by path, of what of holds as an interface
	base  map[string]any
}

// documents are all that flags name, the bucket's once for each type.
func documents() map[string]document {
	docs := map[string]document{}
	for kind, inner := range map[string]map[string]any{
		"S3": {"bucket": "blocks", "endpoint": "127.0.0.1:1", "insecure": true,
			"region": "r", "access_key": "a", "secret_key": "s"},
		"GCS": {"bucket": "blocks"},
		"AZURE": {"storage_account": "a", "storage_account_key": "aGk=", "container": "blocks",
			"endpoint": "127.0.0.1:1"},
		"SWIFT": {"auth_url": "http://127.0.0.1:1/v3", "username": "u", "password": "p",
			"container_name": "c", "retries": 1},
		"COS": {"bucket": "blocks", "region": "r", "app_id": "1",
			"endpoint": "http://127.0.0.1:1", "secret_id": "s", "secret_key": "s"},
		"ALIYUNOSS": {"endpoint": "http://127.0.0.1:1", "bucket": "blocks", "access_key_id": "a",
			"access_key_secret": "s"},
		"BOS": {"bucket": "blocks", "endpoint": "http://127.0.0.1:1", "access_key": "a",
			"secret_key": "s"},
		"OBS": {"bucket": "blocks", "endpoint": "http://127.0.0.1:1", "access_key": "a",
			"secret_key": "s"},
		"OCI": {"provider": "raw", "bucket": "blocks", "compartment_ocid": "c",
			"tenancy_ocid": "t", "user_ocid": "u", "region": "r", "fingerprint": "f",
			"privatekey": "k"},
		"FILESYSTEM": {"directory": "blocks"},
	} {
		docs["objstore "+kind] = document{
			"objstore.config", bucketConfig{},
			map[string]any{"config": clientConfig(objstore.ObjProvider(kind))},
			map[string]any{"type": kind, "config": inner},
		}
	}
	memcached := map[string]any{"addresses": []any{"127.0.0.1:1"}}
	for flag, of := range map[string]any{"index-cache.config": indexCacheDoc{},
		"store.caching-bucket.config": bucketCacheDoc{}} {
		docs[flag+" IN-MEMORY"] = document{flag, of, map[string]any{"config": inMemoryDoc{}},
			map[string]any{"type": cacheInMemory}}
		docs[flag+" MEMCACHED"] = document{flag, of, map[string]any{"config": memcachedDoc{}},
			map[string]any{"type": cacheMemcached, "config": memcached}}
		docs[flag+" TIERED"] = document{
			flag, of, map[string]any{"config": tieredDoc{}, "config.in_memory": inMemoryDoc{},
				"config.memcached": memcachedDoc{}},
			map[string]any{"type": cacheTiered, "config": map[string]any{"memcached": memcached}},
		}
	}
	docs["limits"] = document{"store.limits.config", limitsDoc{}, nil, nil}
	docs["web"] = document{"http.config", toolkit.Config{}, nil, nil}
	docs["tracing"] = document{"tracing.config", tracingKeys{}, nil, map[string]any{
		"type": "OTLP", "config": map[string]any{"client_type": "http", "endpoint": "127.0.0.1:1",
			"insecure": true},
	}}
	return docs
}

// tracingKeys are the keys of the document of tracing, which internal/telemetry decodes.
type tracingKeys struct {
	Type   string `yaml:"type"`
	Config struct {
		ClientType         string            `yaml:"client_type"`
		ServiceName        string            `yaml:"service_name"`
		ResourceAttributes map[string]string `yaml:"resource_attributes"`
		ReconnectionPeriod string            `yaml:"reconnection_period"`
		Compression        string            `yaml:"compression"`
		Insecure           string            `yaml:"insecure"`
		Endpoint           string            `yaml:"endpoint"`
		URLPath            string            `yaml:"url_path"`
		Timeout            string            `yaml:"timeout"`
		RetryConfig        map[string]string `yaml:"retry_config"`
		Headers            map[string]string `yaml:"headers"`
		TLSConfig          clienttls.Config  `yaml:"tls_config"`
		SamplerType        string            `yaml:"sampler_type"`
		SamplerParam       string            `yaml:"sampler_param"`
	} `yaml:"config"`
}

// leaves lists the paths of the values of a type that a document decodes into.
func leaves(t reflect.Type, parts map[string]any, path []string) [][]string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.Interface {
		part, ok := parts[strings.Join(path, ".")]
		if !ok {
			return [][]string{path}
		}
		return leaves(reflect.TypeOf(part), parts, path)
	}
	below := func(key string, t reflect.Type) [][]string {
		return leaves(t, parts,
			append(slices.Clone(path), key))
	}
	switch {
	case t.Kind() == reflect.Struct &&
		!reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		var all [][]string
		for i := range t.NumField() {
			f := t.Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			switch {
			case strings.Contains(options, "inline"):
				all = append(all, leaves(f.Type, parts, path)...)
			case f.IsExported() && name != "-":
				if name == "" {
					name = strings.ToLower(f.Name)
				}
				all = append(all, below(name, f.Type)...)
			}
		}
		return all
	case t.Kind() == reflect.Map:
		return below("a", t.Elem())
	case t.Kind() == reflect.Slice:
		return below("[]", t.Elem())
	}
	return [][]string{path}
}

// with returns a copy of a document that has a value at a path.
func with(doc any, path []string, value any) any {
	if len(path) == 0 {
		return value
	}
	if path[0] == "[]" {
		return []any{with(nil, path[1:], value)}
	}
	m, _ := doc.(map[string]any)
	m = maps.Clone(m)
	if m == nil {
		m = map[string]any{}
	}
	m[path[0]] = with(m[path[0]], path[1:], value)
	return m
}

// shownOnPurpose are keys whose values are names that larder tells: a secret that stands there
// alone cannot be told from one. It can where it comes as a password or in a query.
func shownOnPurpose(path []string) bool {
	key := path[len(path)-1]
	if key == "[]" {
		key = path[len(path)-2]
	}
	return strings.HasSuffix(key, "_file") || slices.Contains([]string{
		"type", "bucket", "container", "container_name", "directory", "prefix", "region",
		"endpoint", "auth_url", "addresses", "namespace",
	}, key)
}

// TestNoStartErrorTellsASecret puts a secret as each value of each document in turn, and starts
// larder with it. The last thing that a start does is to take its port, which is taken: whatever
// larder makes of the document, the start ends with an error, and nothing on stderr repeats the
// secret.
func TestNoStartErrorTellsASecret(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	bucket := folder(t.TempDir())
	var all sync.WaitGroup
	places := make(chan struct{}, 2)
	refused, taken := 0, 0
	var mu sync.Mutex
	for name, doc := range documents() {
		if testing.Short() && !slices.Contains([]string{"objstore S3", "tracing",
			"index-cache.config TIERED"}, name) {
			continue
		}
		for _, path := range leaves(reflect.TypeOf(doc.of), doc.parts, nil) {
			values := []string{secret}
			if shownOnPurpose(path) {
				values = []string{
					"user:" + secret + "@127.0.0.1:1", "http://127.0.0.1:1/?token=" + secret,
					"{secret_key: " + secret + "}",
				}
				if key := path[len(path)-1]; !strings.HasSuffix(key,
					"_file") { // that may be a file's name
					values = append(values, secret+"@127.0.0.1:1")
				}
			}
			for _, value := range values {
				text, err := yaml.Marshal(with(doc.base, path, value))
				if err != nil {
					t.Fatal(err)
				}
				places <- struct{}{}
				all.Go(func() {
					defer func() { <-places }()
					out := startMarked(t, doc.flag, bucket, text, busy.Addr().String())
					if strings.Contains(out, secret) {
						t.Errorf("%s, %s: %q is told:\n%s", name, strings.Join(path, "."), value,
							out)
					}
					mu.Lock()
					defer mu.Unlock()
					if strings.Contains(out, "--grpc-address") {
						taken++
					} else {
						refused++
					}
				})
			}
		}
	}
	all.Wait()
	t.Logf("%d documents were refused, %d taken", refused, taken)
}

// startMarked runs a start that must fail and returns what it wrote.
func startMarked(t *testing.T, flag, bucket string, text []byte, busy string) string {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args := []string{"store", "--log.level=debug", "--no-cache-index-header",
		"--http-address=127.0.0.1:0", "--grpc-address=" + busy}
	switch flag {
	case "objstore.config":
		args = append(args, "--objstore.config="+string(text))
	case "http.config":
		args = append(args, "--objstore.config="+bucket, "--http.config="+write(t, "web.yml",
			string(text)))
	default:
		args = append(args, "--objstore.config="+bucket, "--"+flag+"="+string(text))
	}
	cmd := larder(ctx, nil, args...)
	cmd.Dir = os.TempDir()
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err == nil || !bytes.Contains(out,
		[]byte("larder: error: ")) {
		t.Errorf("%s: %q: got %v, %v, want an error:\n%s", flag, text, err, exit, out)
	}
	return string(out)
}
