package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestBrokenFilesOfARunningProcessTellNoSecret breaks each file that a running process reloads, in
// many ways. The library of --http.config reads its file for each request and logs errors.
func TestBrokenFilesOfARunningProcessTellNoSecret(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	put := func(name, text string) {
		t.Helper()
		// Replace the file atomically, so that the process never reads a part of it.
		if err := os.WriteFile(file("new"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file("new"), file(name)); err != nil {
			t.Fatal(err)
		}
	}
	good := map[string]string{
		"web": "http_server_config: {http2: false}", "bucket": folder(t.TempDir()),
		"limits":  "default: {weight: 1}",
		"relabel": "[{action: keep, source_labels: [a], regex: b}]",
		"request": "options: {level: INFO}",
		"budgets": "bucket_read: 1s",
	}
	for name, text := range good {
		put(name, text)
	}
	p := startLarder(t, nil, "store", "--log.level=debug", "--drain-delay=0s",
		"--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0", "--http.config="+file("web"),
		"--objstore.config-file="+file("bucket"), "--store.limits.config-file="+file("limits"),
		"--selector.relabel-config-file="+file("relabel"),
		"--request.logging-config-file="+file("request"),
		"--latency-budgets-file="+file("budgets"))
	p.await("readiness changed.*ready=true")
	for _, text := range []string{
		secret, "[" + secret + "]", "a: *" + secret, "a: !!int " + secret, "a: &x [" + secret,
		"basic_auth_users: {a: " + secret + "}", "basic_auth_users: " + secret,
		"tls_server_config: {min_version: " + secret + ", cert_file: a, key_file: b}",
		"tls_server_config: {client_auth_type: " + secret + "}",
		"tls_server_config: {cert: " + secret + ", key: " + secret + "}",
		"tls_server_config: {cipher_suites: [" + secret + "]}",
		"http_server_config: {headers: {X-Frame-Options: " + secret + "}}",
		"http_server_config: {headers: {" + secret + ": a}}", "http_server_config: {http2: " +
			secret + "}",
		"rate_limit: {burst: " + secret + "}", secret + ": a",
		"type: S3\nconfig: {bucket: blocks, secret_key: " + secret + ", access_key: [" + secret +
			"]}",
		"default: {weight: " + secret + "}", "[{action: keep, secret_key: " + secret + "}]",
		"options: {level: " + secret + "}", "bucket_read: " + secret,
	} {
		for name := range good {
			put(name, text)
		}
		_, _ = p.get("/metrics") // answers 500 where the web configuration is broken
		p.signal(syscall.SIGHUP)
		p.await("reloading configuration files")
	}
	p.signal(syscall.SIGINT)
	p.exit()
	log := strings.Join(p.seen, "\n")
	if !strings.Contains(log, "Unable to parse configuration") || !strings.Contains(log,
		"kind=objstore") {
		t.Error("the log does not say what is wrong")
	}
	for _, line := range p.seen {
		if strings.Contains(line, secret) {
			t.Errorf("the log tells a secret: %s", line)
		}
	}
}
