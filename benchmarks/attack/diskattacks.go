package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"larder/benchmarks/process"
)

// diskAttacks are attacks 8 and 9: links made by a local user, and a log that repeats secrets.
func diskAttacks() []attack {
	return []attack{
		{name: "links", number: "8", prepare: prepareLinks, run: runLinks},
		{name: "secrets", number: "9", alone: true, run: runSecrets},
	}
}

// outside returns the folder that links in the data directory lead to.
func (t *target) outside() string { return filepath.Join(t.dir, "outside") }

// prepareLinks runs larder once to see which files it writes, and replaces all of them by links.
func prepareLinks(ctx context.Context, t *target) error {
	t.umask = "0"
	if err := t.start(ctx); err != nil {
		return err
	}
	conn, err := dial(t.larder.GRPC, honestClient)
	if err != nil {
		return err
	}
	err = askSeries(ctx, conn)
	_ = conn.Close() // ends larder
	t.stop()
	if err != nil {
		return err
	}
	own := filepath.Join(t.dataDir(), "larder")
	var written []string
	entries, err := os.ReadDir(own)
	if err != nil {
		return err
	}
	for _, e := range entries {
		written = append(written, e.Name())
	}
	for _, name := range []string{"headers", "lock", "metas", "warm.snapshot"} {
		if !slices.Contains(written, name) {
			written = append(written, name)
		}
	}
	if err := os.RemoveAll(own); err != nil {
		return err
	}
	for _, dir := range []string{own, t.outside()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, name := range written {
		target := filepath.Join(t.outside(), name)
		// Folders exist already; a file here was written through a link.
		isFolder := slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
			return e.Name() == name && e.IsDir()
		})
		if isFolder || name == "headers" {
			if err := os.Mkdir(target, 0o755); err != nil {
				return err
			}
		}
		if err := os.Symlink(target, filepath.Join(own, name)); err != nil {
			return err
		}
	}
	return nil
}

func runLinks(ctx context.Context, t *target) (string, error) {
	pause(ctx, time.Second)
	files, folders := 0, 0
	// Only larder's own part: the folder above it belongs to the user.
	err := filepath.WalkDir(filepath.Join(t.dataDir(), "larder"),
		func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil || d.Type()&fs.ModeSymlink != 0 {
				return nil // removed meanwhile
			}
			if files++; d.IsDir() {
				folders++
			}
			if info.Mode().Perm()&0o022 != 0 {
				t.got("%s is writable by every user: %s", filepath.Base(path), info.Mode())
			}
			return nil
		})
	if err != nil {
		return "", err
	}
	err = filepath.WalkDir(t.outside(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(t.outside(), path)
			t.got("%s was written through a link", rel)
		}
		return err
	})
	return fmt.Sprintf("links in the place of all files, umask 0: %d files beside them, %d folders",
		files-folders, folders), err
}

const (
	// hidden is the secret, put wherever one may be given, intentionally or by mistake.
	hidden = "hunter2-s3cr3t"
	// hiddenFor is how long each larder runs with it.
	hiddenFor = 2 * time.Second
)

