package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"larder/benchmarks/dataset"
	"larder/internal/clienttls/tlstest"
	"larder/store/storepb"
)

// metric waits for a line of /metrics: a reload sets it after it has logged.
func (p *process) metric(want string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		_, metrics := p.get("/metrics")
		if strings.Contains(metrics, want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("/metrics lacks %s", want)
		}
	}
}

// TestReload: configuration files of a running process change, by file watch and by SIGHUP.
func TestReload(t *testing.T) {
	bucket := t.TempDir()
	var ids []string
	for seed, name := range []string{"one", "two"} {
		metas, err := dataset.WholeMetric(name, uint64(seed), 200, 30_000).
			Write(t.Context(), bucket, dataset.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, metas[0].ULID.String())
	}

	// The relabel rules are in a directory as Kubernetes makes it, the request logging in a plain
	// file.
	volume := t.TempDir()
	publish := func(name, content string) {
		t.Helper()
		dir := filepath.Join(volume, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "relabel.yml"), []byte(content),
			0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(name, filepath.Join(volume, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(volume, "..data_tmp"),
			filepath.Join(volume, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	keep := func(ids ...string) string {
		return "- {action: keep, source_labels: [__block_id], regex: " + strings.Join(
			ids, "|",
		) + "}\n"
	}
	publish("..1", keep(ids[0]))
	relabel := filepath.Join(volume, "relabel.yml")
	if err := os.Symlink("..data/relabel.yml", relabel); err != nil {
		t.Fatal(err)
	}
	requests := write(t, "requests.yml", "{}")

	p := startProcess(
		t, folder(bucket), "--log.level=debug", "--selector.relabel-config-file="+relabel,
		"--request.logging-config-file="+requests,
	)
	p.await("blocks changed.* blocks=1 ")
	const kind = `larder_config_last_reload_successful{kind="`
	p.metric(kind + `relabel"} 1`)
	p.metric(kind + `request-logging"} 1`)

	publish("..2", keep(ids...))
	p.await("blocks changed.* blocks=2 new=1 gone=0 ")
	publish("..3", "- {action: replace, target_label: a}\n")
	p.await(
		"configuration reload failed.* kind=relabel .*--selector.relabel-config-file " + relabel,
	)
	p.metric(kind + `relabel"} 0`)
	publish("..4", keep(ids[1]))
	p.await("blocks changed.* blocks=1 new=0 gone=1 ")
	p.metric(kind + `relabel"} 1`)
	rule := html.EscapeString(`keep __block_id=~"` + ids[1] + `"`)
	if _, page := p.get("/"); !strings.Contains(page, rule) {
		t.Errorf("the overview does not show the new rule %s", rule)
	}
	if err := p.info(); err != nil {
		t.Error(err)
	}

	replace(t, requests, []byte("grpc: {options: {level: DEBUG, decision: {log_end: true}}}"))
	p.await("configuration reloaded.* kind=request-logging")
	ctx := metadata.AppendToOutgoingContext(
		t.Context(), "THANOS-TENANT", "kitchen", "request-id", "from-the-querier",
	)
	p.infoWith(ctx)
	p.await(
		`msg="finished call".* requestID=from-the-querier tenant=kitchen .* grpc.service=thanos.info.Info grpc.method=Info `,
	)

	// Asked, everything is read again, whether it has changed or not.
	replace(t, requests, []byte("grpc: {options: {level: FINE}}"))
	p.await(
		"configuration reload failed.* kind=request-logging .*--request.logging-config-file " + requests + ": grpc.options.level",
	)
	p.signal(syscall.SIGHUP)
	p.await("reloading configuration files")
	p.await("configuration reload failed.* kind=request-logging ")
	p.await("configuration reloaded.* kind=relabel")
	p.infoWith(ctx)
	p.await(`msg="finished call".* grpc.method=Info `) // as the last good file says
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 0 {
		t.Errorf("got exit code %d", code)
	}
}

// TestReloadOfEmptyFiles: files that were empty at the start are no failure until they say
// something that is one.
func TestReloadOfEmptyFiles(t *testing.T) {
	relabel, requests := write(t, "relabel.yml", ""), write(t, "requests.yml", "")
	p := startProcess(
		t, folder(t.TempDir()), "--selector.relabel-config-file="+relabel,
		"--request.logging-config-file="+requests,
	)
	p.signal(syscall.SIGHUP)
	p.await("configuration reloaded.* kind=request-logging")
	p.await("configuration reloaded.* kind=relabel")
	for _, line := range p.seen {
		if strings.Contains(line, "was not reloaded") {
			t.Error(line)
		}
	}
	replace(t, relabel, []byte("[{action: drop, source_labels: [a], regex: b}]"))
	p.await("configuration reloaded.* kind=relabel")
	replace(t, relabel, nil)
	p.await(
		"configuration reload failed.* kind=relabel .*--selector.relabel-config-file " + relabel + ": the file is empty",
	)
}

// TestBucketCredentials checks that new credentials are used without a restart once they work, and
// that other changes of the bucket are rejected.
func TestBucketCredentials(t *testing.T) {
	var valid atomic.Value
	valid.Store("old-key")
	listed := make(chan string, 1000)
	s3 := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := valid.Load().(string)
		if !strings.Contains(r.Header.Get("Authorization"), "Credential="+key+"/") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(
				w, "<Error><Code>InvalidAccessKeyId</Code><Message>who?</Message></Error>",
			)
			return
		}
		listed <- key
		_, _ = io.WriteString(
			w,
			"<ListBucketResult><Name>blocks</Name><IsTruncated>false</IsTruncated></ListBucketResult>",
		)
	}))
	defer s3.Close()
	config := func(key, prefix string) []byte {
		return fmt.Appendf(
			nil,
			"{type: S3, prefix: %q, config: {bucket: blocks, endpoint: %s, insecure: true, region: r, access_key: %s, secret_key: s, max_retries: 1}}",
			prefix, s3.Listener.Addr(), key,
		)
	}
	file := write(t, "bucket.yml", string(config("old-key", "")))
	p := startLarder(
		t, nil, "store", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
		"--objstore.config-file="+file, "--sync-block-duration=1s",
	)
	p.await("readiness changed.*ready=true")

	replace(t, file, config("wrong-key", ""))
	p.await(
		"configuration reload failed.* kind=objstore .*--objstore.config-file " + file + ".*cannot be listed",
	)
	replace(t, file, config("old-key", "elsewhere"))
	p.await("configuration reload failed.* kind=objstore .*prefix needs a restart")
	for len(listed) > 0 {
		<-listed
	}
	if got := <-listed; got != "old-key" { // a sync later, the old ones are in use
		t.Errorf("got a listing with %s", got)
	}
	p.metric(`larder_config_last_reload_successful{kind="objstore"} 0`)

	valid.Store("new-key")
	p.await("sync failed") // the old ones are in use, and expired
	replace(t, file, config("new-key", ""))
	p.await("configuration reloaded.* kind=objstore")
	p.metric(`larder_config_last_reload_successful{kind="objstore"} 1`)
	for len(listed) > 0 {
		<-listed
	}
	if got := <-listed; got != "new-key" {
		t.Errorf("got a listing with %s", got)
	}
}

