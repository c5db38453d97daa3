package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/benchmarks/dataset"
	"larder/internal/faultstore"
	"larder/internal/telemetry/telemetrytest"
	"larder/store/storepb"
)

// twoBlocks writes two blocks of the same 200 series, for two consecutive time ranges.
func twoBlocks(t *testing.T) (dir string, metas []*dataset.Meta) {
	t.Helper()
	return blocksOf(t, 200, 30_000)
}

// blocksOf writes two blocks of the same series, with a sample per interval (milliseconds).
func blocksOf(t *testing.T, series int, interval int64) (dir string, metas []*dataset.Meta) {
	t.Helper()
	dir = t.TempDir()
	l := dataset.WholeMetric("two", 5, series, interval)
	second := l.Blocks[0]
	second.MinTime, second.MaxTime = second.MaxTime, 2*second.MaxTime-second.MinTime
	second.ID[15]++
	second.ID[0] = l.Blocks[0].ID[0]
	l.Blocks = append(l.Blocks, second)
	metas, err := l.Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return dir, metas
}

func only(t *testing.T, m *dataset.Meta) *storepb.SeriesRequest {
	req := wholeMetric(32)
	req.Hints = onlyBlock(t, m.ULID)
	return req
}

// damage changes a file of a block.
func damage(t *testing.T, path string, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestADamagedBlockDoesNotAffectOthers damages the files of one of two blocks in many ways. Queries
// for it fail with an error that names the block and the cause. Queries for the other block are
// answered as before.
func TestADamagedBlockDoesNotAffectOthers(t *testing.T) {
	flip := func(at func(n int) int) func([]byte) []byte {
		return func(b []byte) []byte {
			b[at(len(b))] ^= 0x10
			return b
		}
	}
	for _, tc := range []struct {
		name   string
		file   string
		change func(b []byte) []byte // nil: remove the file
		says   string
	}{
		{"series entry", "index", flip(func(n int) int { return n / 2 }), "/index"},
		{"index magic", "index", flip(func(int) int { return 0 }), "index"},
		{"index version", "index", func(b []byte) []byte { b[4] = 9; return b }, "version"},
		{"index table of contents", "index", flip(func(n int) int { return n - 20 }), "index"},
		{"index cut short", "index", func(b []byte) []byte { return b[:len(b)/2] }, "index"},
		{"index missing", "index", nil, "index"},
		{"chunk record", "chunks/000001", flip(func(n int) int { return n / 2 }), "chunks/000001"},
		{"chunk file cut short", "chunks/000001", func(b []byte) []byte {
			return b[:len(b)/2]
		}, "chunks/000001"},
		{"chunk file missing", "chunks/000001", nil, "chunks/000001"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, metas := twoBlocks(t)
			bad, good := metas[0], metas[1]
			path := filepath.Join(dir, bad.ULID.String(), tc.file)
			if tc.change == nil {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else {
				damage(t, path, tc.change)
			}
			g := startGateway(t, dir, gatewayOptions{})
			for range 2 { // the second finds what the first has cached
				_, err := g.query(context.Background(), only(t, bad))
				if got := status.Code(err); got != codes.Aborted {
					t.Fatalf("code %s, want Aborted: %v", got, err)
				}
				for _, part := range []string{bad.ULID.String(), tc.says} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("error does not name %q: %v", part, err)
					}
				}
			}
			a, err := g.query(context.Background(), only(t, good))
			if err != nil {
				t.Fatal(err)
			}
			if len(a.series) != 200 {
				t.Errorf("the other block answered with %d series, want 200", len(a.series))
			}
		})
	}
}

