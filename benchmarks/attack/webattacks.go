package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/dataset"
)

// webAttacks are attacks 6 and 11, and scripts in names from the bucket: what a page of another
// site can make a browser do.
func webAttacks() []attack {
	return []attack{
		{name: "marks", number: "6", prepare: func(_ context.Context, t *target) error {
			t.flags = []string{"--enable-admin-operations"}
			return nil
		}, run: runMarks},
		{name: "headers", number: "11", prepare: func(_ context.Context, t *target) error {
			t.flags = []string{"--web.prefix-header=X-Forwarded-Prefix"}
			return nil
		}, run: runHeaders},
		{name: "scripts", prepare: prepareScripts, run: runScripts},
	}
}

// runMarks posts marks the way a page in a browser can: a page of another site, and a page whose
// host name now resolves to larder (DNS rebinding).
func runMarks(ctx context.Context, t *target) (string, error) {
	_, port, _ := strings.Cut(t.larder.HTTP, ":")
	rebound := "attacker.example:" + port
	tries := []struct {
		what, host string
		header     http.Header
	}{
		{"rebound, Origin equals Host", rebound,
			http.Header{"Origin": {"http://" + rebound}, "Sec-Fetch-Site": {"same-origin"}}},
		{"rebound, an old browser", rebound, http.Header{"Origin": {"http://" + rebound}}},
		{"rebound, without an Origin", rebound, http.Header{"Sec-Fetch-Site": {"none"}}},
		{"rebound, to the port's name", "localhost.attacker.example:" + port,
			http.Header{"Origin": {"http://localhost.attacker.example:" + port}}},
		{"rebound, with an address inside", "127.0.0.1.attacker.example:" + port,
			http.Header{"Origin": {"http://127.0.0.1.attacker.example:" + port}}},
		{"of another site", t.larder.HTTP, http.Header{"Origin": {"http://attacker.example"},
			"Sec-Fetch-Site": {"cross-site"}}},
		{"of another site, an old browser", t.larder.HTTP,
			http.Header{"Origin": {"http://attacker.example"}}},
		{"of a page without an origin", t.larder.HTTP, http.Header{"Origin": {"null"}}},
	}
	answers := map[int]int{}
	for i, try := range tries {
		action := []string{"DELETION", "NO_COMPACTION"}[i%2]
		status, marked, err := t.mark(ctx, action, try.host, try.header)
		if err != nil {
			return "", err
		}
		answers[status]++
		if marked {
			t.got("%s was written: %s", action, try.what)
		}
	}
	// A client that is no browser, at larder's own address, can post a mark. Otherwise the attack
	// tested nothing.
	status, marked, err := t.mark(ctx, "NO_COMPACTION", t.larder.HTTP, http.Header{})
	if err == nil && !marked {
		err = fmt.Errorf("an operator cannot mark a block: status %d", status)
	}
	return fmt.Sprintf("%d ways to post a mark, answers by status: %v", len(tries), answers), err
}