// TestWebConfig: TLS and basic auth of HTTP by Prometheus's web configuration, which may change.
func TestWebConfig(t *testing.T) {
	const (
		salt   = "$2a$04$hVHm.fqqbB.ZWN4AADSRFOhtQfCzaEDEfQACxfhsv0xrWo9c3xX8e"
		pepper = "$2a$04$BEXFig3AGhG3l9RZ76XouO7CfoORml8SxiPEikVJjsI/aDViwl6Gu"
	)
	ca, otherCA := tlstest.New(t), tlstest.New(t)
	certFile, keyFile := ca.Files(-time.Hour, time.Hour)
	rpcCert, rpcKey := ca.Files(-time.Hour, time.Hour)
	config := func(hash string) string {
		return fmt.Sprintf(
			"tls_server_config: {cert_file: %s, key_file: %s}\nbasic_auth_users: {cook: %s}\n",
			certFile, keyFile, hash,
		)
	}
	file := write(t, "web.yml", config(salt))
	p := startProcess(
		t, folder(t.TempDir()), "--http.config="+file, "--grpc-server-tls-cert="+rpcCert,
		"--grpc-server-tls-key="+rpcKey,
	)
	address := strings.TrimPrefix(p.url, "http://")
	get := func(conf *tls.Config, password string) (int, error) {
		t.Helper()
		client := &http.Client{
			Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true},
		}
		req, err := http.NewRequestWithContext(
			t.Context(), http.MethodGet, "https://"+address+"/-/healthy", nil,
		)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			req.SetBasicAuth("cook", password)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	answers := func(what string, conf *tls.Config, password string, want int) {
		t.Helper()
		if code, err := get(conf, password); err != nil || code != want {
			t.Errorf("%s: got %d, %v, want %d", what, code, err, want)
		}
	}
	answers("with the password", ca.Anonymous(), "salt", http.StatusOK)
	answers("without a password", ca.Anonymous(), "", http.StatusUnauthorized)
	answers("with another password", ca.Anonymous(), "pepper", http.StatusUnauthorized)
	if _, err := get(otherCA.Anonymous(), "salt"); err == nil {
		t.Error("a client that trusts another authority: no error")
	}
	if code, _ := p.get("/-/healthy"); code != http.StatusBadRequest {
		t.Errorf("plain text: got %d", code)
	}

	replace(t, file, []byte(config(pepper)))
	p.await("configuration reloaded.* kind=http")
	answers("with the former password", ca.Anonymous(), "salt", http.StatusUnauthorized)
	answers("with the new password", ca.Anonymous(), "pepper", http.StatusOK)
	newCert, newKey := otherCA.Issue(-time.Hour, time.Hour)
	replace(t, keyFile, newKey)
	p.await("configuration reload failed.* kind=http .*private key does not match")
	replace(t, certFile, newCert)
	p.await("configuration reloaded.* kind=http")
	answers("with the new certificate", otherCA.Anonymous(), "pepper", http.StatusOK)
	// Settings that apply only at the start are reported as not applied.
	replace(
		t, file,
		[]byte("http_server_config: {http2: false}\nrate_limit: {burst: 1, interval: 1s}\n"),
	)
	p.await(
		"configuration reload failed.* kind=http .*needs a restart: to turn tls_server_config on or off, a change of http_server_config.http2, a change of rate_limit",
	)
	replace(t, file, []byte(config(pepper)))
	p.await("configuration reloaded.* kind=http")

	late, lateKey := ca.Issue(-time.Hour, -time.Minute)
	replace(t, rpcKey, lateKey)
	p.await("configuration reload failed.* kind=grpc-tls .*private key does not match")
	replace(t, rpcCert, late)
	p.await(
		"configuration reload failed.* kind=grpc-tls .*--grpc-server-tls-cert " + rpcCert + ": the certificate expired at",
	)
	goodCert, goodKey := ca.Issue(-time.Hour, time.Hour)
	replace(t, rpcKey, goodKey)
	replace(t, rpcCert, goodCert)
	p.await("configuration reloaded.* kind=grpc-tls")
}

func (p *process) infoWith(ctx context.Context) {
	p.t.Helper()
	if _, err := storepb.NewInfoClient(p.rpc).Info(ctx, &storepb.InfoRequest{}); err != nil {
		p.t.Error(err)
	}
}
