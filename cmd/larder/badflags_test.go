package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestUnknownArguments checks that the error for an unknown argument suggests a flag, or says when
// Thanos removed it.
func TestUnknownArguments(t *testing.T) {
	bucket := "--objstore.config=" + folder(t.TempDir())
	f := func(want string, args ...string) {
		t.Helper()
		refuses(t, nil, want, append(args, bucket)...)
	}
	f(
		"unknown flag --experimental.enable-index-header: Thanos removed it in version 0.12.0: remove it",
		"--experimental.enable-index-header",
	)
	f(
		"unknown flag --no-store.disable-index-header: Thanos removed it in version 0.14.0",
		"--no-store.disable-index-header",
	)
	f(
		"--experimental.enable-index-cache-postings-compression: Thanos removed it in version 0.17.0",
		"--experimental.enable-index-cache-postings-compression=true",
	)
	f(
		"--cluster.peers: Thanos removed it in version 0.5.0: gossip was removed",
		"--cluster.peers=a:10900",
	)
	f("--cluster.disable: Thanos removed it in version 0.5.0", "--cluster.disable")
	f(
		"--grpc-advertise-address: Thanos removed it in version 0.5.0",
		"--grpc-advertise-address=a",
	)
	f(
		"--gcs.bucket: Thanos removed it in version 0.2.0: use --objstore.config-file",
		"--gcs.bucket=b",
	)
	f("--s3.access-key: Thanos removed it in version 0.2.0", "--s3.access-key=b")
	f(
		"--gcloudtrace.project: Thanos removed it in version 0.6.0: use --tracing.config-file",
		"--gcloudtrace.project=p",
	)
	f(
		"--log.request.decision: Thanos removed it in version 0.33.0: use --request.logging-config-file",
		"--log.request.decision=NoLogCall",
	)

	f("unknown flag --objstore-config, did you mean --objstore.config?", "--objstore-config=x")
	f("unknown flag --index-cache-sise, did you mean --index-cache-size?", "--index-cache-sise=1GB")
	f(
		"unknown flag --sync-block-duraiton, did you mean --sync-block-duration?",
		"--sync-block-duraiton=1m",
	)
	f(
		"unknown flag --store.grpc.series_max_concurrency, did you mean --store.grpc.series-max-concurrency?",
		"--store.grpc.series_max_concurrency=5",
	)
	f("unknown flag --logg.level, did you mean --log.level?", "--logg.level=info")
	f("unknown flag --no-min-time: --min-time has a value and cannot be negated", "--no-min-time")
	f("unknown flag --query.replica-label: see larder store --help\n", "--query.replica-label=a")
	f(
		"unknown flag -data-dir: flags begin with two dashes, did you mean --data-dir?",
		"-data-dir=x",
	)
	out, _ := larder(t.Context(), nil, "stroe").CombinedOutput()
	if want := "larder: error: unknown command \"stroe\", want one of "; !strings.HasPrefix(
		string(out), want,
	) ||
		strings.Count(string(out), "\n") != 1 {
		t.Errorf("got %q, want one line that begins with %q", out, want)
	}
}

// TestFormerFlagsAreGone checks that former flags do not exist and that their replacements do.
func TestFormerFlagsAreGone(t *testing.T) {
	c, err := parseStore("--objstore.config=x")
	if err != nil {
		t.Fatal(err)
	}
	shown := c.shown()
	known := func(name string) bool {
		_, ok := shown[name]
		return ok || slices.Contains([]string{"log.level", "tracing.config-file"}, name)
	}
	for _, f := range formerFlags() {
		for name := range shown {
			if name == f.name || strings.HasSuffix(f.name, ".") && strings.HasPrefix(name, f.name) {
				t.Errorf("--%s is a flag", name)
			}
		}
		if m := regexp.MustCompile(`use --([a-z.-]+)`).FindStringSubmatch(f.instead); m != nil &&
			!known(m[1]) {
			t.Errorf("--%s is to be replaced by --%s, which is no flag", f.name, m[1])
		}
	}
	doc, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range formerFlags() {
		name := f.name
		if strings.HasSuffix(name, ".") {
			name += "*"
		}
		if !strings.Contains(string(doc), "`--"+name+"` ("+f.gone+")") {
			t.Errorf(
				"docs/compatibility.md does not say that --%s went with Thanos %s", name, f.gone,
			)
		}
	}
}

// TestUnknownSampler checks that tracing works with an unknown sampler, same as in Thanos, and that
// the log names the known ones.
func TestUnknownSampler(t *testing.T) {
	p := startProcess(
		t, folder(t.TempDir()), "--drain-delay=0s",
		"--tracing.config={type: OTLP, config: {client_type: grpc, insecure: true, endpoint: '127.0.0.1:1', sampler_type: ratelimiting, sampler_param: '2'}}",
	)
	line := p.await("tracing setting cannot be used")
	for _, want := range []string{"level=warn", "flag=--tracing.config", "key=sampler_type",
		"value=ratelimiting", "alwayssample, neversample", "used=parentbasedalwayssample"} {
		if !strings.Contains(line, want) {
			t.Errorf("the log lacks %s: %s", want, line)
		}
	}
	p.await("readiness changed.*ready=true")
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("got exit code %d", code)
	}
}

// TestMemcachedAddresses checks that an impossible address fails the start with an error that names
// it. Blanks around an address are ignored.
func TestMemcachedAddresses(t *testing.T) {
	bucket := "--objstore.config=" + folder(t.TempDir())
	f := func(address, want string) {
		t.Helper()
		refuses(
			t, nil, "--index-cache.config: config: memcached: address "+want, bucket,
			"--index-cache.config={type: MEMCACHED, config: {addresses: ['"+address+"']}}",
		)
		refuses(
			t, nil, "--store.caching-bucket.config: config: memcached: memcached: address "+want,
			bucket,
			"--store.caching-bucket.config={type: TIERED, config: {memcached: {addresses: [ok:1, '"+address+"']}}}",
		)
	}
	f(
		"localhost:abc",
		`"localhost:abc": port "abc" is neither a number from 1 to 65535 nor the name of a service`,
	)
	f("localhost:99999", `"localhost:99999": port "99999" is neither`)
	f("dns+localhost:99999", `"dns+localhost:99999": port "99999" is neither`)
	f("dnssrv+cache.example:abc", `"dnssrv+cache.example:abc": port "abc" is neither`)
	f("dnssrvnoa+cache.example:0", `"dnssrvnoa+cache.example:0": port "0" is neither`)
	f("my host:11211", `"my host:11211": "my host" is no host name`)

	addr := listenLocal(t)
	p := startProcess(
		t, folder(t.TempDir()),
		"--index-cache.config={type: MEMCACHED, config: {addresses: [' "+addr+" ']}}",
	)
	p.await("readiness changed.*ready=true")
}
