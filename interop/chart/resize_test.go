package chart

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// resizeBlocks blocks of 12,000 samples cover six hours from the epoch of the data sets on.
	resizeBlocks  = 30
	resizeSamples = resizeBlocks * 12_000
	resizeEnd     = 1767592800
)

// TestResizeBehindAQuerier follows docs/kubernetes.md from 2 to 3 shards and back, with the rules
// and the endpoint file that the chart renders, behind a real Querier. Queries run all the time and
// must find every sample. Pods get their rules one after another, as slowly as it can happen.
func TestResizeBehindAQuerier(t *testing.T) {
	bin, bucket := thanos(t), t.TempDir()
	command := exec.CommandContext(t.Context(), "go", "run", "./benchmarks/makebucket",
		"--layout=many", fmt.Sprintf("--size=%d", resizeBlocks), "--dir="+bucket)
	command.Dir = filepath.Join("..", "..")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("makebucket: %v\n%s", err, out)
	}

	blocks, err := os.ReadDir(bucket)
	if err != nil || len(blocks) != resizeBlocks {
		t.Fatalf("makebucket wrote %d blocks, %v", len(blocks), err)
	}
	two := step{sharded(t, `{shards: 2}`), blocks, []uint64{2}}
	growth := step{sharded(t, `{shards: 3, previousShards: 2}`), blocks, []uint64{2, 3}}
	three := step{sharded(t, `{shards: 3}`), blocks, []uint64{3}}
	shrinking := step{sharded(t, `{shards: 2, previousShards: 3}`), blocks, []uint64{3, 2}}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var pods []*running
	for _, p := range two.pods() {
		pods = append(pods, start(t, two.layout, p, bucket))
	}
	q := startQuerier(ctx, t, bin)
	q.ask(t, two, pods)
	q.wait(ctx, t, 2)
	if n, err := q.samples(ctx); err != nil || n != resizeSamples {
		t.Fatalf("before the resize: %d samples, %v; want %d", n, err, resizeSamples)
	}

	queries := q.continuously(ctx, t)
	pods = append(pods, start(t, growth.layout, growth.pods()[2], bucket))
	growth.adopt(ctx, t, pods[:2])
	q.ask(t, growth, pods)
	q.wait(ctx, t, 3)
	three.adopt(ctx, t, pods)
	shrinking.adopt(ctx, t, pods)
	q.wait(ctx, t, 3)
	q.ask(t, two, pods[:2])
	q.wait(ctx, t, 2)
	pods[2].stop(t)
	two.adopt(ctx, t, pods[:2])
	queries()

	// Without previousShards the same queries notice: they can fail.
	three.adopt(ctx, t, pods[:1])
	if n, err := q.samples(ctx); err != nil || n >= resizeSamples {
		t.Errorf(
			"with another number of shards in one pod: %d samples, %v; want fewer than %d",
			n,
			err,
			resizeSamples,
		)
	}
}

// step is a layout on the way, with the numbers of shards whose blocks its pods serve.
type step struct {
	*layout
	bucket []os.DirEntry
	shards []uint64
}

// own returns the blocks that a pod must serve, by the formula of hashmod.
func (s step) own(ordinal int) []string {
	var out []string
	for _, b := range s.bucket {
		hash := md5.Sum([]byte(b.Name()))
		if slices.ContainsFunc(s.shards, func(n uint64) bool {
			return binary.BigEndian.Uint64(hash[8:])%n == uint64(ordinal)
		}) {
			out = append(out, b.Name())
		}
	}
	return out
}

// adopt gives the pods the rules of the step, one after another, as Kubernetes changes a mounted
// ConfigMap. It waits until each serves its blocks.
func (s step) adopt(ctx context.Context, t *testing.T, pods []*running) {
	t.Helper()
	for i, p := range pods {
		name := fmt.Sprintf("shard-%d.yaml", i)
		file := filepath.Join(p.root, "etc", "larder", "shards", name)
		write(t, file+".new", []byte(s.config("store-larder-shards").Data[name]))
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		poll(ctx, t, func() error {
			got, err := p.blocks(ctx)
			if want := s.own(i); err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("ordinal %d serves %v, want %v", i, got, want)
			}
			return err
		})
	}
}

// querier is a running `thanos query`.
type querier struct {
	url       string
	endpoints string // its --endpoint.sd-config-file
}

// thanos builds the thanos binary of the version in interop/go.mod.
func thanos(t *testing.T) string {
	t.Helper()
	for range 2 { // the first time the program is in a folder that is then removed
		command := exec.CommandContext(t.Context(), "go", "run", "-tags=slicelabels", "-exec=echo",
			"github.com/thanos-io/thanos/cmd/thanos")
		command.Dir = ".." // the module that requires Thanos
		out, err := command.Output()
		if err != nil {
			t.Fatalf("build thanos: %v", err)
		}
		if bin := strings.TrimSpace(string(out)); exists(bin) {
			return bin
		}
	}
	t.Fatal("thanos is not in the build cache")
	return ""
}