// TestBytesDamagedInTransitAreReadAgain flips a bit in the first read of the index and in the first
// read of chunks. The answer must still be right.
func TestBytesDamagedInTransitAreReadAgain(t *testing.T) {
	dir, metas := twoBlocks(t)
	want, err := startGateway(
		t, dir, gatewayOptions{},
	).query(context.Background(), only(t, metas[0]))
	if err != nil {
		t.Fatal(err)
	}
	var log telemetrytest.Buffer
	faults := faultstore.New(1)
	g := startGateway(t, dir, gatewayOptions{
		indexBytes: -1, postingsBytes: -1, setBytes: -1, // the second request reads the index too
		logger: slog.New(slog.NewTextHandler(&log, nil)),
		wrap:   func(b objstore.Bucket) objstore.Bucket { return faultstore.Wrap(b, faults) },
	})
	// Build the header from undamaged bytes. Other tests damage those.
	req := only(t, metas[0])
	req.Limit = 1
	req.SkipChunks = true
	if _, err := g.query(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	var rules []faultstore.Rule
	for _, kind := range []string{"index", "chunks"} {
		rules = append(rules, faultstore.Rule{
			Kind: faultstore.FlippedBit, Count: 1, At: 1000,
			Match: func(_, name string) bool { return objectKind(name) == kind },
		})
	}
	faults.Set(rules...)
	got, err := g.query(context.Background(), only(t, metas[0]))
	if err != nil {
		t.Fatal(err)
	}
	if n := faults.Total(); n != len(rules) {
		t.Fatalf("%d reads were damaged, want %d", n, len(rules))
	}
	if diff := cmp.Diff(want.series, got.series, protocmp.Transform()); diff != "" {
		t.Errorf("answer after damage (-want +got):\n%s", diff)
	}
	// Only the log shows the damage. It must name the block and the record.
	record := `bad chunk record" err="receive series from ` + metas[0].ULID.String() +
		": chunk file 1: chunk record at offset "
	if !strings.Contains(log.String(), record) {
		t.Errorf("log lacks %q:\n%s", record, log.String())
	}
}

// TestAFailureIsNotRemembered checks that a request succeeds as soon as the bucket works again.
func TestAFailureIsNotRemembered(t *testing.T) {
	dir, metas := twoBlocks(t)
	g := startGateway(t, dir, gatewayOptions{})
	g.bucket.setOnRead(func(_ string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
		return nil, errors.Join(errors.New("bucket is away"), body.Close())
	})
	_, err := g.query(context.Background(), only(t, metas[0]))
	if status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "bucket is away") {
		t.Fatalf("got %v, want Aborted with the error of the bucket", err)
	}
	g.bucket.setOnRead(nil)
	a, err := g.query(context.Background(), only(t, metas[0]))
	if err != nil || len(a.series) != 200 {
		t.Fatalf("after the fault: %d series, %v", len(a.series), err)
	}
}

// TestAReplacedBlockIsPlannedAgain replaces a block, like a compactor, without a sync in between.
func TestAReplacedBlockIsPlannedAgain(t *testing.T) {
	dir, metas := twoBlocks(t)
	g := startGateway(t, dir, gatewayOptions{})
	before, err := g.query(context.Background(), wholeMetric(0))
	if err != nil {
		t.Fatal(err)
	}
	g = startGateway(t, dir, gatewayOptions{}) // nothing cached

	// The replacement has the same content under another ULID.
	old := metas[0].ULID
	replacement := old
	replacement[15] ^= 0x55
	if err := os.Rename(filepath.Join(dir, old.String()),
		filepath.Join(dir, replacement.String())); err != nil {
		t.Fatal(err)
	}
	damage(t, filepath.Join(dir, replacement.String(), "meta.json"), func(b []byte) []byte {
		return bytes.ReplaceAll(b, []byte(old.String()), []byte(replacement.String()))
	})
	after, err := g.query(context.Background(), wholeMetric(0))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before.series, after.series, protocmp.Transform()); diff != "" {
		t.Errorf("answer from the replacement (-want +got):\n%s", diff)
	}
}

