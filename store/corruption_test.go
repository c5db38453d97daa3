package store_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"larder/benchmarks/dataset"
	"larder/internal/bytecache/bytecachetest"
	"larder/store/storepb"
)

// The tests of this file change single bytes of small blocks. They try a random sample of the
// positions, drawn from a seed. With LARDER_FULL=1 they try all positions, which takes some
// minutes.

// positions returns the positions to try, of n bytes.
func positions(rnd *rand.Rand, n, sample int) []int {
	at := rnd.Perm(n)
	if os.Getenv("LARDER_FULL") == "" {
		if testing.Short() {
			sample /= 4
		}
		at = at[:min(sample, n)]
	}
	slices.Sort(at)
	return at
}

// lyingBucket changes one byte of one object in its answers. faultstore flips a byte of each body
// instead, at whatever offset of the object the body begins.
type lyingBucket struct {
	objstore.Bucket

	mu    sync.Mutex
	name  string
	off   int64
	flip  byte
	times int // how many more reads of the byte to change; -1: all
	reads int // of the byte since lie was called
}

// lie changes the byte at off of an object in the next reads of it; -1: in all reads.
func (b *lyingBucket) lie(name string, off int64, flip byte, times int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.name, b.off, b.flip, b.times, b.reads = name, off, flip, times, 0
}

// heal ends the changes and returns how often the byte was read.
func (b *lyingBucket) heal() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.times = 0
	return b.reads
}