// mark posts a mark for the honest block. It reports whether the mark was written, and removes it.
func (t *target) mark(ctx context.Context, action, host string, h http.Header) (int, bool, error) {
	form := url.Values{"id": {t.block}, "action": {action}, "detail": {"an attack"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://"+t.larder.HTTP+"/api/v1/blocks/mark", strings.NewReader(form.Encode()))
	if err != nil {
		return 0, false, err
	}
	req.Header, req.Host = h, host
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, _, _, err := t.do(attacker(0), req)
	if err != nil {
		return 0, false, err
	}
	marked := false
	for _, name := range []string{"deletion-mark.json", "no-compact-mark.json"} {
		err := os.Remove(filepath.Join(t.bucket, t.block, name))
		if marked = marked || err == nil; err != nil && !errors.Is(err, fs.ErrNotExist) {
			return status, marked, err
		}
	}
	return status, marked, nil
}

// runHeaders checks the headers of every kind of answer.
func runHeaders(ctx context.Context, t *target) (string, error) {
	paths := []string{"/", "/blocks", "/loaded/", "/favicon.ico", "/metrics", "/-/ready",
		"/-/healthy", "/api/v1/blocks",
		"/api/v1/status/flags", "/api/v1/status/buildinfo", "/api/v1/status/runtimeinfo",
		"/api/v1/status/config",
		"/api/v1/nowhere", "/nowhere", "/debug/pprof/"}
	for _, path := range paths {
		_, h, _, err := t.get(ctx, attacker(0), path, nil)
		if err != nil {
			return "", err
		}
		if h.Get("X-Content-Type-Options") != "nosniff" {
			t.got("%s has no nosniff", path)
		}
		if strings.HasPrefix(h.Get("Content-Type"), "text/html") && path == "/" &&
			h.Get("Content-Security-Policy") == "" {
			t.got("%s has no Content-Security-Policy", path)
		}
	}
	// A shared cache must not return the redirect for one prefix to clients that came through
	// another.
	for _, prefix := range []string{"/poison", "//attacker.example/x",
		"https://attacker.example/y"} {
		_, h, _, err := t.get(ctx, attacker(0), "/blocks/",
			http.Header{"X-Forwarded-Prefix": {prefix}})
		if err != nil {
			return "", err
		}
		varies := strings.Contains(strings.ToLower(h.Get("Vary")), "x-forwarded-prefix")
		kept := !strings.Contains(h.Get("Cache-Control"), "no-store") &&
			!strings.Contains(h.Get("Cache-Control"), "private")
		if h.Get("Location") != "" && !varies && kept {
			t.got("the redirect to %s may be kept by a shared cache", h.Get("Location"))
		}
		u, err := url.Parse(h.Get("Location"))
		if err != nil || u.Host != "" {
			t.got("a header redirects to %s", h.Get("Location"))
		}
	}
	return fmt.Sprintf("%d paths, 3 prefixes", len(paths)), nil
}

// script must not appear unescaped in a page.
const script = `"'><script>alert(1)</script><img src=x onerror=alert(1)>`

// prepareScripts makes a block whose labels are markup.
func prepareScripts(ctx context.Context, t *target) error {
	t.flags = []string{"--bucket-web-label=cluster", "--web.prefix-header=X-Forwarded-Prefix"}
	layout := dataset.WholeMetric("scripts", t.conf.seed+1, 200, 3_600_000)
	b := &layout.Blocks[0]
	b.MinTime, b.MaxTime = b.MinTime-72*3_600_000, b.MaxTime-72*3_600_000 // beside the honest one
	b.Labels = labels.FromStrings("cluster", script, "replica", "{{.}}"+script)
	_, err := layout.Write(ctx, t.bucket, dataset.WriteOptions{})
	return err
}

func runScripts(ctx context.Context, t *target) (string, error) {
	paths := []string{"/", "/blocks", "/loaded", "/blocks?x=" + url.QueryEscape(script),
		"/" + url.PathEscape(script),
		"/api/v1/" + url.PathEscape(script), "/api/v1/blocks?view=" +
			url.QueryEscape(script), "/api/v1/blocks"}
	shown := false
	for _, path := range paths {
		_, h, body, err := t.get(ctx, attacker(0), path,
			http.Header{"X-Forwarded-Prefix": {script}})
		if err != nil {
			return "", err
		}
		shown = shown || strings.Contains(body, "&lt;script&gt;alert(1)")
		// A browser executes HTML, and what it may interpret as HTML.
		isPage := strings.HasPrefix(h.Get("Content-Type"), "text/html") ||
			h.Get("X-Content-Type-Options") != "nosniff" && h.Get("Content-Type") == ""
		if isPage && (strings.Contains(body, "<script") || strings.Contains(body, "<img src=x")) {
			t.got("%s has the script", path)
		}
	}
	if !shown {
		t.got("no page shows the label: the attack tested nothing")
	}
	return fmt.Sprintf("%d paths with markup in labels, paths and headers", len(paths)), nil
}
