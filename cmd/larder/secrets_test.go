package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"larder/store/storepb"
)

// secret is the value of every secret in these tests.
const secret = "hunter2-s3cr3t"

// told is all output of a larder: its log, its answers and its traces.
type told struct {
	mu   sync.Mutex
	text map[string][]byte // by where it was seen
}

func (s *told) add(where string, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text == nil {
		s.text = map[string][]byte{}
	}
	s.text[where] = append(s.text[where], b...)
}

func (s *told) check(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for where, b := range s.text {
		if i := bytes.Index(b, []byte(secret)); i >= 0 {
			t.Errorf("%s tells a secret: ...%s...", where, b[max(0, i-200):min(len(b), i+60)])
		}
	}
}

// everythingTold runs larder at --log.level=debug until it has been asked for everything, or has
// refused to start, and notes what it tells.
func everythingTold(t *testing.T, s *told, env []string, args ...string) (started bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := larder(
		ctx,
		env,
		append(
			[]string{
				"store",
				"--log.level=debug",
				"--http-address=127.0.0.1:0",
				"--grpc-address=127.0.0.1:0",
				"--drain-delay=0s",
			},
			args...)...)
	cmd.Dir = t.TempDir()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	var rpc, web string
	for (rpc == "" || web == "") && lines.Scan() {
		s.add("log", append(lines.Bytes(), '\n'))
		if m := regexp.MustCompile(`"(serving gRPC|Listening on)".*address=(\S+)`).
			FindStringSubmatch(lines.Text()); m != nil {
			if m[1] == "serving gRPC" {
				rpc = m[2]
			} else {
				web = m[2]
			}
		}
	}
	started = rpc != "" && web != ""
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		for lines.Scan() {
			s.add("log", append(lines.Bytes(), '\n'))
		}
	}()
	if started {
		askEverything(t, s, "http://"+web, rpc)
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
	}
	<-logged
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
	return started
}

// askEverything asks for all that HTTP and gRPC serve.
func askEverything(t *testing.T, s *told, url, rpc string) {
	t.Helper()
	for _, path := range []string{
		"/", "/blocks", "/loaded", "/metrics", "/-/ready", "/nowhere",
		"/api/v1/blocks?view=loaded", "/api/v1/status/flags", "/api/v1/status/runtimeinfo",
		"/api/v1/status/buildinfo", "/api/v1/status/config",
		"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2",
		"/debug/pprof/heap?debug=1", "/debug/pprof/allocs",
		"/debug/pprof/symbol", "/debug/pprof/trace?seconds=0.1",
		"/debug/fgprof?seconds=1&format=folded",
	} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		b, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if z, err := gzip.NewReader(bytes.NewReader(b)); err == nil { // profiles are
			if plain, err := io.ReadAll(z); err == nil {
				b = plain
			}
		}
		s.add(path+" header", fmt.Append(nil, resp.Header))
		s.add(path, b)
	}
	conn, err := grpc.NewClient(rpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// Answers or errors, it does not matter which.
	info, err := storepb.NewInfoClient(conn).Info(t.Context(), &storepb.InfoRequest{})
	s.add("Info", fmt.Append(nil, info, err))
	client := storepb.NewStoreClient(conn)
	names, err := client.LabelNames(t.Context(), &storepb.LabelNamesRequest{End: 1 << 50})
	s.add("LabelNames", fmt.Append(nil, names, err))
	if stream, err := client.Series(
		t.Context(), &storepb.SeriesRequest{MaxTime: 1 << 50}); err == nil {
		resp, err := stream.Recv()
		s.add("Series", fmt.Append(nil, resp, err))
	}
}

