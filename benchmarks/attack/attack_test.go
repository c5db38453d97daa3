package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"larder/benchmarks/process"
)

// TestMain makes the test binary its own honest client.
func TestMain(m *testing.M) {
	if conf := os.Getenv(honestEnv); conf != "" {
		if err := runHonest(conf); err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestAttacks is the short form of `make attack`: every attack with small counts, and no limits on
// times. Larder survives, no honest request fails, and none of what the attacks look for is found.
func TestAttacks(t *testing.T) {
	if testing.Short() {
		t.Skip("builds larder and attacks it for a minute")
	}
	c := shortRun()
	dir := t.TempDir()
	var err error
	if c.binary, err = process.Build(t.Context(), "", dir); err != nil {
		t.Fatal(err)
	}
	for _, a := range allAttacks() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			r, err := c.attack(t.Context(), a, filepath.Join(dir, a.name))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(r.cells())
			for _, f := range r.findings {
				t.Error(f)
			}
		})
	}
	t.Run("what gets through is found", func(t *testing.T) {
		t.Parallel()
		kills := attack{name: "kills", run: func(_ context.Context, t *target) (string, error) {
			t.larder.Kill()
			return "", nil
		}}
		r, err := c.attack(t.Context(), kills, filepath.Join(dir, kills.name))
		if err != nil {
			t.Fatal(err)
		}
		found := strings.Join(r.findings, "\n")
		for _, want := range []string{"larder has ended", "honest requests failed"} {
			if !strings.Contains(found, want) {
				t.Errorf("an attack that kills larder is reported as %q, without %q", found, want)
			}
		}
		if r.lives || r.verdict() == (&result{}).verdict() {
			t.Errorf("got lives=%t, verdict %q", r.lives, r.verdict())
		}
	})
}

// shortRun is the configuration of a run of seconds.
func shortRun() config { return config{seed: 1, short: true, limit: 1 << 30} }

// TestUnknownAttack: a misspelt name stops the run before it starts.
func TestUnknownAttack(t *testing.T) {
	c := shortRun()
	c.only = []string{"gzip-one", "gzip-two"}
	if _, err := attackAll(t.Context(), c, nil); err == nil ||
		!strings.Contains(err.Error(), "gzip-two") {
		t.Errorf("got %v", err)
	}
}
