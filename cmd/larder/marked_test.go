package main

import (
	"bufio"
	"context"
	"encoding"
	"io"
	"maps"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"github.com/thanos-io/objstore"
	"go.yaml.in/yaml/v2"

	"larder/internal/bucket"
	"larder/internal/budget"
	"larder/internal/clienttls"
	"larder/internal/config"
	"larder/internal/yamldoc"
)

// document is a configuration document of a test: the type that it is decoded into, and the values
// that make it valid.
type document struct {
	flag  string
	of    any
	parts map[string]any // by path, of what of holds as an interface
	base  map[string]any
}

// documents returns all documents that flags name, that of the bucket once for each type.
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
		shape := bucket.Shape(objstore.ObjProvider(kind))
		docs["objstore "+kind] = document{
			"objstore.config", shape.Of, shape.Parts,
			map[string]any{"type": kind, "config": inner},
		}
	}
	memcached := map[string]any{"addresses": []any{"127.0.0.1:1"}}
	for flag, shape := range map[string]func(string) yamldoc.Shape{
		"index-cache.config":          config.IndexCacheShape,
		"store.caching-bucket.config": config.BucketCacheShape,
	} {
		for kind, conf := range map[string]map[string]any{
			"IN-MEMORY": nil,
			"MEMCACHED": memcached,
			"TIERED":    {"memcached": memcached},
		} {
			base := map[string]any{"type": kind}
			if conf != nil {
				base["config"] = conf
			}
			shape := shape(kind)
			docs[flag+" "+kind] = document{flag, shape.Of, shape.Parts, base}
		}
	}
	docs["limits"] = document{"store.limits.config", limitsDoc{}, nil, nil}
	docs["budgets"] = document{"latency-budgets", budget.Document{}, nil, nil}
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
		SpansPerRequest    string            `yaml:"spans_per_request"`
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

// shownOnPurpose lists keys whose values are names that larder shows. A secret alone cannot be
// distinguished from a name, but a password or a query can.
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

// marked is a start with a secret somewhere in a document.
type marked struct {
	what string
	args []string
}

// markedStarts puts a secret as each value of a document in turn.
func markedStarts(t *testing.T, name string, doc document, bucket string) (starts []marked) {
	t.Helper()
	for _, path := range leaves(reflect.TypeOf(doc.of), doc.parts, nil) {
		values := []string{secret}
		if shownOnPurpose(path) {
			values = []string{
				"user:" + secret + "@127.0.0.1:1", "http://127.0.0.1:1/?token=" + secret,
				"{secret_key: " + secret + "}",
			}
			// The name of a file may contain an @.
			key := path[len(path)-1]
			if key != "directory" && key != "prefix" && !strings.HasSuffix(key, "_file") {
				values = append(values, secret+"@127.0.0.1:1")
			}
		}
		for _, value := range values {
			text, err := yaml.Marshal(with(doc.base, path, value))
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"--objstore.config=" + bucket, "--" + doc.flag + "=" + string(text)}
			switch doc.flag {
			case "objstore.config":
				args = args[1:]
			case "http.config":
				args[1] = "--http.config=" + write(t, "web.yml", string(text))
			}
			starts = append(starts, marked{name + " " + strings.Join(path, ".") + ": " + value,
				args})
		}
	}
	return starts
}

// TestNoDocumentTellsASecret replaces each value of each document by a secret in turn, and starts
// larder with it. Whether or not larder accepts the document, neither stderr nor log, metrics,
// pages and API show the secret.
func TestNoDocumentTellsASecret(t *testing.T) {
	t.Parallel()
	bucket := folder(t.TempDir())
	var all sync.WaitGroup
	places := make(chan struct{}, 2)
	var refused, taken atomic.Int64
	for name, doc := range documents() {
		short := []string{"objstore S3", "tracing", "index-cache.config TIERED"}
		if testing.Short() && !slices.Contains(short, name) {
			continue
		}
		for _, m := range markedStarts(t, name, doc, bucket) {
			places <- struct{}{}
			all.Go(func() {
				defer func() { <-places }()
				started, told := m.run(t)
				if i := strings.Index(told, secret); i >= 0 {
					t.Errorf("%s: is told: ...%s...", m.what, told[max(0, i-300):min(len(told),
						i+60)])
				}
				if started {
					taken.Add(1)
				} else if refused.Add(1); !strings.Contains(told, "larder: error: ") {
					t.Errorf("%s: neither started nor refused:\n%s", m.what, told)
				}
			})
		}
	}
	all.Wait()
	t.Logf("%d documents were refused, %d taken", refused.Load(), taken.Load())
	if refused.Load() == 0 || taken.Load() == 0 {
		t.Error("all documents came to the same")
	}
}

// run starts larder, requests everything that it shows, and stops it. It returns all output.
func (m marked) run(t *testing.T) (started bool, told string) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := larder(ctx, nil, append([]string{
		"store", "--log.level=debug", "--no-cache-index-header", "--drain-delay=0s",
		"--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
	}, m.args...)...)
	cmd.Dir = os.TempDir() // exists, and nothing is written
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Errorf("%s: %v", m.what, err)
		return false, ""
	}
	var text strings.Builder
	listens := regexp.MustCompile(`"Listening on".*address=(\S+)`)
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		text.WriteString(lines.Text() + "\n")
		if a := listens.FindStringSubmatch(lines.Text()); a != nil {
			started = true
			for _, path := range []string{
				"/", "/blocks", "/metrics", "/api/v1/status/flags", "/api/v1/status/runtimeinfo",
				"/api/v1/blocks?view=loaded", "/debug/pprof/cmdline",
			} {
				if resp, err := http.Get("http://" + a[1] + path); err == nil {
					b, _ := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					text.WriteString(path + ": " + string(b) + "\n")
				}
			}
			_ = cmd.Process.Signal(syscall.SIGINT)
		}
	}
	_ = cmd.Wait() // with an error where it was refused
	return started, text.String()
}
