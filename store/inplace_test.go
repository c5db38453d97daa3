package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/internal/bytecache/bytecachetest"
	"larder/store/catalog"
	"larder/store/storepb"
)

// pods are series of n pods with names that begin with prefix. The last few belong to another
// metric than the queried one.
type pods struct {
	prefix string
	n, few int
}

func (p pods) Series() iter.Seq[dataset.Series] {
	return func(yield func(dataset.Series) bool) {
		for i := range p.n {
			name := dataset.WholeMetricName
			if i >= p.n-p.few {
				name = strings.Repeat("z", len(name))
			}
			s := dataset.Series{
				Labels: labels.FromStrings("__name__", name, "pod",
					fmt.Sprintf("%s%07d", p.prefix, i)),
				Seed: uint64(i),
			}
			for _, c := range p.prefix {
				s.Seed += uint64(c) << 32
			}
			if !yield(s) {
				return
			}
		}
	}
}

// podsBlock writes a bucket of one block, always with the same ULID.
func podsBlock(t *testing.T, p pods) (dir, id string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "bucket")
	b := dataset.Block{
		MinTime:  dataset.Epoch,
		MaxTime:  dataset.Epoch + 2*3600_000,
		Interval: 600_000,
		Series:   p,
		Labels:   labels.FromStrings("cluster", "eu"),
	}
	b.ID[0], b.ID[15] = 1, 1
	metas, err := dataset.Layout{
		Name:   "pods",
		Blocks: []dataset.Block{b},
	}.Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	editMeta(t, dir, metas[0], func(m map[string]any) {
		m["thanos"].(map[string]any)["source"] = fmt.Sprint("repair ", p.few, p.prefix)
	})
	return dir, b.ID.String()
}

func takeAway(t *testing.T, dir, id string) {
	t.Helper()
	if err := os.Rename(filepath.Join(dir, id), filepath.Join(t.TempDir(), id)); err != nil {
		t.Fatal(err)
	}
}

