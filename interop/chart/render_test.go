package chart

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	common4 "helm.sh/helm/v4/pkg/chart/common"
	util4 "helm.sh/helm/v4/pkg/chart/common/util"
	loader4 "helm.sh/helm/v4/pkg/chart/v2/loader"
	engine4 "helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

// namespace is that of the release, unless values name another.
const namespace = "thanos"

// chartDir is the folder of the chart.
var chartDir = filepath.Join("..", "..", "deploy", "helm", "larder")

// required are the values that every installation must give.
const required = `
image: {repository: registry.example.com/larder}
objectStorageConfig: {name: thanos-objstore}
`

// helm3 renders the chart with Helm 3: the texts of its templates, by file.
func helm3(release string, values map[string]any) (map[string]string, error) {
	c, err := loader.Load(chartDir)
	if err != nil {
		return nil, err
	}
	all, err := chartutil.ToRenderValues(
		c,
		values,
		chartutil.ReleaseOptions{
			Name:      release,
			Namespace: namespace,
			Revision:  1,
			IsInstall: true,
		},
		nil,
	)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

// helm4 renders the chart with Helm 4.
func helm4(release string, values map[string]any) (map[string]string, error) {
	c, err := loader4.Load(chartDir)
	if err != nil {
		return nil, err
	}
	all, err := util4.ToRenderValues(
		c,
		values,
		common4.ReleaseOptions{
			Name:      release,
			Namespace: namespace,
			Revision:  1,
			IsInstall: true,
		},
		nil,
	)
	if err != nil {
		return nil, err
	}
	return engine4.Render(c, all)
}

// values parses layers of YAML. Keys of later layers replace those of earlier ones, as with
// repeated --values.
func values(layers ...string) (map[string]any, error) {
	out := map[string]any{}
	for _, layer := range layers {
		var next map[string]any
		if err := yaml.UnmarshalStrict([]byte(layer), &next); err != nil {
			return nil, err
		}
		out = loader4.MergeMaps(out, next)
	}
	return out, nil
}

// render renders the chart for the release store.
func render(layers ...string) (map[string]string, error) {
	return renderAs("store", layers...)
}

// renderAs renders the chart with both Helms, which must agree.
func renderAs(release string, layers ...string) (map[string]string, error) {
	v, err := values(layers...)
	if err != nil {
		return nil, err
	}
	three, err3 := helm3(release, v)
	if v, err = values(layers...); err != nil { // rendering may change what it is given
		return nil, err
	}
	four, err4 := helm4(release, v)
	if err3 != nil || err4 != nil {
		if (err3 == nil) != (err4 == nil) {
			return nil, fmt.Errorf("only one Helm fails: Helm 3: %w, Helm 4: %w", err3, err4)
		}
		return nil, errors.Join(err3, err4)
	}
	for name, text := range three {
		if four[name] != text {
			return nil, fmt.Errorf("%s differs.\nHelm 3:\n%s\nHelm 4:\n%s", name, text, four[name])
		}
	}
	if len(three) != len(four) {
		return nil, fmt.Errorf("Helm 3 renders %d files, Helm 4 %d", len(three), len(four))
	}
	return three, nil
}

var between = regexp.MustCompile(`(?m)^---\s*$`)

// texts returns the documents of a rendered chart, ordered by file. It leaves out the notes.
func texts(rendered map[string]string) []string {
	var names []string
	for name := range rendered {
		if strings.HasSuffix(name, ".yaml") {
			names = append(names, name)
		}
	}
	slices.SortFunc(
		names,
		func(a, b string) int { return strings.Compare(path.Base(a), path.Base(b)) },
	)
	var out []string
	for _, name := range names {
		for _, doc := range between.Split(rendered[name], -1) {
			if doc = strings.TrimSpace(doc); doc != "" {
				out = append(out, doc)
			}
		}
	}
	return out
}

// layout is one set of values, and what the chart makes of it.
type layout struct {
	name   string
	values []string
	docs   []string
	objects
}

// matrix are the values that the tests render, by name.
var matrix = []struct{ name, values string }{
	{"the least", ``},
	{"three shards", `
sharded: {enabled: true, hashPartitioning: {shards: 3}}
serviceMonitor: {enabled: true}
rules: {enabled: true}
networkPolicy: {enabled: true}
`},
	{"two zones", `
zones:
  - name: a
    nodeSelector: {topology.kubernetes.io/zone: eu-central-1a}
    storageClass: fast-a
  - name: b
    nodeSelector: {topology.kubernetes.io/zone: eu-central-1b}
nodeSelector: {kubernetes.io/os: linux}
sharded:
  enabled: true
  hashPartitioning:
    shards: 2
    extraRelabelingConfigs: [{action: drop, source_labels: [cluster], regex: test.*}]
rolloutOperator: {enabled: true, maxUnavailable: 2}
minReadySeconds: 10
`},
	{"larder's shards", `
zones: [{name: b}, {name: a}]
sharded:
  enabled: true
  type: larder
  epoch: 3
  startWait: 100ms
  peersConfig: {name: larder-peers}
  hashPartitioning:
    shards: 3
    extraRelabelingConfigs: [{action: drop, source_labels: [cluster], regex: test.*}]
rolloutOperator: {enabled: true}
networkPolicy: {enabled: true, httpFrom: [{podSelector: {}}]}
`},
	{"growth", `
zones: [{name: a}, {name: b}]
sharded: {enabled: true, hashPartitioning: {shards: 5, previousShards: 3}}
pdb: {minAvailable: 1}
`},
	{"shrinking", `
sharded: {enabled: true, hashPartitioning: {shards: 2, previousShards: 4}}
endpointConfig: {groups: 2}
pdb: {maxUnavailable: 50%}
updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 1}}
`},
	{"ephemeral", `
persistence: {enabled: false, size: 5Gi}
diskCache: {enabled: true, percent: 50, prefetch: false}
endpointConfig: {enabled: false}
pdb: {enabled: false}
serviceAccount: {create: false}
probes: {startup: {enabled: false}, liveness: {enabled: false}}
resources: {}
`},
	{"caches", `
indexCacheConfig: |
  type: MEMCACHED
  config:
    addresses: ["127.0.0.1:1"]
cachingBucketConfig: |
  type: IN-MEMORY
  config:
    max_size: 64MB
latencyBudgets: {requests: {series: {total: 3s, gate: 100ms}}, bucket_read: 200ms}
minTime: -6w
maxTime: "2030-01-01T00:00:00Z"
log: {level: debug, format: json}
`},
	{"TLS", `
grpcServerTlsConfig:
  cert: {secret: {name: larder-tls, key: tls.crt}}
  keySecret: {name: larder-tls, key: tls.key}
  ca: {configMap: {name: ca-bundle, key: ca.pem}}
httpConfig: {name: larder-web, key: web.yml, tls: true}
probes: {readiness: {httpHeaders: [{name: Authorization, value: Basic YTpi}]}}
endpointConfig:
  namespace: queriers
  clientConfig: {tls_config: {enabled: true, ca_file: /etc/ca.pem}}
serviceMonitor: {enabled: true, namespace: monitoring, tlsConfig: {insecureSkipVerify: true}}
`},
	{"everything extra", `
fullnameOverride: larder
namespaceOverride: elsewhere
commonLabels: {team: observability}
objectStorageConfig: {name: "", config: "type: FILESYSTEM\nconfig: {directory: /bucket}\n"}
service: {grpcPort: 11901, httpPort: 11902, labels: {a: b}, annotations: {c: d}}
image: {registry: registry.example.com, repository: o/larder, digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}
imagePullSecrets: [{name: pull}]
persistence: {existingClaim: claim, annotations: {a: b}}
drainDelaySeconds: 60
gracePeriodSeconds: 30
terminationGracePeriodSeconds: 300
priorityClassName: high
dnsConfig: {options: [{name: ndots, value: "1"}]}
annotations: {a: b}
labels: {a: b}
podAnnotations: {a: b}
podLabels: {a: b}
tolerations: [{key: a, operator: Exists}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
topologySpreadConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: DoNotSchedule}]
extraArgs: [--web.disable, --sync-block-duration=3m]
extraEnv: [{name: OTEL_SERVICE_NAME, value: larder}]
extraEnvFrom: [{secretRef: {name: env}}]
extraVolumes: [{name: more, emptyDir: {}}]
extraVolumeMounts: [{name: more, mountPath: /more}]
extraContainers: [{name: sidecar, image: sidecar}]
extraInitContainers: [{name: init, image: init}]
extraObjects:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: "{{ .Release.Name }}-more"}}
  - "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: text}\n"
networkPolicy:
  enabled: true
  grpcFrom: [{podSelector: {matchLabels: {app: query}}}]
  httpFrom: [{namespaceSelector: {}}]
  egress: [{ports: [{port: 443}]}]
serviceMonitor:
  enabled: true
  labels: {release: prometheus}
  interval: 30s
  scrapeTimeout: 10s
  scheme: http
  relabelings: [{sourceLabels: [__meta_kubernetes_pod_label_larder_zone], targetLabel: zone}]
  metricRelabelings: [{action: drop, sourceLabels: [__name__], regex: go_.*}]
rules:
  enabled: true
  selector: job="stores"
  labels: {release: prometheus}
  disabledAlerts: [LarderBucketThrottles]
  alertOverrides: {LarderPanicked: {severity: page, team: storage}}
  additionalRuleGroupLabels: {tenant: infra}
  additionalRuleGroupAnnotations: {runbook_url: https://example.com}
  severity: {warning: ticket}
dashboards:
  enabled: true
  namespace: grafana
  labels: {dashboards: larder}
  annotations: {grafana_folder: larder}
`},
}

// layouts renders the matrix, once.
var layouts = sync.OnceValues(func() ([]layout, error) {
	var out []layout
	for _, m := range matrix {
		l := layout{name: m.name, values: []string{required, m.values}}
		rendered, err := render(l.values...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		l.docs = texts(rendered)
		if l.objects, err = decode(l.docs); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		out = append(out, l)
	}
	return out, nil
})

// each runs a test for each layout of the matrix.
func each(t *testing.T, test func(t *testing.T, l *layout)) {
	t.Helper()
	all, err := layouts()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		t.Run(all[i].name, func(t *testing.T) { test(t, &all[i]) })
	}
}