func startQuerier(ctx context.Context, t *testing.T, bin string) *querier {
	t.Helper()
	q := &querier{endpoints: filepath.Join(t.TempDir(), "endpoints.yaml")}
	write(t, q.endpoints, []byte("endpoints: []\n"))
	addr := freeAddress(t)
	q.url = "http://" + addr
	// Faster than the defaults of 5m and 30s, which docs/kubernetes.md waits for.
	cmd := exec.Command(bin, "query", "--http-address="+addr, "--grpc-address=127.0.0.1:0",
		"--http-grace-period=1s", "--grpc-grace-period=1s", "--log.level=warn",
		"--endpoint.sd-config-file="+q.endpoints, "--endpoint.sd-config-reload-interval=200ms",
		"--store.sd-dns-interval=200ms", "--store.sd-dns-resolver=golang")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	poll(ctx, t, func() error {
		_, err := q.stores(ctx)
		return err
	})
	return q
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// freeAddress returns an address that nothing listens on. Its port is below those that the kernel
// gives to other processes meanwhile.
func freeAddress(t *testing.T) string {
	t.Helper()
	const lowest, ephemeral = 20480, 32768
	var last error
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", lowest+rand.N(ephemeral-lowest))
		l, err := net.Listen("tcp", addr)
		if err == nil {
			if err = l.Close(); err == nil {
				return addr
			}
		}
		last = err
	}
	t.Fatalf("no free port: %v", last)
	return ""
}

// ask gives the Querier the endpoint file of a step. The names of Services become the addresses
// of the pods.
func (q *querier) ask(t *testing.T, s step, pods []*running) {
	t.Helper()
	text := s.config("store-larder-endpoints").Data["endpoints.yaml"]
	for i, p := range pods {
		text = strings.ReplaceAll(text,
			fmt.Sprintf("store-larder-shard-%d.thanos.svc.cluster.local:10901", i), p.grpc)
	}
	if strings.Contains(text, "cluster.local") {
		t.Fatalf("a group has no pod:\n%s", text)
	}
	write(t, q.endpoints+".new", []byte(text))
	if err := os.Rename(q.endpoints+".new", q.endpoints); err != nil {
		t.Fatal(err)
	}
}

type store struct {
	Name      string
	LastCheck time.Time
	LastError *string
}

func (q *querier) stores(ctx context.Context) ([]store, error) {
	var body struct{ Data map[string][]store }
	if err := get(ctx, q.url+"/api/v1/stores", &body); err != nil {
		return nil, err
	}
	var out []store
	for _, s := range body.Data {
		out = append(out, s...)
	}
	return out, nil
}

// wait returns once the Querier asks that many groups and has asked each of them for its Info after
// the call. Before, it may know only the time range of a pod's former blocks.
func (q *querier) wait(ctx context.Context, t *testing.T, groups int) {
	t.Helper()
	since := time.Now()
	poll(ctx, t, func() error {
		all, err := q.stores(ctx)
		if err != nil {
			return err
		}
		fresh := 0
		for _, s := range all {
			if s.LastError == nil && s.LastCheck.After(since) {
				fresh++
			}
		}
		if fresh != groups || len(all) != groups {
			return fmt.Errorf(
				"the Querier asks %+v, want %d groups checked after %s",
				all,
				groups,
				since,
			)
		}
		return nil
	})
}

// samples returns the number of samples in the bucket that the Querier finds.
func (q *querier) samples(ctx context.Context) (int, error) {
	var body struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	v := url.Values{
		"query": {
			"sum(count_over_time(up[7h])) + sum(count_over_time(http_requests_total[7h])) + " +
				"sum(count_over_time(process_open_fds[7h]))",
		},
		"time":             {fmt.Sprint(resizeEnd)},
		"dedup":            {"false"},
		"partial_response": {"false"},
	}
	if err := get(ctx, q.url+"/api/v1/query?"+v.Encode(), &body); err != nil {
		return 0, err
	}
	if len(body.Data.Result) == 0 {
		return 0, nil
	}
	var n int
	_, err := fmt.Sscan(fmt.Sprint(body.Data.Result[0].Value[1]), &n)
	return n, err
}

// continuously queries until the returned function is called, which reports answers without all
// samples.
func (q *querier) continuously(ctx context.Context, t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var asked, wrong atomic.Int64
	var first atomic.Value
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			n, err := q.samples(ctx)
			if ctx.Err() != nil {
				return
			}
			asked.Add(1)
			if err != nil || n != resizeSamples {
				wrong.Add(1)
				first.CompareAndSwap(nil, fmt.Sprintf("%d samples, error %v", n, err))
			}
		}
	}()
	return func() {
		cancel()
		<-done
		if asked.Load() < 10 || wrong.Load() > 0 {
			t.Errorf(
				"%d of %d queries were not complete; the first: %v",
				wrong.Load(),
				asked.Load(),
				first.Load(),
			)
		}
		t.Logf("%d queries found all %d samples", asked.Load()-wrong.Load(), resizeSamples)
	}
}

// poll calls f until it succeeds or ctx ends.
func poll(ctx context.Context, t *testing.T, f func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%v: %v", ctx.Err(), err)
		case <-tick.C:
		}
	}
}
