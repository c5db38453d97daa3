package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/clienttls/tlstest"

	"go.yaml.in/yaml/v3"
)

// TestChartsArguments starts larder with the arguments that public charts give `thanos store`. It
// only replaces addresses, folders and mounted files.
func TestChartsArguments(t *testing.T) {
	var charts []struct {
		Chart string
		Args  []string
		Files map[string]string
	}
	b, err := os.ReadFile("testdata/charts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &charts); err != nil {
		t.Fatal(err)
	}
	if len(charts) < 15 {
		t.Fatalf("got %d charts", len(charts))
	}
	bucket := folder(wideBucket(t))
	certFile, keyFile := tlstest.New(t).Files(-time.Hour, time.Hour)
	for _, c := range charts {
		t.Run(c.Chart, func(t *testing.T) {
			dir := t.TempDir()
			mounted := func(name, content string) string {
				p := filepath.Join(dir, filepath.Base(name))
				if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				return p
			}
			args := slices.Clone(c.Args)
			for i, a := range args {
				// the example's user fills it in
				a = strings.ReplaceAll(a, "<MEMCACHED_SERVICE>", "memcached")
				args[i] = a
				name, value, _ := strings.Cut(a, "=")
				switch name {
				case "--http-address", "--grpc-address":
					value = "127.0.0.1:0"
				case "--data-dir":
					value = filepath.Join(dir, "data")
				case "--objstore.config-file":
					value = mounted("objstore.yml", bucket)
				case "--grpc-server-tls-cert", "--grpc-server-tls-client-ca":
					value = certFile
				case "--grpc-server-tls-key":
					value = keyFile
				case "--objstore.config":
					value = strings.ReplaceAll(value, "$(OBJSTORE_CONFIG)", bucket)
				default:
					content, ok := c.Files[value]
					if !ok {
						continue
					}
					value = mounted(value, content)
				}
				args[i] = name + "=" + value
			}
			p := startLarder(t, nil, args...)
			p.await(`readiness changed.*ready"?[=:]true`)
		})
	}
}