func TestBadRequests(t *testing.T) {
	dir, _ := twoBlocks(t)
	g := startGateway(t, dir, gatewayOptions{})
	regex := wholeMetric(0)
	regex.Matchers = append(regex.Matchers,
		&storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "pod", Value: "("})
	hints := wholeMetric(0)
	hints.Hints = onlyBlock(t, [16]byte{})
	hints.Hints.TypeUrl = "type.googleapis.com/hintspb.LabelNamesRequestHints"
	matcher := wholeMetric(0)
	matcher.Matchers[0].Type = 17
	shard := func(index, total int64) *storepb.SeriesRequest {
		r := wholeMetric(0)
		r.ShardInfo = &storepb.ShardInfo{ShardIndex: index, TotalShards: total}
		return r
	}
	re := func(pattern string) *storepb.LabelMatcher {
		return &storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "pod", Value: pattern}
	}
	many, repeats, nested := wholeMetric(0), wholeMetric(0), wholeMetric(0)
	many.Matchers = slices.Repeat([]*storepb.LabelMatcher{re("a.*")}, 10_001)
	repeats.Matchers = append(repeats.Matchers,
		re(strings.Repeat("((((a|b)c){10}){10}){10}x*", 50)))
	nested.Matchers = append(nested.Matchers,
		re(strings.Repeat("(", 5000)+strings.Repeat(")", 5000)))
	garbage := wholeMetric(0)
	garbage.Hints = onlyBlock(t, [16]byte{})
	garbage.Hints.Value = []byte("\xff\xff\xff")
	hintRegex := wholeMetric(0)
	h, err := anypb.New(
		&storepb.SeriesRequestHints{BlockMatchers: []*storepb.LabelMatcher{re("[")}},
	)
	if err != nil {
		t.Fatal(err)
	}
	hintRegex.Hints = h
	for name, req := range map[string]*storepb.SeriesRequest{
		"regex": regex, "hints": hints, "matcher type": matcher, "garbage as hints": garbage,
		"regex in hints":  hintRegex,
		"a shard too far": shard(3, 3), "a negative shard": shard(-1, 3),
		"a shard far away":  shard(math.MaxInt64, 1),
		"too many matchers": many, "repetitions": repeats, "nested too deep": nested,
	} {
		_, err := g.query(context.Background(), req)
		if status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() == "" {
			t.Errorf("%s: got %v, want InvalidArgument", name, err)
		}
	}

	// Absurd requests that have a meaning are answered, same as in Thanos.
	whole, err := g.query(context.Background(), wholeMetric(0))
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(r *storepb.SeriesRequest){
		"all time": func(r *storepb.SeriesRequest) {
			r.MinTime, r.MaxTime = math.MinInt64, math.MaxInt64
		},
		"no shards": func(r *storepb.SeriesRequest) {
			r.ShardInfo = &storepb.ShardInfo{ShardIndex: 5, TotalShards: -7}
		},
		"negative limit": func(r *storepb.SeriesRequest) { r.Limit = math.MinInt64 },
		"endless limit":  func(r *storepb.SeriesRequest) { r.Limit = math.MaxInt64 },
		"negative batch": func(r *storepb.SeriesRequest) {
			r.ResponseBatchSize = math.MinInt64
		},
		"negative resolution": func(r *storepb.SeriesRequest) {
			r.MaxResolutionWindow = math.MinInt64
		},
		"endless resolution": func(r *storepb.SeriesRequest) {
			r.MaxResolutionWindow = math.MaxInt64
		},
		"negative step": func(r *storepb.SeriesRequest) {
			r.Step, r.Range = math.MinInt64, math.MinInt64
		},
		"a nameless label": func(r *storepb.SeriesRequest) {
			r.WithoutReplicaLabels = []string{"", "none"}
		},
		"a text that looks repeated": func(r *storepb.SeriesRequest) {
			r.Matchers = append(r.Matchers, &storepb.LabelMatcher{Type: storepb.LabelMatcher_NEQ,
				Name: "pod", Value: strings.Repeat("x{1000}", 60)})
		},
		"an empty name": func(r *storepb.SeriesRequest) {
			r.Matchers = append(r.Matchers, &storepb.LabelMatcher{})
		},
		"one matcher 10,000 times": func(r *storepb.SeriesRequest) {
			r.Matchers = slices.Concat(r.Matchers, slices.Repeat([]*storepb.LabelMatcher{re(".*")},
				9_999))
		},
	} {
		req := wholeMetric(0)
		edit(req)
		a, err := g.query(context.Background(), req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if len(a.series) != len(whole.series) {
			t.Errorf("%s: got %d series, want %d", name, len(a.series), len(whole.series))
		}
	}
	empty := wholeMetric(0)
	empty.MinTime, empty.MaxTime = 10, 5
	if a, err := g.query(context.Background(), empty); err != nil || len(a.series) != 0 {
		t.Errorf("min_time after max_time: %d series, %v; want none and OK", len(a.series), err)
	}
}
