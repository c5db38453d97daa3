package bucket

import (
	"net/http"
	"slices"
	"testing"

	"larder/internal/bucket/slots"
)

// TestChangedKeys: all changes of a configuration are named, except those of credentials.
func TestChangedKeys(t *testing.T) {
	f := func(a, b string, want ...string) {
		t.Helper()
		parse := func(s string) *Config {
			conf, err := Parse([]byte(s))
			if err != nil {
				t.Fatal(err)
			}
			return conf
		}
		if got := changedKeys(parse(a), parse(b)); !slices.Equal(got, want) {
			t.Errorf("%s and %s: got %q, want %q", a, b, got, want)
		}
	}
	const base = "{type: S3, config: {bucket: blocks, endpoint: e, access_key: a, http_config: {idle_conn_timeout: 1s}}}"
	f(base, base)
	f(
		base,
		"{type: S3, config: {bucket: blocks, endpoint: e, access_key: other, secret_key: s, session_token: t, http_config: {idle_conn_timeout: 1s}}}",
	)
	f(
		base,
		"{type: S3, config: {bucket: others, endpoint: e, http_config: {idle_conn_timeout: 2s}}}",
		"config.bucket",
		"config.http_config",
	)
	f(
		base,
		"{type: S3, prefix: p, config: {bucket: blocks, endpoint: e, insecure: true, http_config: {idle_conn_timeout: 1s}}}",
		"config.insecure",
		"prefix",
	)
	f(
		"{type: GCS, config: {bucket: blocks, service_account: x}}",
		"{type: GCS, hedging_config: {enabled: true}, config: {bucket: blocks, service_account: y}}",
		"hedging_config",
	)
	f("{type: GCS, config: {bucket: blocks}}", "{type: COS, config: {bucket: blocks}}", "type")
}

// TestIdleConnectionsAreKept: default limits are raised to the reads that may run at once, limits
// that an operator has set are not.
func TestIdleConnectionsAreKept(t *testing.T) {
	for set, want := range map[int]int{100: slots.DefaultMax, 20: 20, 0: 0} {
		rt := &http.Transport{MaxIdleConns: set, MaxIdleConnsPerHost: set}
		keepConnections(rt)
		if rt.MaxIdleConns != want || rt.MaxIdleConnsPerHost != want {
			t.Errorf("set to %d: %d and %d, want %d", set, rt.MaxIdleConns,
				rt.MaxIdleConnsPerHost, want)
		}
	}
}
