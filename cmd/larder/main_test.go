package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/clienttls/tlstest"

	"github.com/coreos/go-systemd/v22/journal"
)

// asLarder makes the test binary run as larder, so that tests see its exit codes and its stderr.
const asLarder = "LARDER_TEST_RUN_AS_LARDER"

func TestMain(m *testing.M) {
	if os.Getenv(asLarder) != "" {
		main()
	}
	os.Exit(m.Run())
}

// larder returns the command. env are NAME=value pairs; otherwise the environment has only PATH.
func larder(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = slices.Concat(
		[]string{
			asLarder + "=1",
			"PATH=" + os.Getenv("PATH"),
			"GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
		},
		env,
	)
	return cmd
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// refuses starts `larder store`, which must exit with one line that contains want.
func refuses(t *testing.T, env []string, want string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	base := []string{
		"store",
		"--data-dir=" + t.TempDir(),
		"--http-address=127.0.0.1:0",
		"--grpc-address=127.0.0.1:0",
	}
	// Do not add flags that the case has, because they cannot be repeated.
	base = slices.DeleteFunc(base, func(a string) bool {
		name, _, _ := strings.Cut(a, "=")
		return slices.ContainsFunc(
			args, func(b string) bool { return strings.HasPrefix(b, name+"=") },
		)
	})
	cmd := larder(ctx, env, append(base, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%q: got %v, want exit code 1\n%s", args, err, &stderr)
	}
	line := stderr.String()
	if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") ||
		!strings.Contains(line, want) ||
		!strings.HasPrefix(line, "larder: error: ") {
		t.Errorf("%q: got %q, want one line with %q", args, line, want)
	}
	if stdout.Len() > 0 {
		t.Errorf("%q: got %q on stdout", args, &stdout)
	}
}

// TestBadStart checks that each bad start exits with 1 and one line that names the flag or the
// file.
func TestBadStart(t *testing.T) {
	t.Parallel()
	bucket := "--objstore.config={type: FILESYSTEM, config: {directory: " + t.TempDir() + "}}"
	busy := listenLocal(t)
	aFile := write(t, "file", "not a directory")
	ca := tlstest.New(t)
	certFile, keyFile := ca.Files(-time.Hour, time.Hour)
	expiredCert, expiredKey := ca.Files(-2*time.Hour, -time.Hour)
	earlyCert, earlyKey := ca.Files(time.Hour, 2*time.Hour)
	webTLS := func(cert, key string) string {
		return write(t, "web.yml", "tls_server_config: {cert_file: "+cert+", key_file: "+key+"}")
	}

	f := func(env []string, want string, args ...string) {
		t.Helper()
		refuses(t, env, want, args...)
	}

	// Flags.
	f(nil, "unknown flag --no-such-flag", "--no-such-flag=1", bucket)
	f(nil, "'min-time' cannot be repeated", "--min-time=-1w", "--min-time=-2w", bucket)
	f(nil, `--sync-block-duration: "often"`, "--sync-block-duration=often", bucket)
	f(nil, `--sync-block-duration: "0s"`, "--sync-block-duration=0s", bucket)
	f(nil, `--consistency-delay: "1x"`, "--consistency-delay=1x", bucket)
	f(nil, `--index-cache-size: "lots"`, "--index-cache-size=lots", bucket)
	f(nil, `--index-cache.page-size: "3KB"`, "--index-cache.page-size=3KB", bucket)
	f(nil, `--store.limits.request-series: "-1"`, "--store.limits.request-series=-1", bucket)
	f(
		nil, "--store.grpc.series-max-concurrency: -1", "--store.grpc.series-max-concurrency=-1",
		bucket,
	)
	f(nil, "--block-sync-concurrency: 0", "--block-sync-concurrency=0", bucket)
	f(nil, "--block-discovery-strategy", "--block-discovery-strategy=guess", bucket)
	f(nil, `--log.format: got "xml"`, "--log.format=xml", bucket)
	if !journal.Enabled() {
		f(
			nil, "--log.format: journald: this machine has no systemd journal",
			"--log.format=journald", bucket,
		)
	}
	f(nil, `--matcher-cache-size: -1 is too small`, "--matcher-cache-size=-1", bucket)
	f(
		nil, `--store.grpc.series-max-waiting: "many"`, "--store.grpc.series-max-waiting=many",
		bucket,
	)
	f(nil, `--http-grace-period: "-5m"`, "--http-grace-period=-5m", bucket)
	f(nil, `--grpc-grace-period: "2 minutes"`, "--grpc-grace-period=2 minutes", bucket)
	f(
		nil,
		"--store.limits.config: line 1: default: unknown key wieght, did you mean weight? known keys are weight, request_series,",
		bucket, "--store.limits.config={default: {wieght: 2}}",
	)
	f(
		nil, "--store.limits.config: tenants: a: weight: 0 is not from 0.001 to 1000", bucket,
		"--store.limits.config={tenants: {a: {weight: 0}}}",
	)
	f(
		nil, "--store.limits.config: default: request_bytes_ratio: 25 is not above 0 and at most 1",
		bucket, "--store.limits.config={default: {request_bytes_ratio: 25}}",
	)
	f(
		nil, "--latency-budgets: line 1: requests.series: unknown key totl, did you mean total?",
		bucket, "--latency-budgets={requests: {series: {totl: 1s}}}",
	)
	f(
		nil, "--latency-budgets: requests: series: gate: -1s is below zero", bucket,
		"--latency-budgets={requests: {series: {gate: -1s}}}",
	)
	// Values of flags without effect are checked too.
	f(nil, `--chunk-pool-size: "lots"`, "--chunk-pool-size=lots", bucket)
	f(
		nil, `--store.index-header-lazy-download-strategy: got "never"`,
		"--store.index-header-lazy-download-strategy=never", bucket,
	)
	f(
		nil, `--store.posting-group-max-key-series-ratio: "x"`,
		"--store.posting-group-max-key-series-ratio=x", bucket,
	)
	f(nil, `--debug.series-batch-size: 0 is too small`, "--debug.series-batch-size=0", bucket)
	f(nil, `--min-time: "yesterday"`, "--min-time=yesterday", bucket)
	f(nil, "--min-time -1d is after --max-time -2d", "--min-time=-1d", "--max-time=-2d", bucket)
	f(nil, "--auto-gomemlimit.ratio", "--auto-gomemlimit.ratio=1.5", bucket)
	f([]string{"GOMEMLIMIT=1GiB"}, "--index-cache-size 2GiB", "--index-cache-size=2GB", bucket)

	// The bucket's YAML.
	f(nil, "--objstore.config or --objstore.config-file is required")
	f(
		nil, "--objstore.config and --objstore.config-file are mutually exclusive", bucket,
		"--objstore.config-file="+aFile,
	)
	f(nil, "--objstore.config-file: open /does/not/exist", "--objstore.config-file=/does/not/exist")
	f(nil, "--objstore.config: yaml", "--objstore.config={type: [")
	f(
		nil, "--objstore-parquet.config: type is missing", bucket,
		"--objstore-parquet.config={config: {directory: /tmp}}",
	)
	f(
		nil, "--objstore-parquet.config: line 1: config: unknown key folder, known keys are directory\n",
		bucket, "--objstore-parquet.config={type: FILESYSTEM, config: {folder: /tmp}}",
	)
	f(
		nil, "--objstore-parquet.config: bucket with type FLOPPY is not supported", bucket,
		"--objstore-parquet.config={type: FLOPPY}",
	)
	f(
		nil, "--objstore-parquet.config and --objstore-parquet.config-file are mutually exclusive",
		bucket, "--objstore-parquet.config={}", "--objstore-parquet.config-file="+aFile,
	)
	f(
		nil, "--objstore-parquet.config-file: open /does/not/exist", bucket,
		"--objstore-parquet.config-file=/does/not/exist",
	)
	f(
		nil, "line 1: hedging_config: unknown key up_to_now, known keys are enabled, up_to, quantile\n",
		"--objstore.config={type: S3, hedging_config: {up_to_now: 3}}",
	)
	f(
		nil, "--objstore.config: hedging_config: up_to must be from 1 to 10, got -1",
		"--objstore.config={type: S3, hedging_config: {up_to: -1}}",
	)
	f(
		nil, "hedging_config: quantile must be between 0 and 1, got 90",
		"--objstore.config={type: S3, hedging_config: {quantile: 90}}",
	)
	f(
		nil, "line 1: config: unknown key colour, known keys are bucket, endpoint, region,",
		"--objstore.config={type: S3, config: {bucket: b, endpoint: e, colour: red}}",
	)
	f(
		nil, "--objstore.config: line 1: config: unknown key folder, known keys are directory\n",
		"--objstore.config={type: FILESYSTEM, config: {folder: /tmp}}",
	)
	f(
		nil, "line 1: config: unknown key buckte, did you mean bucket? known keys are bucket, region,",
		"--objstore.config={type: COS, config: {buckte: b}}",
	)
	f(nil, "type is missing", "--objstore.config={config: {directory: /tmp}}")
	f(nil, "FLOPPY", "--objstore.config={type: FLOPPY}")
	// Line numbers refer to the given document, also for parts that the bucket's client decodes.
	bucketYAML := write(
		t, "bucket.yml",
		"type: S3\n\nconfig:\n  bucket: b\n  endpoint: e\n  http_config:\n    idle_conn_timout: 1s\n    tls_config:\n      insecure_skip_verify: maybe\n",
	)
	f(
		nil,
		"--objstore.config-file "+bucketYAML+": line 7: config.http_config: unknown key idle_conn_timout, did you mean idle_conn_timeout? known keys are ",
		"--objstore.config-file="+bucketYAML,
	)
	f(
		nil,
		"; line 9: config.http_config.tls_config.insecure_skip_verify: got a string, want true or false\n",
		"--objstore.config-file="+bucketYAML,
	)
	brokenYAML := write(t, "bucket.yml", "type: S3\nconfig:\n  bucket: b\n endpoint: e\n")
	f(
		nil, "--objstore.config-file "+brokenYAML+": yaml: line 4: did not find expected key\n",
		"--objstore.config-file="+brokenYAML,
	)
	// Errors name neither types of Go nor values, which may be secrets.
	f(nil, "line 1: got a list, want a mapping\n", "--objstore.config=[]")
	f(
		nil, "max_retries; line 1: config.insecure: got a string, want true or false\n",
		"--objstore.config={type: S3, config: {bucket: b, endpoint: e, colour: red, insecure: hunter2}}",
	)
	f(
		nil, "$(NO_SUCH_SECRET)",
		"--objstore.config={type: S3, config: {secret_key: $(NO_SUCH_SECRET)}}",
	)
	f([]string{"KIND=FLOPPY"}, "FLOPPY", "--objstore.config={type: $(KIND)}")

	// The caches' YAML.
	indexFile := write(t, "index-cache.yml", "type: IN-MEMORY\nconfig:\n  max_sise: 1GB\n")
	bucketFile := write(t, "bucket-cache.yml", "type: IN-MEMORY\nchunk_subrange_seize: 16000\n")
	f(
		nil,
		"--index-cache.config: type redis is not supported: use type IN-MEMORY, MEMCACHED or TIERED, or leave the flag out",
		"--index-cache.config={type: redis}", bucket,
	)
	f(
		nil, "--index-cache.config: type FLOPPY is not known",
		"--index-cache.config={type: FLOPPY}", bucket,
	)
	f(
		nil, "--index-cache.config: type is missing",
		"--index-cache.config={config: {max_size: 1GB}}", bucket,
	)
	f(nil, "--index-cache.config: yaml", "--index-cache.config={type: [", bucket)
	f(
		nil,
		"--index-cache.config-file "+indexFile+": line 3: config: unknown key max_sise, did you mean max_size? known keys are max_size, max_item_size\n",
		"--index-cache.config-file="+indexFile, bucket,
	)
	f(
		nil, "--index-cache.config-file: open /does/not/exist",
		"--index-cache.config-file=/does/not/exist", bucket,
	)
	f(
		nil, "--index-cache.config and --index-cache.config-file are mutually exclusive",
		"--index-cache.config={type: IN-MEMORY}", "--index-cache.config-file="+indexFile, bucket,
	)
	f(
		nil, `--index-cache.config: max_size: "lots" is not a size`,
		"--index-cache.config={type: IN-MEMORY, config: {max_size: lots}}", bucket,
	)
	f(
		nil, `--index-cache.config: max_item_size: "-1" is negative`,
		"--index-cache.config={type: IN-MEMORY, config: {max_item_size: -1}}", bucket,
	)
	f(
		nil, `--index-cache.config: enabled_items: got "Symbols"`,
		"--index-cache.config={type: IN-MEMORY, enabled_items: [Symbols]}", bucket,
	)
	f(
		nil, "--index-cache.config: $(NO_SUCH_SIZE)",
		"--index-cache.config={type: IN-MEMORY, config: {max_size: $(NO_SUCH_SIZE)}}", bucket,
	)
	f(
		nil,
		"--store.caching-bucket.config: type GROUPCACHE is not supported: use type IN-MEMORY, MEMCACHED or TIERED",
		"--store.caching-bucket.config={type: GROUPCACHE}", bucket,
	)
	f(
		nil, "--store.caching-bucket.config: type REDIS is not supported",
		"--store.caching-bucket.config={type: REDIS}", bucket,
	)
	f(
		nil,
		"--store.caching-bucket.config-file "+bucketFile+": line 2: unknown key chunk_subrange_seize, did you mean chunk_subrange_size? known keys are type, config,",
		"--store.caching-bucket.config-file="+bucketFile, bucket,
	)
	f(
		nil, "--store.caching-bucket.config: chunk_subrange_size: 0 must be above zero",
		"--store.caching-bucket.config={type: IN-MEMORY, chunk_subrange_size: 0}", bucket,
	)
	f(
		nil,
		"--store.caching-bucket.config: line 1: blocks_iter_ttl: got a string, want a duration such as 1m30s",
		"--store.caching-bucket.config={type: IN-MEMORY, blocks_iter_ttl: often}", bucket,
	)
	memcachedFile := write(
		t, "memcached.yml", "type: MEMCACHED\nconfig:\n  addresses: [localhost]\n",
	)
	f(
		nil, "--index-cache.config: config: addresses is missing",
		"--index-cache.config={type: MEMCACHED}", bucket,
	)
	f(
		nil, "--index-cache.config: line 1: config: unknown key adresses, did you mean addresses?",
		"--index-cache.config={type: MEMCACHED, config: {addresses: [a:1], adresses: []}}", bucket,
	)
	f(
		nil,
		`--index-cache.config-file `+memcachedFile+`: config: memcached: address "localhost" has no port`,
		"--index-cache.config-file="+memcachedFile, bucket,
	)
	f(
		nil,
		"--store.caching-bucket.config: config: memcached: tls_config: ca_file "+aFile+": the file contains no certificate",
		"--store.caching-bucket.config={type: TIERED, config: {memcached: {addresses: [a:1], tls_enabled: true, tls_config: {ca_file: "+aFile+"}}}}",
		bucket,
	)
	f(
		nil,
		"--index-cache.series-size 300MiB is more than the whole, --index-cache-size 250MiB, its default",
		"--index-cache.series-size=300MB", bucket,
	)
	f(
		[]string{"GOMEMLIMIT=1GiB"},
		"--cache-size 1GiB, --index-cache.config memcached.max_async_buffer_bytes 32MiB, at least 16MiB for requests",
		"--cache-size=1GB",
		"--index-cache.config={type: TIERED, config: {memcached: {addresses: [a:1], max_async_buffer_bytes: 32MB}}}",
		bucket,
	)
	f(
		nil, `metafile_max_size: "big"`,
		"--store.caching-bucket.config={type: IN-MEMORY, metafile_max_size: big}", bucket,
	)
	f(
		nil,
		"--store.caching-bucket.config and --store.caching-bucket.config-file are mutually exclusive",
		"--store.caching-bucket.config={type: IN-MEMORY}",
		"--store.caching-bucket.config-file="+bucketFile, bucket,
	)

	// The other files.
	f(
		nil, "--selector.relabel-config: ",
		"--selector.relabel-config=[{action: replace, target_label: a}]", bucket,
	)
	f(
		nil,
		"line 1: rule 1 {action: keep, sauce_labels: [a]}: unknown key sauce_labels, did you mean source_labels?",
		"--selector.relabel-config=[{action: keep, sauce_labels: [a]}]", bucket,
	)
	f(nil, `unknown relabel action "kepe"`, "--selector.relabel-config=[{action: kepe}]", bucket)
	f(
		nil, "non-zero modulus",
		"--selector.relabel-config=[{action: hashmod, source_labels: [a], target_label: b}]",
		bucket,
	)
	f(nil, "--selector.relabel-config-file "+aFile, "--selector.relabel-config-file="+aFile, bucket)
	f(
		nil, "--selector.relabel-config: selector relabelling: yaml",
		"--selector.relabel-config=[{action: keep", bucket,
	)
	f(nil, "--selector.relabel-config and --selector.relabel-config-file are mutually exclusive",
		"--selector.relabel-config=[]", "--selector.relabel-config-file="+aFile, bucket)
	f(
		nil, "--selector.relabel-config: $(NO_SUCH_SHARD)",
		"--selector.relabel-config=[{action: keep, regex: $(NO_SUCH_SHARD)}]", bucket,
	)
	f(
		nil, "--selector.relabel-config-file: open /does/not/exist",
		"--selector.relabel-config-file=/does/not/exist", bucket,
	)
	f(
		nil, "--tracing.config and --tracing.config-file are mutually exclusive",
		"--tracing.config={type: OTLP}", "--tracing.config-file="+aFile, bucket,
	)
	f(
		nil, "--tracing.config-file: open /does/not/exist", "--tracing.config-file=/does/not/exist",
		bucket,
	)
	f(
		nil, "--tracing.config: $(NO_SUCH_HOST)",
		"--tracing.config={type: OTLP, config: {endpoint: $(NO_SUCH_HOST)}}", bucket,
	)
	f(nil, "--tracing.config: type JAEGER", "--tracing.config={type: JAEGER}", bucket)
	f(
		nil, "--tracing.config: line 1: got a string, want a mapping\n", "--tracing.config=OTLP",
		bucket,
	)
	f(
		nil,
		"--request.logging-config: line 1: http.config[0].port: got a number, want a number from 0 to 65535\n",
		"--request.logging-config={http: {config: [{path: /a, port: 99999}]}}", bucket,
	)
	f(
		nil, "line 1: config: unknown key endpiont, did you mean endpoint?",
		"--tracing.config={type: OTLP, config: {endpiont: x}}", bucket,
	)
	f(nil, "--http.config "+aFile, "--http.config="+aFile, bucket)
	f(nil, "--http.config /does/not/exist", "--http.config=/does/not/exist", bucket)
	f(nil, `--web.external-prefix: "%zz" is not a path`, "--web.external-prefix=%zz", bucket)
	f(
		nil, "--enable-admin-operations and --disable-admin-operations are mutually exclusive",
		"--enable-admin-operations", "--disable-admin-operations", bucket,
	)
	f(
		nil, "line 1: unknown key basic_auth_user, did you mean basic_auth_users?",
		"--http.config="+write(t, "web.yml", "basic_auth_user: {a: b}"), bucket,
	)
	f(
		nil, "web.yml: cert_file "+expiredCert+": the certificate expired at",
		"--http.config="+webTLS(expiredCert, expiredKey), bucket,
	)
	f(
		nil, "web.yml: cert_file "+earlyCert+": the certificate is not valid before",
		"--http.config="+webTLS(earlyCert, earlyKey), bucket,
	)
	f(
		nil,
		"web.yml: client_ca_file "+aFile+": the file contains no certificate",
		"--http.config="+write(
			t, "web.yml",
			"tls_server_config: {cert_file: "+certFile+", key_file: "+keyFile+", client_auth_type: RequireAndVerifyClientCert, client_ca_file: "+aFile+"}",
		),
		bucket,
	)
	f(
		nil, "web.yml: failed to load X509KeyPair: tls: private key does not match public key",
		"--http.config="+webTLS(certFile, earlyKey), bucket,
	)
	f(
		nil, "--grpc-server-tls-cert and --grpc-server-tls-key must be given together",
		"--grpc-server-tls-cert="+certFile, bucket,
	)
	f(
		nil, "--grpc-server-tls-cert "+aFile, "--grpc-server-tls-cert="+aFile,
		"--grpc-server-tls-key="+keyFile, bucket,
	)
	f(
		nil, "--grpc-server-tls-client-ca "+aFile, "--grpc-server-tls-cert="+certFile,
		"--grpc-server-tls-key="+keyFile, "--grpc-server-tls-client-ca="+aFile, bucket,
	)
	f(
		nil, "--grpc-server-tls-client-ca "+expiredCert+": the certificate expired at",
		"--grpc-server-tls-cert="+certFile, "--grpc-server-tls-key="+keyFile,
		"--grpc-server-tls-client-ca="+expiredCert, bucket,
	)
	f(
		nil, "--grpc-server-tls-client-ca: open /does/not/exist",
		"--grpc-server-tls-cert="+certFile, "--grpc-server-tls-key="+keyFile,
		"--grpc-server-tls-client-ca=/does/not/exist", bucket,
	)
	f(
		nil, "--grpc-server-tls-cert "+expiredCert+": the certificate expired at",
		"--grpc-server-tls-cert="+expiredCert, "--grpc-server-tls-key="+expiredKey, bucket,
	)
	f(
		nil, "--grpc-server-tls-cert "+earlyCert+": the certificate is not valid before",
		"--grpc-server-tls-cert="+earlyCert, "--grpc-server-tls-key="+earlyKey, bucket,
	)
	f(
		nil, "--grpc-server-tls-key "+earlyKey+": tls: private key does not match public key",
		"--grpc-server-tls-cert="+certFile, "--grpc-server-tls-key="+earlyKey, bucket,
	)
	f(nil, `--grpc-server-tls-ciphers: got "RC4"`, "--grpc-server-tls-ciphers=RC4", bucket)
	f(nil, `--grpc-server-tls-curves: got "25519"`, "--grpc-server-tls-curves=25519", bucket)
	f(nil, "--grpc-server-tls-client-ca needs", "--grpc-server-tls-client-ca="+certFile, bucket)

	// The environment of the process.
	f(
		nil, "--objstore.config-file: read "+filepath.Dir(aFile)+": is a directory",
		"--objstore.config-file="+filepath.Dir(aFile),
	)
	f(nil, "--grpc-address "+busy, "--grpc-address="+busy, bucket)
	f(nil, "--http-address "+busy, "--http-address="+busy, bucket)
	f(nil, "--http-address nonsense", "--http-address=nonsense", bucket)
}

func TestHelpAndVersion(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		out, err := larder(ctx, nil, args...).Output()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%q: got %v, %q, want %q on stdout", args, err, out, want)
		}
	}
	f("--store.request-bytes", "store", "--help")
	f("larder, version", "--version")
}