// putInPlace replaces the content of a block by that of the same block in another bucket, and syncs
// the catalog.
func putInPlace(t *testing.T, g *gateway, dir, from, id string) {
	t.Helper()
	takeAway(t, dir, id)
	if err := os.CopyFS(filepath.Join(dir, id), os.DirFS(filepath.Join(from, id))); err != nil {
		t.Fatal(err)
	}
	// Buckets may state times in seconds only.
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(filepath.Join(dir, id, "meta.json"), later, later); err != nil {
		t.Fatal(err)
	}
	if err := g.Catalog.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// allOfABlock returns all answers for a block.
func allOfABlock(t *testing.T, g *gateway) (out []string, err error) {
	t.Helper()
	a, err := g.query(t.Context(), wholeMetric(1))
	if err != nil {
		return nil, err
	}
	out = seriesTexts(a)
	for _, ms := range [][]*storepb.LabelMatcher{nil, wholeMetric(1).Matchers} {
		v, err := g.client.LabelValues(t.Context(),
			&storepb.LabelValuesRequest{Label: "pod", Start: 0, End: 1 << 50, Matchers: ms})
		if err != nil {
			return nil, err
		}
		out = append(out, v.Values...)
	}
	return out, nil
}

func seriesTexts(a *answer) (out []string) {
	for _, s := range a.series {
		out = append(out, fmt.Sprint(seriesLabels(s), s.Chunks))
	}
	return out
}

// TestABlockReplacedUnderItsName replaces the content of a block under the same ULID. Once the
// catalog has read the new meta.json, answers must come from the new content, although headers,
// pages, postings and series sets of the old one are cached in memory, on disk and in memcached.
func TestABlockReplacedUnderItsName(t *testing.T) {
	was := pods{"aaa", 50, 10}
	for name, is := range map[string]pods{"same sizes": {"bbb", 50, 10},
		"same sizes, other postings": {"aaa", 50, 30}, "other sizes": {"longer", 200, 10}} {
		t.Run(name, func(t *testing.T) {
			dir, id := podsBlock(t, was)
			from, _ := podsBlock(t, is)
			before, err := allOfABlock(t, startGateway(t, dir, gatewayOptions{}))
			if err != nil {
				t.Fatal(err)
			}
			want, err := allOfABlock(t, startGateway(t, from, gatewayOptions{}))
			if err != nil {
				t.Fatal(err)
			}
			opts := gatewayOptions{
				discovery: catalog.Recursive,
				dataDir:   t.TempDir(),
				remote:    bytecachetest.NewRemote(),
			}
			g := startGateway(t, dir, opts)
			for range 4 { // fill all caches
				if got, err := allOfABlock(t, g); err != nil || !slices.Equal(got, before) {
					t.Fatalf("before: %v", err)
				}
			}
			putInPlace(t, g, dir, from, id)
			for range 3 {
				if got, err := allOfABlock(t, g); err != nil || !slices.Equal(got, want) {
					t.Errorf("after it was replaced: %v; got %.300q, want %.300q", err, got, want)
				}
			}
			g.Headers.Close()
			g.Catalog.Close()
			for what, opts := range map[string]gatewayOptions{
				"data directory": {dataDir: opts.dataDir}, "memcached": {remote: opts.remote}} {
				opts.discovery = catalog.Recursive
				if got, err := allOfABlock(t, startGateway(t, dir, opts)); err != nil ||
					!slices.Equal(got, want) {
					t.Errorf("a new process with the same %s: %v; got %.300q, want %.300q",
						what, err, got, want)
				}
			}
		})
	}
}

// listedOnce is a bucket that calls then once, after a listing of the folder.
type listedOnce struct {
	objstore.Bucket
	folder string
	once   sync.Once
	then   func()
}

func (b *listedOnce) Iter(
	ctx context.Context, dir string, f func(string) error, opts ...objstore.IterOption,
) error {
	err := b.Bucket.Iter(ctx, dir, f, opts...)
	if dir == b.folder {
		b.once.Do(b.then)
	}
	return err
}

// TestABlockReplacedUnderARequest replaces the content of a block while a request reads it. The
// request must return the right answer or Aborted, both if a sync finds the change and if the
// request finds missing files.
func TestABlockReplacedUnderARequest(t *testing.T) {
	for _, bySync := range []bool{true, false} {
		t.Run(
			map[bool]string{true: "seen by a sync", false: "seen by the request"}[bySync],
			func(t *testing.T) {
				dir, id := podsBlock(t, pods{"aaa", 4000, 0})
				from, _ := podsBlock(t, pods{"longer", 200, 0})
				before, err := allOfABlock(t, startGateway(t, dir, gatewayOptions{}))
				if err != nil {
					t.Fatal(err)
				}
				g := startGateway(t, dir, gatewayOptions{
					discovery: catalog.Recursive, refreshEvery: time.Millisecond, chunkBytes: -1,
					pageSize: 1 << 10,
					wrap: func(b objstore.Bucket) objstore.Bucket {
						return &listedOnce{Bucket: b, folder: id + "/", then: func() {
							if !bySync {
								_ = os.CopyFS(filepath.Join(dir, id),
									os.DirFS(filepath.Join(from, id)))
							}
						}}
					},
				})
				stream, err := g.client.Series(t.Context(), wholeMetric(1))
				if err != nil {
					t.Fatal(err)
				}
				a := &answer{}
				for err == nil {
					var resp *storepb.SeriesResponse
					if resp, err = stream.Recv(); err == nil && resp.GetSeries() != nil {
						a.series = append(a.series, resp.GetSeries())
					}
					switch {
					case len(a.series) != 1:
					case bySync:
						putInPlace(t, g, dir, from, id)
					default:
						takeAway(t, dir, id)
					}
				}
				got := seriesTexts(a)
				if !slices.Equal(got, before[:min(len(got), 4000)]) {
					t.Error("the partial answer is not a prefix of the right one")
				}
				if ended := errors.Is(err, io.EOF); ended && len(got) != 4000 ||
					!ended && status.Code(err) != codes.Aborted {
					t.Errorf("%d series, then %v", len(got), err)
				}
			},
		)
	}
}