// TestSecretsAreNotTold gives a secret in every possible place, for each kind of bucket. All
// servers reject all requests. No output shows the secret.
func TestSecretsAreNotTold(t *testing.T) {
	refusing := httptest.NewServer(
		http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "no", http.StatusForbidden)
			},
		),
	)
	defer refusing.Close()
	host := refusing.Listener.Addr().String()
	rsa := "-----BEGIN PRIVATE KEY-----\\n" + secret + "\\n-----END PRIVATE KEY-----"
	buckets := map[string]string{
		"S3": `{type: S3, config: {bucket: blocks, endpoint: "` + host +
			`", insecure: true, region: r, access_key: "` + secret + `", secret_key: "` + secret +
			`", session_token: "` + secret + `", max_retries: 1}}`,
		"S3 in URL":        `{type: S3, config: {bucket: blocks, endpoint: "http://user:` + secret + `@` + host + `", insecure: true, access_key: a, secret_key: s}}`,
		"GCS":              `{type: GCS, config: {bucket: blocks, service_account: '{"type": "service_account", "private_key": "` + rsa + `", "private_key_id": "` + secret + `", "client_email": "a@b", "token_uri": "http://` + host + `"}'}}`,
		"GCS broken":       `{type: GCS, config: {bucket: blocks, service_account: '{"type": "service_account", "private_key": ` + secret + `}'}}`,
		"AZURE":            `{type: AZURE, config: {storage_account: a, storage_account_key: "` + secret + `", container: blocks, endpoint: "` + host + `", max_retries: 1}}`,
		"AZURE connection": `{type: AZURE, config: {storage_account: a, container: blocks, storage_connection_string: "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=` + secret + `;BlobEndpoint=http://` + host + `/a"}}`,
		"AZURE client":     `{type: AZURE, config: {storage_account: a, container: blocks, client_id: a, client_secret: "` + secret + `", az_tenant_id: x, endpoint: "` + host + `"}}`,
		"SWIFT":            `{type: SWIFT, config: {auth_url: "http://user:` + secret + `@` + host + `/v3", username: u, password: "` + secret + `", user_domain_name: d, project_name: p, container_name: c, application_credential_secret: "` + secret + `", retries: 1}}`,
		"COS":              `{type: COS, config: {bucket: blocks, region: r, app_id: "1", endpoint: "http://` + host + `", secret_id: "` + secret + `", secret_key: "` + secret + `"}}`,
		"ALIYUNOSS":        `{type: ALIYUNOSS, config: {endpoint: "http://` + host + `", bucket: blocks, access_key_id: "` + secret + `", access_key_secret: "` + secret + `"}}`,
		"BOS":              `{type: BOS, config: {bucket: blocks, endpoint: "http://` + host + `", access_key: "` + secret + `", secret_key: "` + secret + `"}}`,
		"OBS":              `{type: OBS, config: {bucket: blocks, endpoint: "http://` + host + `", access_key: "` + secret + `", secret_key: "` + secret + `"}}`,
		"OCI":              `{type: OCI, config: {provider: raw, bucket: blocks, compartment_ocid: c, tenancy_ocid: t, user_ocid: u, region: r, fingerprint: f, privatekey: "` + rsa + `", passphrase: "` + secret + `"}}`,
	}
	traced := `{type: S3, config: {bucket: blocks, endpoint: "` + host + `", region: r, ` +
		`insecure: true, `
	for _, key := range []string{"access_key", "secret_key", "session_token"} {
		traced += key + `: "` + secret + `", `
	}
	buckets["S3 traced"] = traced + `trace: {enable: true}}}`
	buckets["S3 query"] = `{type: S3, config: {bucket: blocks, endpoint: "` + host +
		`/?X-Amz-Signature=` + secret + `", insecure: true, access_key: a, secret_key: s}}`
	if testing.Short() {
		for name := range buckets {
			if name != "S3" && name != "SWIFT" {
				delete(buckets, name)
			}
		}
	}
	for name, bucket := range buckets {
		t.Run(name, func(t *testing.T) {
			s := &told{}
			everythingTold(t, s, nil, "--objstore.config="+bucket)
			s.check(t)
		})
	}
}

// TestSignaturesInURLsAreNotTold: the error of a connection that fails has the URL of the request,
// and with a shared access signature the URL is all that a reader of the bucket needs.
func TestSignaturesInURLsAreNotTold(t *testing.T) {
	bucket := `{type: AZURE, config: {storage_account: a, container: blocks, ` +
		`pipeline_config: {retry_delay: 1ms, max_retry_delay: 1ms}, storage_connection_string: ` +
		`"BlobEndpoint=http://127.0.0.1:1/a;SharedAccessSignature=sv=2022-11-02&ss=b&sig=` +
		secret + `"}}`
	p := startProcess(t, bucket, "--log.level=debug")
	line := p.await("the bucket has not answered yet")
	if !strings.Contains(line, "sig=<REDACTED>") {
		t.Errorf("the line has no URL: %s", line)
	}
	s := &told{}
	askEverything(t, s, p.url, p.rpc.Target())
	p.signal(syscall.SIGINT)
	p.exit()
	s.add("log", []byte(strings.Join(p.seen, "\n")))
	s.check(t)
}

