package chart

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var metricName = regexp.MustCompile(`\b([a-z][a-z0-9_]*)\{`)

// rareMetrics have no series until what they count has happened.
var rareMetrics = map[string]bool{
	"up":                                     true, // of Prometheus
	"larder_request_allowance_refused_total": true,
	"grpc_server_handled_total":              true,
	"larder_corruptions_total":               true,
	"larder_memcached_breaker_state":         true, // with memcached only
}

// TestAlerts: the alerts ask for metrics that docs/metrics.md explains and that the binary exports,
// and each metric has the selector of the release.
func TestAlerts(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := layouts()
	if err != nil {
		t.Fatal(err)
	}
	var l *layout
	for i := range all {
		if all[i].name == "three shards" {
			l = &all[i]
		}
	}
	r := start(t, l, l.pods()[0], t.TempDir())
	resp, err := http.Get("http://" + r.http + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	exported, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	const want = `job="store-larder-peers",namespace="thanos"`
	rules := 0
	for _, g := range l.alerts[0].Spec.Groups {
		for _, rule := range g.Rules {
			rules++
			expr := rule.Expr.String()
			names := metricName.FindAllStringSubmatch(expr, -1)
			if len(names) == 0 || strings.Count(expr, want) != len(names) {
				t.Errorf("%s: %s does not select the release", rule.Alert, expr)
			}
			for _, name := range names {
				if name[1] != "up" && !strings.Contains(string(page), name[1]) {
					t.Errorf("%s: docs/metrics.md does not explain %s", rule.Alert, name[1])
				}
				if !rareMetrics[name[1]] &&
					!strings.Contains(string(exported), "# TYPE "+name[1]+" ") {
					t.Errorf("%s: the binary does not export %s", rule.Alert, name[1])
				}
			}
			if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" {
				t.Errorf("%s: no severity or no summary", rule.Alert)
			}
		}
	}
	if rules < 10 {
		t.Errorf("only %d alerts", rules)
	}
}

// TestAlertsParse: the file of alerts is a rule file of Prometheus.
func TestAlertsParse(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not installed: install Debian's package prometheus")
	}
	file := filepath.Join(chartDir, "files", "alerts.yaml")
	if out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// TestAlertValues: alerts can be left out, and their labels and annotations changed.
func TestAlertValues(t *testing.T) {
	all, err := layouts()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if all[i].name != "everything extra" {
			continue
		}
		text, err := yaml.Marshal(all[i].alerts[0].Spec)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"severity: page", "team: storage", "severity: ticket", "tenant: infra",
			"runbook_url: https://example.com", `job="stores"`,
		} {
			if !strings.Contains(string(text), want) {
				t.Errorf("the rules lack %s", want)
			}
		}
		for _, no := range []string{"LarderBucketThrottles", "severity: warning", `job="larder"`} {
			if strings.Contains(string(text), no) {
				t.Errorf("the rules have %s", no)
			}
		}
		return
	}
	t.Fatal("no layout with changed alerts")
}