func (b *lyingBucket) send(
	name string, off int64, body io.ReadCloser, err error,
) (io.ReadCloser, error) {
	if err != nil {
		return body, err
	}
	data, err := io.ReadAll(body)
	if err = closed(body, err); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := b.off - off; name == b.name && at >= 0 && at < int64(len(data)) {
		b.reads++
		if b.times != 0 {
			data[at] ^= b.flip
			b.times--
		}
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func closed(c io.Closer, err error) error {
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	return err
}

func (b *lyingBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	body, err := b.Bucket.Get(ctx, name)
	return b.send(name, 0, body, err)
}

func (b *lyingBucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	body, err := b.Bucket.GetRange(ctx, name, off, length)
	return b.send(name, off, body, err)
}

// smallBlocks writes a raw block with floats and native histograms, and a downsampled block with
// another label set.
func smallBlocks(t testing.TB) (dir string, metas []*dataset.Meta) {
	t.Helper()
	dir = t.TempDir()
	series := dataset.Service{
		Name:      "checkout",
		Namespace: "shop",
		Pods:      1,
		Handlers:  1,
		Native:    true,
	}.Series(3)
	raw := dataset.Block{
		MinTime: dataset.Epoch, MaxTime: dataset.Epoch + 2_400_000,
		Labels: labels.FromStrings("cluster", "raw"), Series: series,
		Interval: 240_000, SamplesPerChunk: 6,
	}
	raw.ID[0], raw.ID[15] = 1, 1
	down := raw
	down.Labels, down.Resolution, down.Interval, down.Level = labels.FromStrings(
		"cluster", "down",
	), 300_000, 60_000, 3
	down.ID[15] = 2
	metas, err := dataset.Layout{
		Name:   "small",
		Blocks: []dataset.Block{raw, down},
	}.Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return dir, metas
}

// smallGateway has caches that cost little to make.
func smallGateway() gatewayOptions {
	return gatewayOptions{
		indexBytes:    4 << 20,
		chunkBytes:    4 << 20,
		postingsBytes: 1 << 20,
		setBytes:      1 << 20,
	}
}

// everything has the answers of a gateway to requests for all blocks, as bytes, by the name of the
// request.
type everything map[string]string

// fails is an answer that is an error.
const fails = "error: "

// ask asks for all series with their chunks, some by a matcher, and all label names and values.
func (g *gateway) ask(t testing.TB) everything {
	t.Helper()
	ctx := context.Background()
	out := everything{}
	put := func(question string, err error, want codes.Code, m ...proto.Message) {
		if err != nil {
			if got := status.Code(err); got != want {
				t.Errorf("%s: code %s, want %s: %v", question, got, want, err)
			}
			out[question] = fails + err.Error()
			return
		}
		var b []byte
		for _, m := range m {
			var merr error
			if b, merr = (proto.MarshalOptions{Deterministic: true}).
				MarshalAppend(b, m); merr != nil {
				t.Fatal(merr)
			}
			b = append(b, '|')
		}
		out[question] = string(b)
	}
	for question, m := range map[string]*storepb.LabelMatcher{
		"series": {Type: storepb.LabelMatcher_RE, Name: "__name__", Value: ".+"},
		"some":   {Type: storepb.LabelMatcher_RE, Name: "pod", Value: "checkout-.*"},
	} {
		a, err := g.query(ctx, &storepb.SeriesRequest{
			MaxTime: 1 << 50, MaxResolutionWindow: 300_000, Matchers: []*storepb.LabelMatcher{m},
			ResponseBatchSize: 16,
			Aggregates: []storepb.Aggr{storepb.Aggr_COUNT, storepb.Aggr_SUM,
				storepb.Aggr_COUNTER},
		})
		var series []proto.Message
		if err == nil {
			for _, s := range a.series {
				series = append(series, s)
			}
		}
		put(question, err, codes.Aborted, series...)
	}
	names, err := g.client.LabelNames(ctx, &storepb.LabelNamesRequest{End: 1 << 50})
	put("names", err, codes.Internal, names)
	values, err := g.client.LabelValues(ctx, &storepb.LabelValuesRequest{
		End: 1 << 50, Label: "__name__",
		Matchers: []*storepb.LabelMatcher{{Type: storepb.LabelMatcher_RE, Name: "pod",
			Value: ".+"}},
	})
	put("values", err, codes.Internal, values)
	return out
}

var offsetInError = regexp.MustCompile(`(offset|byte) \d+`)

// compare fails the test if an answer is neither right nor an error that names the bad object. It
// returns the number of such errors.
func (e everything) compare(t testing.TB, want everything, bad string) (errors int) {
	t.Helper()
	for question, w := range want {
		got := e[question]
		if got == w {
			continue
		}
		text, failed := strings.CutPrefix(got, fails)
		switch {
		case !failed:
			t.Errorf("%s: a wrong answer, %d bytes instead of %d", question, len(got), len(w))
		case bad == "":
			t.Errorf("%s: %s", question, text)
		case !strings.Contains(text, bad) || !offsetInError.MatchString(text):
			t.Errorf("%s: the error does not name %s and an offset: %s", question, bad, text)
		default:
			errors++
		}
	}
	return errors
}

// blockFiles returns the names and sizes of the objects that queries of the blocks read.
func blockFiles(
	t testing.TB, dir string, metas []*dataset.Meta,
) (names []string, sizes map[string]int) {
	t.Helper()
	sizes = map[string]int{}
	for _, m := range metas {
		for _, f := range m.Thanos.Files {
			if f.RelPath == "meta.json" {
				continue
			}
			name := m.ULID.String() + "/" + f.RelPath
			names = append(names, name)
			sizes[name] = int(f.SizeBytes)
		}
	}
	return names, sizes
}

// TestEveryByteOfABlock changes one byte of an index or a chunk file in the bucket. Each answer
// must be right, because the byte is not used, or an error that names object and offset. Once the
// object is restored, all answers must be right, in this process and in the next one, because
// damaged bytes must not be cached.
func TestEveryByteOfABlock(t *testing.T) {
	if testing.Short() {
		t.Skip("requests one by one: the race detector finds more in others")
	}
	dir, metas := smallBlocks(t)
	want := startGateway(t, dir, gatewayOptions{}).ask(t)
	if n := want.compare(t, want, ""); n != 0 || len(want["series"]) < 10_000 {
		t.Fatalf("%d errors, %d bytes", n, len(want["series"]))
	}
	rnd := rand.New(rand.NewPCG(1, 5))
	names, sizes := blockFiles(t, dir, metas)
	for _, name := range names {
		t.Run(name[20:], func(t *testing.T) {
			used := 0
			at := positions(rnd, sizes[name], 40)
			for _, off := range at {
				ok := t.Run(fmt.Sprint("byte ", off), func(t *testing.T) {
					lying := &lyingBucket{}
					opts := smallGateway()
					opts.wrap = func(b objstore.Bucket) objstore.Bucket {
						lying.Bucket = b
						return lying
					}
					opts.remote, opts.dataDir = bytecachetest.NewRemote(), t.TempDir()
					lying.lie(name, int64(off), byte(1)<<rnd.IntN(8), -1)
					g := startGateway(t, dir, opts)
					n := g.ask(t).compare(t, want, name)
					if again := g.ask(t).compare(t, want, name); again != n {
						t.Errorf("%d answers are errors, then %d", n, again)
					}
					if n > 0 {
						used++
					}
					lying.heal()
					g.ask(t).compare(t, want, "")
					startGateway(t, dir, opts).ask(t).compare(t, want, "")
				})
				if !ok {
					return
				}
			}
			if used < len(at)/3 {
				t.Errorf("only %d of %d bytes are used", used, len(at))
			}
		})
	}
}

// corruptions returns how many pieces of data failed verification, and how many of these were right
// when they were read again.
func (g *gateway) corruptions(t testing.TB) (mended, failed float64) {
	t.Helper()
	for name, v := range values(t, g.reg, "larder_corruptions_total") {
		if strings.HasSuffix(name, " mended") {
			mended += v
		} else {
			failed += v
		}
	}
	return mended, failed
}

// TestEveryByteIsReadAgain changes one byte of an index or a chunk file only in its first read,
// before or after the header of the block is built. All answers must be right. The damaged data is
// read once more and counted.
func TestEveryByteIsReadAgain(t *testing.T) {
	dir, metas := smallBlocks(t)
	want := startGateway(t, dir, gatewayOptions{}).ask(t)
	rnd := rand.New(rand.NewPCG(2, 5))
	names, sizes := blockFiles(t, dir, metas)
	for _, header := range []bool{false, true} {
		for _, name := range names {
			if !header && !strings.HasSuffix(name, "/index") {
				continue // building a header reads no chunks
			}
			t.Run(fmt.Sprintf("%s, header %v", name[20:], header), func(t *testing.T) {
				used := 0
				at := positions(rnd, sizes[name], 24)
				for _, off := range at {
					ok := t.Run(fmt.Sprint("byte ", off), func(t *testing.T) {
						lying := &lyingBucket{}
						opts := smallGateway()
						opts.wrap = func(b objstore.Bucket) objstore.Bucket {
							lying.Bucket = b
							return lying
						}
						g := startGateway(t, dir, opts)
						if header {
							if _, err := g.client.LabelNames(context.Background(),
								&storepb.LabelNamesRequest{End: 1 << 50}); err != nil {
								t.Fatal(err)
							}
						}
						lying.lie(name, int64(off), byte(1)<<rnd.IntN(8), 1)
						g.ask(t).compare(t, want, "")
						reads := lying.heal()
						mended, failed := g.corruptions(t)
						if failed != 0 || mended > 1 {
							t.Errorf("%v were mended and %v not", mended, failed)
						}
						limit := 1 + int(mended)
						if !header {
							limit++
						}
						if reads > limit {
							t.Errorf("the byte was read %d times, %v were mended", reads, mended)
						}
						used += int(mended)
					})
					if !ok {
						return
					}
				}
				if used == 0 {
					t.Errorf("only %d of %d bytes were mended", used, len(at))
				}
			})
		}
	}
}
