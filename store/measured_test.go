package store_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"larder/benchmarks/dataset"
	"larder/internal/bytecache/bytecachetest"
	"larder/internal/faultstore"
	"larder/store/storepb"
)

// statedFiles edits the sizes of files in a meta.json. edit gets the sizes by path and returns the
// sizes to state; nil states none.
func statedFiles(edit func(sizes map[string]int64) map[string]int64) func(meta map[string]any) {
	return func(meta map[string]any) {
		thanos := meta["thanos"].(map[string]any)
		sizes := map[string]int64{}
		for _, f := range thanos["files"].([]any) {
			f := f.(map[string]any)
			size, _ := f["size_bytes"].(float64)
			sizes[f["rel_path"].(string)] = int64(size)
		}
		delete(thanos, "files")
		delete(thanos, "segment_files")
		sizes = edit(sizes)
		if sizes == nil {
			return
		}
		var files []any
		for _, path := range slices.Sorted(maps.Keys(sizes)) {
			files = append(files, map[string]any{"rel_path": path, "size_bytes": sizes[path]})
		}
		thanos["files"] = files
	}
}

// manyFiles writes a bucket with one block of several chunk files.
func manyFiles(t *testing.T) (dir string, meta *dataset.Meta) {
	t.Helper()
	dir = t.TempDir()
	b := dataset.Block{
		MinTime: dataset.Epoch, MaxTime: dataset.Epoch + 2_400_000,
		Labels: labels.FromStrings("cluster", "raw"), Interval: 60_000, SamplesPerChunk: 6,
		Series: dataset.Service{
			Name:      "checkout",
			Namespace: "shop",
			Pods:      2,
			Handlers:  2,
		}.Series(3), ChunkFileSize: 4 << 10,
	}
	b.ID[0], b.ID[15] = 1, 1
	metas, err := dataset.Layout{
		Name:   "files",
		Blocks: []dataset.Block{b},
	}.Write(t.Context(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if names, err := filepath.Glob(filepath.Join(dir, b.ID.String(), "chunks", "*")); err != nil ||
		len(names) < 4 {
		t.Fatalf("chunk files are %q, %v; want at least 4", names, err)
	}
	return dir, metas[0]
}

// measurements returns how often larder asked the bucket for the sizes of a block's files.
func (g *gateway) measurements(t *testing.T) (changed, all float64) {
	t.Helper()
	for name, n := range values(t, g.reg, "larder_catalog_measurements_total") {
		if all += n; strings.HasSuffix(name, " changed") {
			changed += n
		}
	}
	return changed, all
}

// TestStatedSizesAreHints checks that a block is answered correctly even if meta.json states wrong
// sizes. The bucket is asked for the sizes once; later processes with the same data directory do
// not ask.
func TestStatedSizesAreHints(t *testing.T) {
	whole, meta := manyFiles(t)
	want := startGateway(t, whole, smallGateway()).ask(t)
	set := func(path string, size func(int64) int64) func(map[string]int64) map[string]int64 {
		return func(m map[string]int64) map[string]int64 {
			m[path] = size(m[path])
			return m
		}
	}
	but := func(n int64) func(int64) int64 { return func(size int64) int64 { return size + n } }
	is := func(n int64) func(int64) int64 { return func(int64) int64 { return n } }
	for name, edit := range map[string]func(map[string]int64) map[string]int64{
		"index a little larger":   set("index", but(4)),
		"index a little smaller":  set("index", but(-4)),
		"index much larger":       set("index", is(10_000_000)),
		"index of 8 EiB":          set("index", is(1<<63-1)),
		"index of a byte":         set("index", is(1)),
		"index of no bytes":       set("index", is(0)),
		"index of negative size":  set("index", is(-5)),
		"chunks a little larger":  set("chunks/000002", but(4)),
		"chunks a little smaller": set("chunks/000002", but(-4)),
		"chunks much larger":      set("chunks/000002", is(1<<40)),
		"chunks of 100 bytes":     set("chunks/000002", is(100)),
		"chunks of no bytes":      set("chunks/000002", is(0)),
		"chunks of negative size": set("chunks/000002", is(-5)),
		"a file that is not there": func(m map[string]int64) map[string]int64 {
			m["chunks/000077"] = 1000
			return m
		},
		"the last file is missing": func(m map[string]int64) map[string]int64 {
			delete(m, slices.Max(slices.Collect(maps.Keys(m))))
			last := ""
			for path := range m {
				if strings.HasPrefix(path, "chunks/") {
					last = max(last, path)
				}
			}
			delete(m, last)
			return m
		},
		"a file in the middle is missing": func(m map[string]int64) map[string]int64 {
			delete(m, "chunks/000002")
			return m
		},
		"index is missing": func(m map[string]int64) map[string]int64 {
			delete(m, "index")
			return m
		},
		"no chunk files": func(m map[string]int64) map[string]int64 {
			return map[string]int64{"index": m["index"]}
		},
		"all are wrong": func(m map[string]int64) map[string]int64 {
			for path := range m {
				m[path] = m[path]/2 + 1
			}
			return m
		},
		"nothing": func(map[string]int64) map[string]int64 { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyTree(t, whole)
			editMeta(t, dir, meta, statedFiles(edit))
			opts := smallGateway()
			opts.dataDir = t.TempDir()
			g := startGateway(t, dir, opts)
			for range 3 {
				g.ask(t).compare(t, want, "")
			}
			changed, all := g.measurements(t)
			if changed > 1 || all != changed {
				t.Errorf("the bucket was asked %v times, %v of them changed something",
					all, changed)
			}
			g.Headers.Close()
			g.Catalog.Close()
			again := startGateway(t, dir, opts)
			for range 2 {
				again.ask(t).compare(t, want, "")
			}
			if _, all := again.measurements(t); all != 0 {
				t.Errorf("the next process asked the bucket %v times", all)
			}
		})
	}
}

// TestFilesRepairedInPlace replaces the files of a block, with other sizes but the same meta.json,
// while gateways have the old ones in all caches. No answer may mix old and new. A process that
// reads the bucket must answer from the new files, whatever is in memcached and on its disk.
func TestFilesRepairedInPlace(t *testing.T) {
	for name, c := range map[string]struct{ was, is pods }{
		"grown":  {pods{"aaa", 50, 10}, pods{"longer", 200, 10}},
		"shrunk": {pods{"longer", 200, 10}, pods{"aaa", 50, 10}},
	} {
		for _, stated := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, stated %v", name, stated), func(t *testing.T) {
				dir, id := podsBlock(t, c.was)
				from, _ := podsBlock(t, c.is)
				meta, err := dataset.ReadMeta(filepath.Join(dir, id))
				if err != nil {
					t.Fatal(err)
				}
				if !stated {
					editMeta(t, dir, meta,
						statedFiles(func(map[string]int64) map[string]int64 { return nil }))
				}
				ask := func(g *gateway) []string {
					t.Helper()
					out, err := allOfABlock(t, g)
					if err != nil {
						t.Fatal(err)
					}
					return out
				}
				before := ask(startGateway(t, dir, gatewayOptions{}))
				after := ask(startGateway(t, from, gatewayOptions{}))
				cached := gatewayOptions{dataDir: t.TempDir(), remote: bytecachetest.NewRemote()}
				uncached := gatewayOptions{
					dataDir:       t.TempDir(),
					indexBytes:    -1,
					chunkBytes:    -1,
					postingsBytes: -1,
					setBytes:      -1,
				}
				g, u := startGateway(t, dir, cached), startGateway(t, dir, uncached)
				for range 4 {
					if got := ask(g); !slices.Equal(got, before) {
						t.Fatal("cached gateway: wrong answer before the repair")
					}
					if got := ask(u); !slices.Equal(got, before) {
						t.Fatal("uncached gateway: wrong answer before the repair")
					}
				}
				for _, file := range []string{"index", "chunks/000001"} {
					data, err := os.ReadFile(filepath.Join(from, id, file))
					if err != nil {
						t.Fatal(err)
					}
					damage(t, filepath.Join(dir, id, file), func([]byte) []byte { return data })
				}
				for range 3 {
					if got := ask(g); !slices.Equal(got, before) && !slices.Equal(got, after) {
						t.Error("cached gateway: the answer is from neither the old nor the new files")
					}
					if got := ask(u); !slices.Equal(got, after) {
						t.Error("uncached gateway: the answer is not from the new files")
					}
				}
				for what, opts := range map[string]gatewayOptions{
					"memcached":      {remote: cached.remote},
					"data directory": {dataDir: uncached.dataDir}} {
					if got := ask(startGateway(t, dir, opts)); !slices.Equal(got, after) {
						t.Errorf("a new process with the same %s: the answer is not from the new files", what)
					}
				}
			})
		}
	}
}

