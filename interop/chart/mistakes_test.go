package chart

import (
	"strings"
	"testing"
)

// TestMistakes: typical mistakes are refused with a message that names the value and the way out.
func TestMistakes(t *testing.T) {
	f := func(given string, want ...string) {
		t.Helper()
		_, err := render(required, given)
		if err == nil {
			t.Errorf("rendered:\n%s", given)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s\nis refused with\n%v\nwhich lacks %q", given, err, w)
			}
		}
		t.Logf("%s\n=> %v", given, err)
	}
	// by the schema
	f(`autoscaling: {enabled: true}`, "autoscaling", "shards cannot be scaled automatically")
	f(`replicaCount: 2`, "replicaCount", "add an entry to zones")
	f(
		`sharded: {timePartitioning: [{min: "", max: -6w}]}`,
		"timePartitioning",
		"set minTime and maxTime",
	)
	f(`shard: {enabled: true}`, "shard", "not allowed")
	f(`persistence: {storageClassName: fast}`, "persistence", "storageClassName")
	f(`zones: []`, "zones", "minItems")
	f(`zones: [{name: eu-Central}]`, "/zones/0/name", "pattern")
	f(
		`sharded: {enabled: true, hashPartitioning: {shards: "3"}}`,
		"/sharded/hashPartitioning/shards",
		"want integer",
	)
	f(
		`sharded: {enabled: true, hashPartitioning: {shards: 0}}`,
		"/sharded/hashPartitioning/shards",
		"minimum",
	)
	f(`extraArgs: ["log.level=debug"]`, "/extraArgs/0", "pattern")
	f(`extraEnv: {GOGC: "50"}`, "/extraEnv", "want array")
	f(`image: {digest: latest}`, "/image/digest", "pattern")
	f(`probes: {liveness: {successThreshold: 2}}`, "/probes/liveness/successThreshold", "must be 1")
	f(`minTime: "6 weeks"`, "/minTime", "pattern")
	f(`pdb: {maxUnavailable: half}`, "/pdb/maxUnavailable")
	f(`serviceMonitor: {relabelConfigs: []}`, "serviceMonitor", "relabelConfigs")
	f(`grpcServerTlsConfig: {certFile: /tls.crt}`, "grpcServerTlsConfig", "certFile")
	f(
		`sharded: {enabled: true, hashPartitioning: {extraRelabelingConfigs: [{action: replace}]}}`,
		"action",
		"'keep'",
	)
	// by the checks
	f(`image: {repository: ""}`, "image.repository", "make image")
	f(`objectStorageConfig: {name: ""}`, "objectStorageConfig", "give name")
	f(`objectStorageConfig: {config: "type: S3"}`, "objectStorageConfig", "not both")
	f(`zones: [{name: a}, {name: a}]`, "two zones", `"a"`)
	f(`sharded: {hashPartitioning: {shards: 3}}`, "sharded.enabled is false")
	f(`sharded: {hashPartitioning: {previousShards: 3}}`, "sharded.enabled is false")
	f(
		`{persistence: {existingClaim: c}, zones: [{name: a}, {name: b}]}`,
		"existingClaim",
		"several pods",
	)
	f(
		`{persistence: {existingClaim: c}, sharded: {enabled: true, hashPartitioning: {shards: 2}}}`,
		"existingClaim",
	)
	f(`{persistence: {existingClaim: c, enabled: false}}`, "persistence.enabled is false")
	f(`{diskCache: {enabled: true}, persistence: {size: "1000000"}}`, "persistence.size", "Gi")
	f(`service: {grpcPort: 10902}`, "service", "both 10902")
	f(`httpConfig: {tls: true}`, "httpConfig.tls", "httpConfig.name")
	f(`endpointConfig: {groups: 2}`, "endpointConfig.groups", "at most")
	f(
		`{endpointConfig: {groups: 2}, sharded: {enabled: true, hashPartitioning: {shards: 3}}}`,
		"at least",
	)
	f(`terminationGracePeriodSeconds: 30`, "terminationGracePeriodSeconds", "160")
	f(`pdb: {minAvailable: 1, maxUnavailable: 1}`, "pdb", "not both")
	f(
		`{rolloutOperator: {enabled: true}, updateStrategy: {type: RollingUpdate}}`,
		"updateStrategy.type",
		"OnDelete",
	)
	f(
		`grpcServerTlsConfig: {cert: {secret: {name: a, key: b}}}`,
		"grpcServerTlsConfig",
		"keySecret",
	)
	f(`extraArgs: [--data-dir=/data]`, "extraArgs", "--data-dir", "set by the chart")
	f(`extraArgs: [--objstore.config=x]`, "extraArgs", "--objstore.config", "set by the chart")
	f(`extraEnv: [{name: A}, {name: A}]`, "extraEnv", "A is set twice")
	f(`{sharded: {enabled: true, type: larder}, httpConfig: {name: web, tls: true}}`,
		"sharded.peersConfig.name")
	f(`sharded: {enabled: true, peersConfig: {name: peers}}`, "sharded.peersConfig",
		"sharded.type larder")
	f(`sharded: {enabled: true, type: ring}`, "/sharded/type")
	f(`extraEnv: [{name: LARDER_ZONE, value: "a"}]`, "extraEnv", "LARDER_ZONE")
	f(`extraEnv: [{name: LARDER_ORDINAL, value: "1"}]`, "extraEnv", "LARDER_ORDINAL")
	f(`rules: {enabled: true, disabledAlerts: [LarderPaniced]}`, "LarderPaniced", "LarderPanicked")
	f(
		`rules: {enabled: true, alertOverrides: {LarderDown: {severity: page}}}`,
		"LarderDown",
		"the alerts are",
	)
}

// TestHarmlessDefaults: values that charts of Thanos have, and that ask for nothing here, render.
func TestHarmlessDefaults(t *testing.T) {
	off := `autoscaling: {enabled: false, minReplicas: 2, maxReplicas: 6}`
	if _, err := render(required, off); err != nil {
		t.Error(err)
	}
	if _, err := render(required, `global: {imageRegistry: registry.example.com}`); err != nil {
		t.Error(err)
	}
}
