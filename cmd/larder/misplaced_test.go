package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMisplacedArgumentsTellNoSecret gives documents, keys and URLs in wrong places of the command
// line or of the environment. The binary rejects them, or exits because its port is in use.
func TestMisplacedArgumentsTellNoSecret(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	bucket := "--objstore.config=" + folder(t.TempDir())
	doc := "{type: S3, config: {bucket: blocks, secret_key: " + secret + "}}"
	lines := "type: S3\nconfig:\n  bucket: blocks\n  secret_key: " + secret + "\n"
	key := "-----BEGIN PRIVATE KEY-----\n" + secret + "\n-----END PRIVATE KEY-----"
	f := func(env []string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := larder(ctx, env, args...)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "larder: error: ") {
			t.Errorf("%q: got %v, want an error:\n%s", args, err, out)
		}
		if strings.Contains(string(out), secret) {
			t.Errorf("%q %q tell a secret:\n%s", env, args, out)
		}
	}
	// Beside or instead of a flag.
	for _, text := range []string{doc, lines, key, secret, "user:" + secret + "@host", "a=" +
		secret} {
		f(nil, "store", text)
		f(nil, "store", bucket, text)
		f(nil, text)
		f(nil, "store", bucket, "--web.disable="+text)
	}
	f(nil, "store", "--objstore.config "+doc)
	f(nil, "store", "--objstore.config:"+doc)
	f(nil, "store", "-objstore.config "+doc)
	f(nil, "store", "--objstore.cnofig="+doc)
	f(nil, "store", "--no-objstore.config="+doc)
	// In the place of a file.
	for _, flag := range []string{
		"objstore.config-file", "tracing.config-file", "index-cache.config-file", "http.config",
		"grpc-server-tls-cert", "selector.relabel-config-file",
	} {
		for _, text := range []string{doc, lines, key, "https://u:" + secret + "@host/x.yml"} {
			args := []string{"store", "--" + flag + "=" + text, "--grpc-server-tls-key=x"}
			if flag != "objstore.config-file" {
				args = append(args, bucket)
			}
			f(nil, args...)
		}
	}
	// Under another flag for a document, and with a blank missing.
	missing := strings.ReplaceAll(lines, ": ", ":")
	for _, flag := range []string{
		"selector.relabel-config", "request.logging-config", "store.limits.config",
		"tracing.config", "latency-budgets",
		"index-cache.config", "store.caching-bucket.config",
	} {
		for _, text := range []string{doc, lines, "[" + doc + "]", missing, "{secret_key:" +
			secret + "}"} {
			f(nil, "store", bucket, "--"+flag+"="+text, "--grpc-address="+busy.Addr().String())
		}
	}
	f(nil, "store", "--objstore.config="+missing)
	f(nil, "store", "--objstore.config={type: S3, config: {secret_key:"+secret+"}}")
	// In the environment.
	for _, env := range []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://user:" + secret + "%zz@127.0.0.1:1",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1/?token=" + secret,
		"OTEL_EXPORTER_OTLP_HEADERS=authorization Bearer " + secret,
		"OTEL_EXPORTER_OTLP_HEADERS=authorization=%zz" + secret,
		"OTEL_EXPORTER_OTLP_PROTOCOL=" + secret,
		"OTEL_EXPORTER_OTLP_TIMEOUT=" + secret,
		"OTEL_TRACES_SAMPLER=" + secret,
		"OTEL_TRACES_SAMPLER_ARG=" + secret,
		"OTEL_RESOURCE_ATTRIBUTES=" + secret,
	} {
		all := []string{env, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:1"}
		f(all, "store", "--log.level=debug", bucket, "--grpc-address="+busy.Addr().String())
	}
}

// TestNoFlagTellsASecret gives each flag a document and an address with a password. Neither the
// error nor what the process shows of its flags repeats them.
func TestNoFlagTellsASecret(t *testing.T) {
	conf, err := parseStore("--objstore.config=x")
	if err != nil {
		t.Fatal(err)
	}
	for name := range conf.shown() {
		for _, text := range []string{
			"{type: S3, config: {secret_key: " + secret + "}}", "user:" + secret + "@host:1",
			"http://user:" + secret + "@host", "https://host/?sig=" + secret,
		} {
			args := []string{"--" + name + "=" + text}
			if !slices.Contains([]string{"objstore.config", "objstore.config-file"}, name) {
				args = append(args, "--objstore.config="+folder(t.TempDir()))
			}
			conf, err := parseStore(args...)
			if err != nil { // main words it, see explainArguments
				continue
			}
			told := fmt.Sprint(conf.shown())
			if err := conf.load(time.Now()); err != nil {
				told += " " + err.Error()
			}
			if strings.Contains(told, secret) {
				t.Errorf("--%s=%s is told: %s", name, text, told)
			}
		}
	}
}