// TestSizesWhereTheBucketRefuses checks that a block without stated sizes is answered even if the
// bucket, or a proxy before it, denies listings and sizes of chunk files.
func TestSizesWhereTheBucketRefuses(t *testing.T) {
	whole, meta := manyFiles(t)
	want := startGateway(t, whole, smallGateway()).ask(t)
	editMeta(t, whole, meta, statedFiles(func(map[string]int64) map[string]int64 { return nil }))
	listing := func(kind faultstore.Kind) faultstore.Rule {
		return faultstore.Rule{
			Kind:  kind,
			Ops:   []string{objstore.OpIter},
			Match: func(_, dir string) bool { return strings.Contains(dir, "chunks") },
		}
	}
	for name, rules := range map[string][]faultstore.Rule{
		"attributes denied": {
			{Kind: faultstore.AccessDenied, Ops: []string{objstore.OpAttributes}}},
		"attributes say not found": {
			{Kind: faultstore.Vanished, Ops: []string{objstore.OpAttributes}}},
		"listing throttled": {listing(faultstore.SlowDown)},
		"listing denied":    {listing(faultstore.AccessDenied)},
		"listing and attributes fail": {listing(faultstore.SlowDown),
			{Kind: faultstore.Vanished, Ops: []string{objstore.OpAttributes}}},
		"the first ten requests of it": {
			{Kind: faultstore.ServerError, Ops: []string{objstore.OpAttributes}, Count: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			faults := faultstore.New(1)
			opts := smallGateway()
			opts.wrap = func(b objstore.Bucket) objstore.Bucket {
				return faultstore.Wrap(b, faults)
			}
			faults.Set(rules...)
			g := startGateway(t, whole, opts)
			for range 2 {
				g.ask(t).compare(t, want, "")
			}
		})
	}
}

