package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/bucket"
	"larder/internal/bucket/slots"
)

// TestBadProviders checks that the error names the flag and, if the client's error has it, the key.
func TestBadProviders(t *testing.T) {
	f := func(yaml string, want ...string) {
		t.Helper()
		conf := &storeConfig{}
		conf.bucket.yaml.name = "objstore.config"
		var err error
		if conf.bucket.parsed, err = bucket.Parse([]byte(yaml)); err == nil {
			_, err = bucket.Open(conf.bucket.parsed, bucket.Options{
				Limiter: slots.New(slots.Options{}), WholeBytes: 1 << 20,
				Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
			})
		}
		err = conf.bucket.yaml.wrap(err)
		if err == nil {
			t.Errorf("%s is taken", yaml)
			return
		}
		for _, w := range append(want, "--objstore.config: ") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", yaml, err, w)
			}
		}
	}
	f(`{type: COS, config: {bucket: b, secret_id: i}}`, "COS")
	f(`{type: COS, config: {bukket: b}}`, "bukket")
	f(`{type: ALIYUNOSS, config: {bucket: b}}`, "ALIYUNOSS")
	f(`{type: ALIYUNOSS, config: {end_point: b}}`, "end_point")
	f(`{type: BOS, config: {bucket: b}}`, "BOS")
	f(`{type: BOS, config: {region: b}}`, "region")
	f(`{type: OBS, config: {bucket: b}}`, "OBS")
	f(`{type: OBS, config: {region: b}}`, "region")
	f(`{type: OCI, config: {provider: raw, bucket: b}}`, "OCI")
	f(`{type: OCI, config: {provider: magic, bucket: b}}`, "magic")
	f(`{type: OCI, config: {folder: b}}`, "folder")
	f(`{type: SWIFT, config: {container: b}}`, "container")
	// The SWIFT client logs in when it is created.
	f(
		`{type: SWIFT, config: {auth_version: 3, auth_url: "http://127.0.0.1:1/v3", username: u, user_domain_name: d, password: p, project_name: n,
		project_domain_name: d, region_name: r, container_name: c, large_object_chunk_size: 1073741824, large_object_segments_container_name: s,
		retries: 1, connect_timeout: 1s, timeout: 1s, use_dynamic_large_objects: false}}`,
		"SWIFT",
		"authentication",
	)
}