// runSecrets starts larder with secrets in wrong places, and searches its output for them.
func runSecrets(ctx context.Context, t *target) (string, error) {
	memcached := func(address string) string {
		return "--index-cache.config={type: MEMCACHED, config: {addresses: ['" + address + "']}}"
	}
	tiered := func(address string) string {
		return "--store.caching-bucket.config={type: TIERED, config: {memcached: {addresses: ['" +
			address + "']}}}"
	}
	tracing := func(endpoint, client string) string {
		return "--tracing.config={type: OTLP, config: {client_type: " + client + ", endpoint: '" +
			endpoint + "'}}"
	}
	bucket := func(config string) string { return "--objstore.config=" + config }
	good := t.bucketFlag()
	tries := [][]string{
		{good, memcached("user:" + hidden + "@127.0.0.1:11211")},
		{good, memcached("memcached://user:" + hidden + "@127.0.0.1:11211")},
		{good, memcached("dns+user:" + hidden + "@cache.invalid:11211")},
		{good, memcached("dnssrv+_memcached._tcp.user:" + hidden + "@cache.invalid:99999")},
		{good, memcached("127.0.0.1:11211?password=" + hidden)},
		{good, tiered("user:" + hidden + "@127.0.0.1:11211")},
		{good, tiered("user:" + hidden + "@:abc")},
		{good, tracing("https://user:"+hidden+"@collector.invalid:4317", "grpc")},
		{good, tracing("https://user:"+hidden+"@collector.invalid:4318", "http")},
		{good, tracing("user:"+hidden+"@collector.invalid:4318", "http")},
		{good, tracing("https://user:"+hidden+"@collector.invalid:4318/%zz", "http")},
		{good, tracing("collector.invalid:4317?token="+hidden, "grpc")},
		{good, "--tracing.config={type: OTLP, config: {endpoint: '127.0.0.1:1', headers: '" +
			hidden + "'}}"},
		{good, "--index-cache.config={type: MEMCACHED, password: " + hidden + "}"},
		{good, "--index-cache.config={type: MEMCACHED, config: {addresses: ['127.0.0.1:1'], " +
			"password: " + hidden + "}}"},
		{good, "--index-cache.config=" + hidden},
		{good, "--request.logging-config={http: " + hidden + "}"},
		{bucket("{type: S3, config: {bucket: b, endpoint: '127.0.0.1:1', access_key: a, " +
			"insecure: true, secret_key: " + hidden + "}}")},
		{bucket("{type: S3, config: {bucket: b, endpoint: 'https://user:" + hidden +
			"@127.0.0.1:1', access_key: a, secret_key: b}}")},
		{bucket("{type: S3, config: {bucket: b, endpoint: 'user:" + hidden +
			"@127.0.0.1:1', access_key: a, secret_key: b}}")},
		{bucket("{type: S3, config: {bucket: b, endpoint: '127.0.0.1:1', secret_key: [" + hidden +
			"]}}")},
		{bucket("{type: S3, secret_key: " + hidden + "}")},
		{bucket(hidden)},
		{good, "--store.limits.config={tenants: [" + hidden + "]}"},
		{good, "--selector.relabel-config=" + hidden},
	}
	refused, served := 0, 0
	for i, flags := range tries {
		started, err := t.tell(ctx, i, flags)
		if err != nil {
			return "", err
		}
		if started {
			served++
		} else {
			refused++
		}
	}
	return fmt.Sprintf("%d places for a secret: %d starts refused, %d served; logs and pages read",
		len(tries), refused, served), nil
}

// tell runs larder with flags and searches all of its output for the secret.
func (t *target) tell(ctx context.Context, n int, flags []string) (started bool, err error) {
	secretIn := func(where, text string) {
		if i := strings.Index(text, hidden); i >= 0 {
			t.got("try %d: %s tells a secret: %s", n, where,
				strings.TrimSpace(text[max(0, i-80):min(len(text), i+40)]))
		}
	}
	var said strings.Builder
	options := process.Options{
		Name:   "larder",
		OnLine: func(line string) { said.WriteString(line + "\n") },
	}
	flags = append([]string{"--log.level=debug", "--data-dir=" + t.dataDir(), "--drain-delay=0s"},
		flags...)
	if t.larder, err = process.NewLarder(options, t.conf.binary, flags...); err != nil {
		return false, err
	}
	if err := t.larder.Run(); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, hiddenFor)
	defer cancel()
	// An error means that the start was refused, or takes long because a server is not reachable.
	_ = t.larder.Wait(ctx, func(ctx context.Context) bool {
		_, err := t.larder.Get(ctx, "/-/healthy")
		return err == nil
	})
	if started = !t.larder.Ended(); started {
		for _, path := range []string{"/", "/blocks", "/metrics", "/api/v1/status/flags",
			"/api/v1/status/config",
			"/api/v1/status/runtimeinfo", "/debug/pprof/cmdline",
			"/debug/pprof/goroutine?debug=2"} {
			if _, h, body, err := t.get(ctx, attacker(0), path, nil); err == nil {
				secretIn(path, body)
				secretIn(path, fmt.Sprint(h))
			}
		}
	}
	t.larder.Kill()
	secretIn("the log", said.String())
	return started, nil
}
