package chart

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var alertName = regexp.MustCompile(`- alert: (\w+)`)

var wildcard = regexp.MustCompile("`(larder_[a-z_]+)\\*")

var metricName = regexp.MustCompile(`\b([a-z][a-z0-9_]*)\{`)

// rareMetrics have no series until what they count has happened.
var rareMetrics = map[string]bool{
	"up":                             true, // of Prometheus
	"grpc_server_handled_total":      true,
	"larder_corruptions_total":       true,
	"larder_disk_cache_readable":     true, // with a disk cache only
	"larder_disk_cache_writable":     true,
	"larder_shard_epoch":             true, // with shards that can grow only
	"larder_shard_started_alone":     true,
	"larder_shard_duplicates":        true,
	"larder_memcached_breaker_state": true, // with memcached only
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
			if rule.Alert == ofQueriers {
				continue
			}
			if len(names) == 0 || strings.Count(expr, want) != len(names) {
				t.Errorf("%s%s: %s does not select the release", rule.Alert, rule.Record, expr)
			}
			for _, name := range names {
				if strings.HasPrefix(name[1], "larder_") && !explains(string(page), name[1]) {
					t.Errorf("%s: docs/metrics.md does not explain %s", rule.Alert, name[1])
				}
				if rule.Record == "" && !rareMetrics[name[1]] &&
					!strings.Contains(string(exported), "# TYPE "+name[1]+" ") {
					t.Errorf("%s: the binary does not export %s", rule.Alert, name[1])
				}
			}
			if rule.Record != "" {
				continue
			}
			runbook := "docs/runbook.md#" + strings.ToLower(rule.Alert)
			if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" ||
				rule.Annotations["runbook_url"] != runbook {
				t.Errorf("%s: no severity, runbook or summary", rule.Alert)
			}
		}
	}
	if rules < 10 {
		t.Errorf("only %d alerts", rules)
	}
}

// ofQueriers is the alert on metrics of the Queriers, whose job the chart does not know. The real
// Querier of interop/shards has its metric.
const ofQueriers = "LarderGroupIsNotQueried"

// explains returns whether a page has a metric, or a prefix of its name with an asterisk.
func explains(page, metric string) bool {
	return strings.Contains(page, metric) ||
		slices.ContainsFunc(wildcard.FindAllStringSubmatch(page, -1), func(m []string) bool {
			return strings.HasPrefix(metric, m[1])
		})
}

// promtool returns a promtool: the installed one or, in the long form, one of interop/promtool,
// which takes four minutes of CPU time to build. Only that one reads native histograms.
func promtool(t *testing.T) (path string, full bool) {
	t.Helper()
	if os.Getenv("INTEROP_FULL") != "" {
		path = filepath.Join(t.TempDir(), "promtool")
		build := exec.Command("go", "build", "-o", path,
			"github.com/prometheus/prometheus/cmd/promtool")
		build.Dir = filepath.Join("..", "promtool")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", build.Args, err, out)
		}
		return path, true
	}
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not installed: install Debian's package prometheus")
	}
	return path, false
}

// TestAlertsInPromtool: alerts and recording rules are rule files of Prometheus, and pass the unit
// tests in testdata: when each alert is pending, when it fires, and that no other fires with it.
// The long form tests rules with native histograms, too.
func TestAlertsInPromtool(t *testing.T) {
	promtool, full := promtool(t)
	files := filepath.Join(chartDir, "files")
	runs := [][]string{
		{"check", "rules", filepath.Join(files, "alerts.yaml"),
			filepath.Join(files, "recording.yaml")},
		{"test", "rules", filepath.Join("testdata", "alerts_test.yaml")},
	}
	if full {
		native := filepath.Join("testdata", "native_test.yaml")
		runs = append(runs, []string{"test", "rules", native})
	}
	for _, args := range runs {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	cases, err := os.ReadFile(filepath.Join("testdata", "alerts_test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	alerts, err := os.ReadFile(filepath.Join(files, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range alertName.FindAllStringSubmatch(string(alerts), -1) {
		if !strings.Contains(string(cases), "- name: "+m[1]+"\n") {
			t.Errorf("testdata/alerts_test.yaml has no case for %s", m[1])
		}
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

// TestNotesAskForTheRunbook: the notes of a release say that links of alerts open nothing, unless
// rules.runbook is an address.
func TestNotesAskForTheRunbook(t *testing.T) {
	for rules, asks := range map[string]bool{
		"": false, "rules: {enabled: true}": true,
		"rules: {enabled: true, runbook: 'https://runbooks.example.com/larder.md'}": false,
	} {
		files, err := render("{objectStorageConfig: {name: s}, image: {repository: i}}", rules)
		if err != nil {
			t.Fatal(err)
		}
		notes := ""
		for name, text := range files {
			if strings.HasSuffix(name, "/NOTES.txt") {
				notes = text
			}
		}
		if got := strings.Contains(notes, "set rules.runbook"); got != asks || notes == "" {
			t.Errorf("with %q the notes ask for rules.runbook: %t, want %t\n%s", rules, got, asks,
				notes)
		}
	}
}