// TestSecretsBesideTheBucketAreNotTold: traces, caches, HTTP's users, prefixes and variables of the
// environment. The collector of traces sees what is sent to it.
func TestSecretsBesideTheBucketAreNotTold(t *testing.T) {
	s := &told{}
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			if z, err := gzip.NewReader(r.Body); err == nil {
				body = z
			}
		}
		b, _ := io.ReadAll(body)
		s.add("trace", b)
		w.WriteHeader(http.StatusForbidden)
	}))
	defer collector.Close()
	web := write(t, "web.yml", "http_server_config: {headers: {X-Frame-Options: deny}}")
	started := everythingTold(
		t,
		s,
		[]string{"SECRET=" + secret, "OTEL_EXPORTER_OTLP_HEADERS=authorization=" + secret},
		`--objstore.config={type: S3, config: {bucket: blocks, endpoint: "127.0.0.1:1", insecure: true, region: r, access_key: $(SECRET), secret_key: $(SECRET)}}`,
		`--tracing.config={type: OTLP, config: {client_type: http, insecure: true, endpoint: "`+strings.TrimPrefix(
			collector.URL, "http://",
		)+`", headers: {authorization: "Bearer `+secret+`"}, sampler_type: alwayssample}}`,
		`--index-cache.config={type: MEMCACHED, config: {addresses: ["127.0.0.1:1"], namespace: "n"}}`,
		// The overview shows the rules, because the labels that they name are those of the blocks
		// on the same page. What else is in the document is not told.
		"--selector.relabel-config=[{action: keep, source_labels: [x], regex: y}] # "+secret,
		"--web.external-prefix=http://user:"+secret+"@proxy/larder",
		"--http.config="+web,
	)
	if !started {
		t.Fatalf("larder did not start:\n%s", s.text["log"])
	}
	if len(s.text["trace"]) == 0 {
		t.Error("no traces were sent: they were not looked at")
	}
	s.check(t)
}

// TestSecretsInBrokenDocumentsAreNotTold: a parser that quotes what it does not understand quotes
// secrets, when they stand in the wrong place.
func TestSecretsInBrokenDocumentsAreNotTold(t *testing.T) {
	for _, doc := range []string{
		secret, "[" + secret + "]", "{type: S3, config: " + secret + "}",
		"{type: S3, config: {bucket: [" + secret + "]}}",
		"{type: S3, config: {secret_key: *" + secret + "}}", "{type: S3, config: {secret_key: {" +
			secret + ": 1}}}",
		"{type: S3, config: {insecure: " + secret + "}}", "{type: S3, config: {max_retries: " +
			secret + "}}",
		"{type: S3, config: {secret_key: !!int " + secret + "}}",
		"{type: S3, config: {secret_key: !!float " + secret + "}}",
		"{type: S3, config: {secret_key: !!binary " + secret + "}}",
		"{type: S3, config: {secret_key: '" + secret + "}", "{type: S3, config: {secret_key: @" +
			secret + "}}", "{type: S3, config: {secret_key: \"" + secret + "\\q\"}}",
		"type: S3\nconfig:\n  secret_key: " + secret + ": x\n",
		"type: S3\nconfig:\n\tsecret_key: " + secret + "\n",
		"{type: S3, config: {http_config: {idle_conn_timeout: " + secret + "}}}",
		"{type: S3, prefix: [" + secret + "], config: {bucket: blocks}}",
		"{type: GCS, config: {bucket: blocks, service_account: " + secret + "}}",
	} {
		for _, flag := range []string{"objstore.config", "tracing.config", "index-cache.config",
			"store.caching-bucket.config", "objstore-parquet.config"} {
			args := []string{"--" + flag + "=" + doc}
			if flag != "objstore.config" {
				args = append(args, "--objstore.config="+folder(os.TempDir()))
			}
			conf, err := parseStore(args...)
			if err == nil {
				err = conf.load(time.Now())
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("--%s=%q: %v", flag, doc, err)
			}
		}
		web := webFile(
			write(
				t,
				"web.yml",
				strings.ReplaceAll(
					strings.ReplaceAll(doc, "config", "basic_auth_users"), "type", "x",
				),
			),
		)
		if _, err := web.check(time.Now()); err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("web configuration %q: %v", doc, err)
		}
	}
}