// TestSizesWhileTheBucketFails queries a block of unknown sizes while requests for the sizes fail.
// Each answer must be right, or an error that names the block. Once the bucket works, all answers
// must be right.
func TestSizesWhileTheBucketFails(t *testing.T) {
	whole, meta := manyFiles(t)
	want := startGateway(t, whole, smallGateway()).ask(t)
	editMeta(t, whole, meta, statedFiles(func(map[string]int64) map[string]int64 { return nil }))
	for _, kind := range []faultstore.Kind{
		faultstore.ServerError, faultstore.SlowDown, faultstore.SlowFirstByte, faultstore.Reset,
		faultstore.AccessDenied, faultstore.Vanished,
		faultstore.ListingError,
	} {
		for _, probability := range []float64{0.5, 1} {
			t.Run(fmt.Sprintf("%v, %v", kind, probability), func(t *testing.T) {
				faults := faultstore.New(3)
				opts := smallGateway()
				opts.wrap = func(b objstore.Bucket) objstore.Bucket {
					return faultstore.Wrap(b, faults)
				}
				faults.Set(faultstore.Rule{
					Kind: kind, Probability: probability, Delay: time.Millisecond,
					Ops: []string{objstore.OpAttributes, objstore.OpIter, objstore.OpGetRange},
					Match: func(op, name string) bool {
						return name != "" && op != objstore.OpGetRange ||
							strings.Contains(name, "/chunks/")
					},
				})
				g := startGateway(t, whole, opts)
				for range 3 {
					for question, got := range g.ask(t) {
						if got != want[question] &&
							(!strings.HasPrefix(got, fails) ||
								!strings.Contains(got, meta.ULID.String())) {
							t.Errorf("%s: got %.300q", question, got)
						}
					}
				}
				if faults.Total() == 0 {
					t.Error("the fault has hit no call")
				}
				faults.Heal()
				g.ask(t).compare(t, want, "")
			})
		}
	}
}

