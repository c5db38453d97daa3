package store_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"larder/benchmarks/dataset"
	"larder/store/catalog"
	"larder/store/storepb"
)

// become renames a block, as if a compactor had rewritten it and deleted the old one. change edits
// its meta.json.
func become(dir string, old, replacement ulid.ULID, change func(meta []byte) []byte) error {
	meta := filepath.Join(dir, old.String(), "meta.json")
	b, err := os.ReadFile(meta)
	if err != nil {
		return err
	}
	// Only the ULID changes. The sources still name the old block.
	b = bytes.Replace(b, []byte(old.String()), []byte(replacement.String()), 1)
	if err := os.WriteFile(meta, change(b), 0o644); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, old.String()), filepath.Join(dir, replacement.String()))
}

// other adds a block of the same series with another external label, so that its series sort among
// the others.
func other(dir string, id ulid.ULID) error {
	next := id
	next[15] ^= 0x33
	from, to := filepath.Join(dir, id.String()), filepath.Join(dir, next.String())
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	meta := filepath.Join(to, "meta.json")
	b, err := os.ReadFile(meta)
	if err != nil {
		return err
	}
	b = bytes.ReplaceAll(b, []byte(id.String()), []byte(next.String()))
	return os.WriteFile(
		meta, bytes.Replace(b, []byte(`"labels": {`), []byte(`"labels": {"zone":"late",`), 1),
		0o600,
	)
}

// TestAnAnswerContinuesAfterABlockWasReplaced deletes a block while its series are being sent. The
// rest of the answer must come from the block that replaced it, and no series may be missing or
// repeated. Without a replacement the request must fail.
func TestAnAnswerContinuesAfterABlockWasReplaced(t *testing.T) {
	same := func(meta []byte) []byte { return meta }
	unlabelled := func(meta []byte) []byte {
		return bytes.Replace(meta, []byte(`"labels":`), []byte(`"labels.was":`), 1)
	}
	whole := wholeBlock(t, 12_000)
	for _, tc := range []struct {
		name    string
		change  func([]byte) []byte
		gone    bool
		comes   bool // another block appears at the same time
		without []string
		matcher *storepb.LabelMatcher
		byID    bool // the request asks for the old block alone
		batch   int64
		limit   int64
		code    codes.Code
		long    bool // not in the short form, which runs with the race detector
	}{
		{name: "replaced", change: same, code: codes.OK, long: true},
		{name: "replaced, batches", change: same, batch: 64, code: codes.OK, long: true},
		{name: "replaced, limit", change: same, batch: 64, limit: 9000, code: codes.OK},
		{name: "other labels", change: unlabelled, code: codes.Aborted, long: true},
		{name: "other labels, not asked for", change: unlabelled,
			without: []string{"cluster", "replica"}, code: codes.OK, long: true},
		{name: "other labels, matched", change: unlabelled, without: []string{"cluster", "replica"},
			code:    codes.Aborted,
			matcher: &storepb.LabelMatcher{Type: storepb.LabelMatcher_NEQ, Name: "replica"}},
		{name: "replaced, block asked for by ID", change: same, byID: true, code: codes.Aborted,
			long: true},
		{name: "replaced, another comes", change: same, comes: true, batch: 64, code: codes.OK},
		{name: "deleted", gone: true, code: codes.Aborted},
	} {
		if tc.long && testing.Short() {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			g := startGateway(t, dir, gatewayOptions{
				chunkBytes: -1,
				indexBytes: -1,
				oneAhead:   true,
				logger:     slog.New(slog.NewTextHandler(&log, nil)),
			})
			req := wholeMetric(tc.batch)
			req.Limit, req.WithoutReplicaLabels = tc.limit, tc.without
			old := g.Catalog.View().Blocks[0].ID
			if tc.matcher != nil {
				req.Matchers = append(req.Matchers, tc.matcher)
			}
			if tc.byID {
				req.Hints = onlyBlock(t, old)
			}
			want, err := g.query(context.Background(), req)
			if err != nil {
				t.Fatal(err)
			}
			replacement := old
			replacement[15] ^= 0x55
			var reads atomic.Int64
			g.bucket.setOnRead(
				func(name string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
					if objectKind(name) != "chunks" {
						return body, nil
					}
					// Windows grow to 4 MiB. At the third read the first window has been sent, and
					// more follow.
					if reads.Add(1) != 3 {
						return body, nil
					}
					if tc.gone {
						return body, os.RemoveAll(filepath.Join(dir, old.String()))
					}
					if tc.comes {
						if err := other(dir, old); err != nil {
							return body, err
						}
					}
					return body, become(dir, old, replacement, tc.change)
				},
			)
			got, err := g.query(context.Background(), req)
			if status.Code(err) != tc.code {
				t.Fatalf("got %v, want %s", err, tc.code)
			}
			if n := strings.Count(log.String(), "block was deleted from the bucket"); n != 1 {
				t.Errorf("the log says %d times that a block was deleted, want once: after %d reads",
					n, reads.Load())
			}
			if err != nil {
				return
			}
			if len(got.series) != len(want.series) {
				t.Errorf("%d series, want %d", len(got.series), len(want.series))
			}
			for i := range min(len(got.series), len(want.series)) {
				if !proto.Equal(got.series[i], want.series[i]) {
					t.Fatalf("series %d differs: got\n%v\nwant\n%v",
						i, got.series[i], want.series[i])
				}
			}
		})
	}
}

