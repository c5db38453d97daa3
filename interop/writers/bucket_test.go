package writers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/block/metadata"
	"github.com/thanos-io/thanos/pkg/store/storepb"
	"google.golang.org/grpc/codes"

	"larder/interop/internal/answer"
	"larder/interop/internal/gateway"
	"larder/interop/internal/process"
	"larder/interop/internal/query"
	"larder/interop/internal/samples"
)

// larder builds the binary and returns its path.
func larder(t *testing.T) string {
	t.Helper()
	bin, err := gateway.BuildLarder(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// emptyBucket makes a bucket without blocks. Larder and Thanos share b.DataDir if both are started
// over it.
func emptyBucket(t *testing.T) gateway.Bucket {
	t.Helper()
	dir := t.TempDir()
	b := gateway.Bucket{Dir: filepath.Join(dir, "bucket"), DataDir: filepath.Join(dir, "gateway")}
	if err := os.Mkdir(b.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

// objstore returns the arguments that name the bucket to any component of Thanos.
func objstore(b gateway.Bucket) string {
	return "--objstore.config=" + fmt.Sprintf("{type: FILESYSTEM, config: {directory: %q}}", b.Dir)
}

// closing closes a process when the test ends, and fails the test if that fails.
func closing(t *testing.T, what string, c interface{ Close() error }) {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	})
}

// serving is a running store gateway and its client.
type serving struct {
	*process.Process
	client         *gateway.Client
	addr, httpAddr string
}

// startLarder runs larder over a bucket until the test ends. It looks for changes of the bucket
// every second unless extra sets another interval.
func startLarder(t *testing.T, bin string, b gateway.Bucket, extra ...string) *serving {
	t.Helper()
	interval := func(arg string) bool { return strings.HasPrefix(arg, "--sync-block-duration=") }
	if !slices.ContainsFunc(extra, interval) {
		extra = append(extra, "--sync-block-duration=1s")
	}
	l, err := gateway.StartLarder(t.Context(), bin, b, extra...)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, "larder", l)
	return &serving{l.Process, dial(t, l.Addr), l.Addr, l.HTTPAddr}
}

func dial(t *testing.T, addr string) *gateway.Client {
	t.Helper()
	c, err := gateway.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, "client", c)
	return c
}

// everything asks for all series of all time.
func everything() *storepb.SeriesRequest {
	return &storepb.SeriesRequest{
		MinTime: 0, MaxTime: math.MaxInt64, ResponseBatchSize: 64,
		Matchers: []storepb.LabelMatcher{
			{Type: storepb.LabelMatcher_RE, Name: labels.MetricName, Value: ".+"},
		},
		Aggregates: []storepb.Aggr{
			storepb.Aggr_COUNT,
			storepb.Aggr_SUM,
			storepb.Aggr_MIN,
			storepb.Aggr_MAX,
		},
	}
}

// series asks a gateway and demands a successful answer.
func series(
	ctx context.Context, c *gateway.Client, req *storepb.SeriesRequest,
) (*answer.Answer, error) {
	q := &query.Query{Series: req}
	if err := q.SetHints(nil, false); err != nil {
		return nil, err
	}
	a, err := answer.Ask(ctx, c, q)
	switch {
	case err != nil:
		return nil, err
	case a.Code != codes.OK:
		return nil, fmt.Errorf("%s: %s", a.Code, a.Message)
	case len(a.Warnings) > 0:
		return nil, fmt.Errorf("warnings: %q", a.Warnings)
	}
	return a, nil
}

// raw asks for all raw samples.
func raw(
	ctx context.Context, c *gateway.Client, without ...string,
) (samples.Set, *answer.Answer, error) {
	req := everything()
	req.WithoutReplicaLabels = without
	a, err := series(ctx, c, req)
	if err != nil {
		return nil, nil, err
	}
	set, err := samples.Raw(a.Series)
	return set, a, err
}

// await waits until a gateway's raw samples are the expected ones.
func (s *serving) await(t *testing.T, want samples.Set, without ...string) *answer.Answer {
	t.Helper()
	var last *answer.Answer
	diff := "nothing was answered"
	err := s.Wait(t.Context(), func(ctx context.Context) bool {
		got, a, err := raw(ctx, s.client, without...)
		if err != nil {
			diff = err.Error()
			return false
		}
		last, diff = a, want.Diff(got)
		return diff == ""
	})
	if err != nil {
		t.Fatalf("%v\nthe samples differ: %s", err, diff)
	}
	return last
}

