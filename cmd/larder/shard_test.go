package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/internal/loopback"
	"larder/shard"
	"larder/shard/membership"
)

// shardBucket makes a bucket of n small blocks.
func shardBucket(t *testing.T, n int) string {
	t.Helper()
	bucket := t.TempDir()
	for i := range n {
		if _, err := dataset.WholeMetric(fmt.Sprint("block", i), uint64(i), 200, 600_000).
			Write(t.Context(), bucket, dataset.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return bucket
}

// loaded returns how many blocks a process serves.
func (p *process) loaded() int {
	p.t.Helper()
	_, text := p.get("/metrics")
	m := regexp.MustCompile(`(?m)^thanos_bucket_store_blocks_loaded ([0-9]+)$`).
		FindStringSubmatch(text)
	if m == nil {
		p.t.Fatal("/metrics lacks the number of blocks")
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// runShard runs `larder shard`.
func runShard(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := larder(ctx, nil, append([]string{"shard"}, args...)...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return out.String(), err
}

// TestShards: two processes share the blocks. A change of the watched file moves blocks to a third,
// and the former owners serve them until it has confirmed them.
func TestShards(t *testing.T) {
	const blocks = 8
	bucket := folder(shardBucket(t, blocks))
	addresses, err := loopback.Reserve(3)
	if err != nil {
		t.Fatal(err)
	}
	// As Kubernetes mounts a ConfigMap: a link to a folder, which is swapped.
	dir := t.TempDir()
	configure := func(folder, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, folder, "shards.yaml"), []byte(text),
			0o644); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, "link")
		if err := os.Symlink(folder, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	configure("one", "{epoch: 1, count: 2, zones: [a]}")
	file := filepath.Join(dir, "shards.yaml")
	if err := os.Symlink(filepath.Join("..data", "shards.yaml"), file); err != nil {
		t.Fatal(err)
	}
	start := func(ordinal int) *process {
		args := []string{
			"store", "--grpc-address=127.0.0.1:0", "--objstore.config=" + bucket,
			"--http-address=" + addresses[ordinal], "--shard.config-file=" + file,
			"--shard.zone=a", "--shard.querier-wait=2s",
		}
		for _, a := range addresses {
			args = append(args, "--shard.peers="+a)
		}
		return startLarder(t, []string{ordinalVariable + "=" + fmt.Sprint(ordinal)}, args...)
	}
	first := start(0)
	code, text := first.get("/-/ready")
	if code != http.StatusServiceUnavailable || !strings.Contains(text, "shard ") {
		t.Errorf("before it has a peer: %d %s", code, text)
	}
	if err := first.info(); status.Code(err) != codes.Unavailable {
		t.Errorf("Info before it has a peer: %v", err)
	}
	second := start(1)
	processes := []*process{first, second}
	for _, p := range processes {
		p.await("msg=\"readiness changed\" ready=true")
		if err := p.info(); err != nil {
			t.Error(err)
		}
		if p.loaded() == 0 || p.loaded() == blocks {
			t.Errorf("a shard of two serves %d of %d blocks", p.loaded(), blocks)
		}
	}
	if n := first.loaded() + second.loaded(); n != blocks {
		t.Errorf("two shards serve %d blocks, want %d", n, blocks)
	}

	if _, err := runShard(t, "force", "--address="+first.url, "--epoch=2"); err == nil ||
		!strings.Contains(err.Error(), "epoch 2 is not in progress") {
		t.Errorf("force without a change: %v", err)
	}
	configure("two", "{epoch: 2, count: 3, zones: [a]}")
	for _, p := range processes {
		p.await("msg=\"took on an epoch\".* epoch=2")
	}
	out, err := runShard(t, "force", "--address="+first.url, "--epoch=2", "--without=a/2")
	if err == nil || !strings.Contains(err.Error(), "add --confirm") ||
		!strings.Contains(out, "are served by no confirmed new owner") {
		t.Errorf("force without --confirm: %v\n%s", err, out)
	}
	for without, want := range map[string]string{
		"z/99": "takes part neither in epoch 1 nor in epoch 2", "a/0": "a/0 is this process",
	} {
		_, err := runShard(t, "force", "--address="+first.url, "--epoch=2", "--without="+without,
			"--confirm")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("force without %s: %v, want %q", without, err, want)
		}
	}
	third := start(2)
	for _, p := range append(processes, third) {
		if _, err := runShard(t, "wait", "--address="+p.url, "--epoch=2"); err != nil {
			t.Error(err)
		}
	}
	for _, p := range processes {
		p.await("msg=\"serving the blocks of one epoch\".* epoch=2")
	}
	third.await("msg=\"readiness changed\" ready=true")
	// The catalog applies the drop just after it was logged.
	for total, deadline := 0, time.Now().Add(patience); total != blocks; {
		total = first.loaded() + second.loaded() + third.loaded()
		if time.Now().After(deadline) {
			t.Fatalf("three shards serve %d blocks, want %d", total, blocks)
		}
	}
	if third.loaded() == 0 {
		t.Error("the third shard serves no block")
	}
	out, err = runShard(t, "status", "--address="+third.url)
	for _, want := range []string{
		`member +a/2`, `state +ready`, `serving +epoch 2: 3 shards in a`, `changing to +none`,
		`removable +no: epoch 2 has 3 ordinals`, `a/1 +` + addresses[1] + ` +ready`,
	} {
		if err != nil || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("status: %v, no %q in\n%s", err, want, out)
		}
	}
	third.metric(`larder_shard_epoch{state="current"} 2`)
	out, err = runShard(t, "status", "--address="+third.url, "--output=json")
	if err != nil || !regexp.MustCompile(`"bucket": "[0-9a-f]{16}"`).MatchString(out) {
		t.Errorf("the process does not know its bucket: %v\n%s", err, out)
	}

	configure("three", "{epoch: 2, count: 4, zones: [a]}")
	first.await("configuration reload failed.* kind=shard .*raise the epoch with each change")
	first.metric(`larder_config_last_reload_successful{kind="shard"} 0`)
}

// TestStatusTable: what an operator has to know about a change has a row.
func TestStatusTable(t *testing.T) {
	one := shard.Config{Epoch: 1, Count: 2, Zones: []string{"a"}}
	two := shard.Config{Epoch: 2, Count: 3, Zones: []string{"a"}}
	s := membership.Status{
		State: shard.State{Current: one, Next: two},
		Progress: shard.Progress{
			Waits: "the end of the Querier wait", Left: 9 * time.Second, Queued: 3,
		},
		Foreign: []string{"10.0.0.9:10902"},
		Duplicates: []membership.Duplicate{{
			ID: shard.ID{Zone: "a", Ordinal: 1}, Addresses: []string{"10.0.0.1:10902", "10.0.0.2"},
		}},
	}
	expect := func(want ...string) {
		t.Helper()
		var out bytes.Buffer
		if err := printStatus(&out, &s); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !regexp.MustCompile(w).MatchString(out.String()) {
				t.Errorf("no %q in\n%s", w, out.String())
			}
		}
	}
	expect(
		"serving +epoch 1: 2 shards in a", "waits for +the end of the Querier wait, in 9s",
		"queued +epoch 3 waits for the end of the change to epoch 2",
		"other clusters +10.0.0.9:10902", "duplicate +a/1 at 10.0.0.1:10902 and 10.0.0.2",
	)
	s.State = shard.State{Next: two, Lost: true} // a process that started alone
	expect("serving +epoch 2: 3 shards in a, without knowing the epoch before")
}

// TestShardCommandsWithoutShards: they end and say so at a process that serves all blocks.
func TestShardCommandsWithoutShards(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	for _, args := range [][]string{{"status"}, {"wait", "--epoch=1"}, {"force", "--epoch=1"}} {
		_, err := runShard(t, append(args, "--address="+s.URL)...)
		if err == nil || !strings.Contains(err.Error(), "this process has no shards") {
			t.Errorf("%s: %v", args[0], err)
		}
	}
}

// TestBadShards: flags that do not fit are refused by name.
func TestBadShards(t *testing.T) {
	bucket := "--objstore.config=" + folder(t.TempDir())
	f := func(want string, args ...string) {
		t.Helper()
		refuses(t, []string{ordinalVariable + "="}, want, append(args, bucket)...)
	}
	f("--shard.zone needs --shard.count or --shard.config-file", "--shard.zone=a")
	f("--shard.epoch needs --shard.count or --shard.config-file", "--shard.epoch=2")
	f("--shard.querier-wait needs --shard.count or --shard.config-file",
		"--shard.querier-wait=1m")
	f("--shard.start-wait needs --shard.count or --shard.config-file", "--shard.start-wait=1m")
	f("--shard.config-file has the epoch: remove --shard.epoch", "--shard.config-file=x",
		"--shard.epoch=2")
	f("--shard.zone: \"c\" is not one of --shard.zones", "--shard.count=2", "--shard.zone=c",
		"--shard.zones=a")
	f("--shard.ordinal, --shard.zone: ordinal 5000 is not from 0 to 1023", "--shard.count=1",
		"--shard.ordinal=5000")
	f("--shard.peers is missing", "--shard.count=2", "--shard.ordinal=0")
	f("--shard.count, --shard.zones: zones \"a\" and \"a\"", "--shard.count=2", "--shard.zones=a",
		"--shard.zones=a")
	f("remove --shard.count and --shard.zones", "--shard.count=2", "--shard.config-file=x")
	f("--shard.config-file: open x", "--shard.config-file=x")
	file := write(t, "shards.yaml", "{epoch: 1, count: 2}")
	f("--shard.config-file "+file+": no zones", "--shard.config-file="+file)
	f("--shard.ordinal: -1 is too small", "--shard.count=1", "--shard.ordinal=-1")
	f("--shard.peers: \"a\" is not host:port", "--shard.count=2", "--shard.peers=a")
	f("--shard.peers-config: ", "--shard.count=1", "--shard.ordinal=0",
		"--shard.peers-config={tls_config: {ca_file: /none}}")
	f("--no-cache-index-header cannot be used with shards", "--shard.count=1",
		"--shard.ordinal=0", "--no-cache-index-header")
}