// TestABlockMayBeReplacedMoreThanOnce replaces the replacement of a block before it is read.
func TestABlockMayBeReplacedMoreThanOnce(t *testing.T) {
	dir := wholeBlock(t, 400)
	g := startGateway(t, dir, gatewayOptions{refreshEvery: time.Millisecond})
	now := g.Catalog.View().Blocks[0].ID
	rounds := 0 // not guarded: the block has one index page, which one goroutine at a time reads
	replace := func() error {
		next := now
		next[15]++
		err := become(dir, now, next, func(meta []byte) []byte {
			return bytes.Replace(
				meta, []byte(`"sources":[`), fmt.Appendf(nil, `"sources":[%q,`, now), 1,
			)
		})
		now = next
		rounds++
		return err
	}
	if err := replace(); err != nil {
		t.Fatal(err)
	}
	g.bucket.setOnRead(func(name string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
		if rounds < 2 && objectKind(name) == "index" {
			return body, replace()
		}
		return body, nil
	})
	for what, ask := range map[string]func() (int, error){
		"Series": func() (int, error) {
			a, err := g.query(context.Background(), wholeMetric(64))
			if err != nil {
				return 0, err
			}
			return len(a.series), nil
		},
		"LabelValues": func() (int, error) {
			rounds = 1
			if err := replace(); err != nil {
				return 0, err
			}
			r, err := g.client.LabelValues(context.Background(),
				&storepb.LabelValuesRequest{Label: "code", End: 1 << 50})
			return len(r.GetValues()), err
		},
	} {
		if n, err := ask(); err != nil || n == 0 {
			t.Errorf("%s: %d answers, %v", what, n, err)
		}
	}
}

// TestADownsampledBlockIsDeletedBeforeItsSuccessor deletes a five-minute block without a
// replacement of its resolution. A request that has sent no frame is answered from the raw block,
// like a new one. A request that has sent frames fails, because the rest of its answer would have
// another resolution.
func TestADownsampledBlockIsDeletedBeforeItsSuccessor(t *testing.T) {
	for name, tc := range map[string]struct {
		series int
		read   int64 // the read of chunks that finds the block deleted
		code   codes.Code
	}{
		// One window, because a second one may be read before the first.
		"before the first frame": {series: 100, read: 1, code: codes.OK},
		"between frames":         {series: 12_000, read: 3, code: codes.Aborted},
	} {
		t.Run(name, func(t *testing.T) {
			dir, gone := wholeBlock(t, tc.series), t.TempDir()
			g := startGateway(t, dir, gatewayOptions{
				chunkBytes: -1, indexBytes: -1, oneAhead: true, refreshEvery: time.Millisecond,
			})
			raw, req := g.Catalog.View().Blocks[0].ID, wholeMetric(64)
			want, err := g.query(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			coarse := raw
			coarse[15] ^= 0x55
			if err := os.CopyFS(filepath.Join(dir, coarse.String()),
				os.DirFS(filepath.Join(dir, raw.String()))); err != nil {
				t.Fatal(err)
			}
			copied := &dataset.Meta{}
			copied.ULID = coarse
			editMeta(t, dir, copied, func(meta map[string]any) {
				meta["ulid"] = coarse
				meta["thanos"].(map[string]any)["downsample"] = map[string]any{
					"resolution": catalog.Resolution5m,
				}
			})
			if err := g.Catalog.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			req.MaxResolutionWindow = catalog.Resolution5m
			var reads atomic.Int64
			g.bucket.setOnRead(
				func(name string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
					if objectKind(name) != "chunks" || reads.Add(1) != tc.read {
						return body, nil
					}
					if !strings.HasPrefix(name, coarse.String()) {
						t.Errorf("read %s, not the five-minute block", name)
					}
					_ = body.Close()
					// At once, because other reads of the block may run.
					folder := filepath.Join(dir, coarse.String())
					if err := os.Rename(folder, filepath.Join(gone, "block")); err != nil {
						return nil, err
					}
					return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
				},
			)
			got, err := g.query(t.Context(), req)
			if status.Code(err) != tc.code {
				t.Fatalf("got %v, want %s", err, tc.code)
			}
			if err != nil {
				if got.frames == 0 {
					t.Error("the fault came before the first frame")
				}
				return
			}
			if len(got.series) != len(want.series) {
				t.Fatalf("%d series, want %d", len(got.series), len(want.series))
			}
			for i := range want.series {
				if !proto.Equal(got.series[i], want.series[i]) {
					t.Fatalf("series %d differs: got\n%v\nwant\n%v",
						i, got.series[i], want.series[i])
				}
			}
		})
	}
}