// awaitBlocks waits until a gateway answers from exactly these blocks.
func (s *serving) awaitBlocks(t *testing.T, want ...ulid.ULID) {
	t.Helper()
	var ids, last []string
	for _, id := range want {
		ids = append(ids, id.String())
	}
	slices.Sort(ids)
	err := s.Wait(t.Context(), func(ctx context.Context) bool {
		_, a, err := raw(ctx, s.client)
		if err != nil || a.Hints == nil {
			return false
		}
		last = a.Hints.Blocks
		return slices.Equal(last, ids)
	})
	if err != nil {
		t.Fatalf("%v\nblocks %v, want %v", err, last, ids)
	}
}

// nextSync waits until larder has completed one more sync of the bucket.
func (s *serving) nextSync(t *testing.T) {
	t.Helper()
	const begun = "thanos_blocks_meta_syncs_total"
	n := metric(t, s.httpAddr, begun)
	err := s.Wait(t.Context(), func(ctx context.Context) bool {
		// A sync has ended when the one after it begins.
		now, err := process.Metric(ctx, "http://"+s.httpAddr+"/metrics", begun)
		return err == nil && now >= n+2
	})
	if err != nil {
		t.Fatal(err)
	}
}

// answers fails the test unless larder's raw samples are the expected ones now.
func (s *serving) answers(t *testing.T, want samples.Set) *answer.Answer {
	t.Helper()
	got, a, err := raw(t.Context(), s.client)
	if err != nil {
		t.Fatal(err)
	}
	if d := want.Diff(got); d != "" {
		t.Fatalf("the samples differ: %s", d)
	}
	return a
}

// awaitUploads waits until a bucket has the given number of whole blocks; p is the process that
// uploads them.
func awaitUploads(
	t *testing.T, p *process.Process, b gateway.Bucket, n int,
) map[ulid.ULID]*metadata.Meta {
	t.Helper()
	var all map[ulid.ULID]*metadata.Meta
	if err := p.Wait(t.Context(), func(context.Context) bool {
		all, _ = metas(t, b)
		return len(all) >= n
	}); err != nil {
		t.Fatalf("%d blocks are in the bucket, want %d: %v", len(all), n, err)
	}
	return all
}

// metas reads a bucket: whole blocks by name, and those with a deletion mark in marked.
func metas(t *testing.T, b gateway.Bucket) (all map[ulid.ULID]*metadata.Meta, marked []ulid.ULID) {
	t.Helper()
	entries, err := os.ReadDir(b.Dir)
	if err != nil {
		t.Fatal(err)
	}
	all = map[ulid.ULID]*metadata.Meta{}
	for _, e := range entries {
		id, err := ulid.ParseStrict(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(b.Dir, e.Name())
		m, err := metadata.ReadFromDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			continue // it is being written this moment
		}
		all[id] = m
		if _, err := os.Stat(filepath.Join(dir, metadata.DeletionMarkFilename)); err == nil {
			marked = append(marked, id)
		}
	}
	return all, marked
}

// localBlocks lists the finished blocks in a TSDB's folder.
func localBlocks(dir string) (out []tsdbMeta, err error) {
	found, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range found {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // compacted away
		}
		if err != nil {
			return nil, err
		}
		var m tsdbMeta
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, m)
	}
	return out, nil
}

type tsdbMeta struct {
	ULID             ulid.ULID
	MinTime, MaxTime int64
}

// metric returns the sum of the samples of a metric that a server exports.
func metric(t *testing.T, addr, name string) float64 {
	t.Helper()
	sum, err := process.Metric(t.Context(), "http://"+addr+"/metrics", name)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// run runs a program to its end.
func run(t *testing.T, name, bin string, args ...string) {
	t.Helper()
	p, err := process.Start(t.Context(), process.Options{Name: name, Bin: bin, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Exited():
	case <-time.After(5 * time.Minute):
		t.Fatalf("%s failed: %v\n%s", name, p.Close(), p.Log())
	}
	if err := p.Err(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, p.Log())
	}
}
