package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"larder/benchmarks/dataset"
	"larder/internal/faultstore/s3server"
	"larder/internal/loopback"
	"larder/internal/memcached/memcachedtest"
)

// dashboardExpressions returns the PromQL expressions of all dashboards, by their panel.
func dashboardExpressions(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dashboardsDir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer(
		"$job", "larder", "$instance", ".+", "$__rate_interval", "1m",
	)
	all := map[string][]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Title  string
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				if target.Expr != "" { // queries of traces have none
					name := d.Title + ": " + p.Title
					all[name] = append(all[name], variables.Replace(target.Expr))
				}
			}
		}
	}
	if len(all) < 60 {
		t.Fatalf("only %d panels", len(all))
	}
	return all
}

// scraper is a Prometheus that scrapes one larder each second and evaluates its rules.
type scraper struct {
	t   *testing.T
	url string
}

func startPrometheus(t *testing.T, target string, flags ...string) *scraper {
	t.Helper()
	bin, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("prometheus is not installed: make setup")
	}
	dir := t.TempDir()
	rules, err := filepath.Abs(rulesDir)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q, %q]
scrape_configs: [{job_name: larder, static_configs: [{targets: [%q]}]}]
`, filepath.Join(rules, "alerts.yaml"), filepath.Join(rules, "recording.yaml"), target),
		0o644); err != nil {
		t.Fatal(err)
	}
	addrs, err := loopback.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin, append([]string{
		"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"),
		"--web.listen-address=" + addrs[0], "--log.level=error",
	}, flags...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	return &scraper{t: t, url: "http://" + addrs[0]}
}

// get asks the API, and decodes the field data of the answer into v. It returns false if
// Prometheus does not answer yet.
func (p *scraper) get(path string, v any) bool {
	p.t.Helper()
	resp, err := http.Get(p.url + path)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: v}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return false // it starts
	}
	if answer.Status != "success" {
		p.t.Fatalf("%s: %s", path, answer.Error)
	}
	return true
}

// has returns whether an expression has a value that is a number.
func (p *scraper) has(expr string) bool {
	p.t.Helper()
	var data struct{ Result []struct{ Value [2]any } }
	return p.get("/api/v1/query?query="+url.QueryEscape(expr), &data) &&
		slices.ContainsFunc(data.Result, func(r struct{ Value [2]any }) bool {
			return r.Value[1] != "NaN"
		})
}

// TestExpressionsHaveData: each expression of dashboards and recording rules has a value while a
// larder with all kinds of caches answers requests, whichever form of histograms Prometheus stores.
// No alert is pending.
func TestExpressionsHaveData(t *testing.T) {
	blocks := wideBucket(t)
	s3, err := s3server.Start(s3server.Options{Dir: blocks})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s3.Close() })
	memcached := memcachedtest.Start(t, memcachedtest.Options{})
	remote := "{type: MEMCACHED, config: {addresses: [" + memcached.Addr + "]}}"
	// The memory is so small that pages come from the disk, memcached and the bucket, too.
	p := startLarder(
		t,
		nil,
		"store",
		"--http-address=127.0.0.1:0",
		"--grpc-address=127.0.0.1:0",
		"--drain-delay=0s",
		"--sync-block-duration=1s",
		"--objstore.config="+s3.Config(),
		"--disk-cache-size=100MB",
		"--shard.count=1",
		"--shard.ordinal=0",
		"--index-cache-size=1MB",
		"--chunk-cache-size=1MB",
		"--index-cache.series-size=64KB",
		"--index-cache.config="+remote,
		"--store.caching-bucket.config="+remote,
	)
	p.await("readiness changed.*ready=true")
	target := strings.TrimPrefix(p.url, "http://")
	servers := map[string]*scraper{
		"classic": startPrometheus(t, target),
		"native":  startPrometheus(t, target, "--enable-feature=native-histograms"),
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	var load sync.WaitGroup
	for _, tenant := range []string{"kitchen", "cellar"} {
		load.Go(func() {
			for ctx.Err() == nil {
				if err := everyRPC(ctx, p.rpc, tenant); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer load.Wait()
	defer cancel()

	wanted := dashboardExpressions(t)
	for _, r := range readRules(t, "recording.yaml") {
		wanted["rule "+r.Record] = []string{r.Expr, r.Record}
	}
	for form, server := range servers {
		// A new block has no header yet, and no cache has its pages.
		waitForData(ctx, t, form, server, map[string][]string{"target": {"up == 1"}})
		if _, err := dataset.WholeMetric(form, 2, 200, 30_000).
			Write(t.Context(), blocks, dataset.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		waitForData(ctx, t, form, server, wanted)
		var found struct {
			Groups []struct {
				Rules []struct{ Name, Health, State, LastError string }
			}
		}
		if !server.get("/api/v1/rules", &found) {
			t.Fatal("Prometheus does not answer")
		}
		for _, g := range found.Groups {
			for _, r := range g.Rules {
				if r.Health != "ok" || r.State != "" && r.State != "inactive" {
					t.Errorf("%s: rule %s is %s, %s %s", form, r.Name, r.State, r.Health,
						r.LastError)
				}
			}
		}
	}
}

// waitForData waits until all expressions have values, and reports those that get none.
func waitForData(
	ctx context.Context, t *testing.T, form string, server *scraper, wanted map[string][]string,
) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	var missing []string
	for name, exprs := range wanted {
		for _, expr := range exprs {
			missing = append(missing, name+":\n"+expr)
		}
	}
	for {
		missing = slices.DeleteFunc(missing, func(s string) bool {
			_, expr, _ := strings.Cut(s, "\n")
			return server.has(expr)
		})
		if len(missing) == 0 {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			slices.Sort(missing)
			t.Errorf("%s histograms: no data for\n%s", form, strings.Join(missing, "\n"))
			return
		}
	}
}