// TestChunkFilesWithGaps serves blocks whose chunk files do not begin at 1 or have a gap.
// References may count files by position, if the writer numbered them so, or by name, if files were
// lost. No file may be used in place of a lost one.
func TestChunkFilesWithGaps(t *testing.T) {
	whole, meta := manyFiles(t)
	want := startGateway(t, whole, smallGateway()).ask(t)
	id := meta.ULID.String()
	for _, stated := range []bool{true, false} {
		for name, from := range map[string]int{"begin at 2": 1, "a gap": 3} {
			t.Run(fmt.Sprintf("%s, stated %v", name, stated), func(t *testing.T) {
				dir := copyTree(t, whole)
				rename := map[string]string{}
				names, err := filepath.Glob(filepath.Join(dir, id, "chunks", "*"))
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(names)
				for i := len(names); i >= from; i-- {
					was, is := fmt.Sprintf("chunks/%06d", i), fmt.Sprintf("chunks/%06d", i+1)
					rename[was] = is
					if err := os.Rename(filepath.Join(dir, id, was),
						filepath.Join(dir, id, is)); err != nil {
						t.Fatal(err)
					}
				}
				editMeta(t, dir, meta, statedFiles(func(m map[string]int64) map[string]int64 {
					if !stated {
						return nil
					}
					out := map[string]int64{}
					for path, size := range m {
						if to, ok := rename[path]; ok {
							path = to
						}
						out[path] = size
					}
					return out
				}))
				startGateway(t, dir, smallGateway()).ask(t).compare(t, want, "")
			})
		}
		t.Run(fmt.Sprintf("one is lost, stated %v", stated), func(t *testing.T) {
			dir := copyTree(t, whole)
			if err := os.Remove(filepath.Join(dir, id, "chunks", "000002")); err != nil {
				t.Fatal(err)
			}
			if !stated {
				editMeta(t, dir, meta,
					statedFiles(func(map[string]int64) map[string]int64 { return nil }))
			}
			g, sound := startGateway(t, dir, smallGateway()), startGateway(t, whole, smallGateway())
			served, failed := 0, 0
			for _, s := range seriesOf(t, sound) {
				req := oneSeries(s)
				right, err := sound.query(context.Background(), req)
				if err != nil {
					t.Fatal(err)
				}
				got, err := g.query(context.Background(), req)
				switch {
				case err == nil && slices.Equal(seriesTexts(got), seriesTexts(right)):
					served++
				case err == nil:
					t.Errorf("%v: a wrong answer", s)
				case strings.Contains(err.Error(), "000002") ||
					strings.Contains(err.Error(), "no such chunk file"):
					failed++
				default:
					t.Errorf("%v: %v", s, err)
				}
			}
			if served == 0 || failed == 0 {
				t.Errorf("%d series were served and %d failed", served, failed)
			}
		})
	}
}

// seriesOf returns the labels of all series of an answer.
func seriesOf(t *testing.T, g *gateway) (out []labels.Labels) {
	t.Helper()
	a, err := g.query(t.Context(), &storepb.SeriesRequest{
		MaxTime: 1 << 50, SkipChunks: true,
		Matchers: []*storepb.LabelMatcher{{Type: storepb.LabelMatcher_RE, Name: "__name__",
			Value: ".+"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range a.series {
		out = append(out, seriesLabels(s))
	}
	return out
}

// oneSeries returns a request for one series by all its labels.
func oneSeries(ls labels.Labels) *storepb.SeriesRequest {
	req := &storepb.SeriesRequest{MaxTime: 1 << 50}
	ls.Range(func(l labels.Label) {
		req.Matchers = append(req.Matchers, &storepb.LabelMatcher{Name: l.Name, Value: l.Value})
	})
	return req
}
