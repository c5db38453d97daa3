package main

import (
	"strings"
	"testing"
)

// TestShownFlags checks that /api/v1/status/flags shows the given values, but no YAML that may
// contain a secret.
func TestShownFlags(t *testing.T) {
	c, err := parseStore(
		"--objstore.config={type: S3, config: {secret_key: hunter2}}",
		"--selector.relabel-config=[hunter2]", "--tracing.config=hunter2",
		"--index-cache-size=300MB", "--min-time=-6w", "--web.disable-cors",
	)
	if err != nil {
		t.Fatal(err)
	}
	shown := c.shown()
	f := func(name, want string) {
		t.Helper()
		if got, ok := shown[name]; got != want || !ok {
			t.Errorf("--%s: got %q, want %q", name, got, want)
		}
	}
	f("objstore.config", "<REDACTED>")
	f("objstore.config-file", "<REDACTED>")
	f("selector.relabel-config", "<REDACTED>")
	f("selector.relabel-config-file", "")
	f("index-cache-size", "300MB")
	f("min-time", "-6w")
	f("max-time", "9999-12-31T23:59:59Z")
	f("sync-block-duration", "15m")
	f("web.disable-cors", "true")
	f("cache-index-header", "true")
	for name, v := range shown {
		if strings.Contains(v, "hunter2") {
			t.Errorf("--%s shows %q", name, v)
		}
	}
	if _, ok := shown["help"]; ok {
		t.Error("--help is no setting")
	}

	c, err = parseStore(
		"--objstore.config-file=/secrets/bucket.yml", "--selector.relabel-config-file=/etc/r.yml",
	)
	if err != nil {
		t.Fatal(err)
	}
	shown = c.shown()
	f("objstore.config-file", "<REDACTED>")
	f("selector.relabel-config", "")
	f("selector.relabel-config-file", "/etc/r.yml")
}
