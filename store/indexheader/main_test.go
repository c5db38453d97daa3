package indexheader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"larder/internal/faultstore"
	"larder/internal/tsdbfmt"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDirEnv); dir != "" {
		buildUntilKilled(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

var errDenied = errors.New("access denied")

// get is one GetRange of a testBucket.
type get struct {
	Name     string
	Off, Len int64
}

// testBucket is a bucket in memory that records its calls and fails as told.
type testBucket struct {
	*faultstore.Bucket
	mem *objstore.InMemBucket
}

func newBucket() *testBucket {
	mem := objstore.NewInMemBucket()
	return &testBucket{Bucket: faultstore.Wrap(mem, nil), mem: mem}
}

func body(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }

// IsObjNotFoundErr recognises its error only unwrapped, same as the clients of S3 and FILESYSTEM.
func (b *testBucket) IsObjNotFoundErr(err error) bool {
	return errors.Unwrap(err) == nil && b.Bucket.IsObjNotFoundErr(err)
}

// IsAccessDeniedErr recognises its error only unwrapped.
func (b *testBucket) IsAccessDeniedErr(err error) bool { return err == errDenied }

// setFault sets a function that is called before every read, with the number of reads before it. It
// may answer the read in the bucket's place, or block. nil removes it.
func (b *testBucket) setFault(
	f func(ctx context.Context, g get, call int) (io.ReadCloser, error, bool),
) {
	if f == nil {
		b.Script(nil)
		return
	}
	b.Script(func(ctx context.Context, c faultstore.Call, n int) (io.ReadCloser, error, bool) {
		return f(ctx, get{c.Name, c.Off, c.Length}, n)
	})
}

// count returns the number of reads since the last call of reads.
func (b *testBucket) count() int { return len(b.Calls(objstore.OpGetRange)) }

// attrs returns the number of requests for attributes since the last call of reads.
func (b *testBucket) attrs() int { return len(b.Calls(objstore.OpAttributes)) }

// reads returns the reads since the last call.
func (b *testBucket) reads() []get {
	var reads []get
	for _, c := range b.Calls(objstore.OpGetRange) {
		reads = append(reads, get{c.Name, c.Off, c.Length})
	}
	b.Forget()
	return reads
}

// set adds an object, or replaces it.
func (b *testBucket) set(name string, data []byte) {
	// It fails only if reading fails.
	_ = b.mem.Upload(context.Background(), name, bytes.NewReader(data))
}

// remove removes an object.
func (b *testBucket) remove(name string) { _ = b.mem.Delete(context.Background(), name) }

// add adds an index to the bucket and returns its source.
func (b *testBucket) add(n byte, idx []byte) Source {
	id := ulid.ULID{1, 2, 3, 15: n}
	name := id.String() + "/index"
	b.set(name, idx)
	return Source{
		ID: id, Content: 7, IndexObject: name, IndexSize: int64(len(idx)), MaxTime: int64(n),
	}
}

// writeIndex writes an index of the series with the writer of Prometheus.
func writeIndex(t testing.TB, series []labels.Labels) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "index")
	w, err := index.NewWriter(context.Background(), file)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, s := range series {
		s.Range(func(l labels.Label) { set[l.Name], set[l.Value] = true, true })
	}
	symbols := make([]string, 0, len(set))
	for s := range set {
		symbols = append(symbols, s)
	}
	sort.Strings(symbols)
	for _, s := range symbols {
		if err := w.AddSymbol(s); err != nil {
			t.Fatal(err)
		}
	}
	series = slices.Clone(series)
	slices.SortFunc(series, labels.Compare)
	series = slices.CompactFunc(series, labels.Equal)
	for i, s := range series {
		if err := w.AddSeries(promstorage.SeriesRef(i), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// asV3 converts an index from format V2 to V3, which differs in the version byte.
func asV3(b []byte) []byte {
	b = bytes.Clone(b)
	b[4] = 3
	return b
}

// asV1 converts the parts of an index that headers use from format V2 to V1: the version byte, and
// the offset table, which is shuffled.
func asV1(t testing.TB, b []byte, rnd *rand.Rand) []byte {
	t.Helper()
	b = bytes.Clone(b)
	b[4] = 1
	toc, err := tsdbfmt.ParseTOC(b, b, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	sec := b[toc.PostingsTable:]
	n := int(binary.BigEndian.Uint32(sec))
	var entries [][]byte
	rest := sec[8 : 4+n]
	for len(rest) > 0 {
		e := rest
		rest = rest[1:]
		for range 2 {
			k, w := binary.Uvarint(rest)
			rest = rest[w+int(k):]
		}
		_, w := binary.Uvarint(rest)
		rest = rest[w:]
		entries = append(entries, e[:len(e)-len(rest)])
	}
	rnd.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	copy(sec[8:], bytes.Join(entries, nil))
	binary.BigEndian.PutUint32(sec[4+n:], crc32.Checksum(sec[4:4+n], castagnoli))
	return b
}

// randomSeries returns series with values of all kinds: empty, UTF-8, sharing prefixes, longer than
// a block.
func randomSeries(rnd *rand.Rand) []labels.Labels {
	names := []string{
		"__name__", "a", "b", "instance", "job", "le", "namespace/pod", "ñame", "zone",
	}
	values := func(k int) string {
		switch rnd.IntN(12) {
		case 0:
			return ""
		case 1:
			return strings.Repeat("ü", 1+rnd.IntN(5))
		case 2:
			return strings.Repeat("prefix-", 1+rnd.IntN(40)) + string(rune('a'+rnd.IntN(4)))
		case 3:
			if rnd.IntN(10) == 0 {
				return strings.Repeat("L", maxBlock-3+rnd.IntN(6)) + string(rune('a'+rnd.IntN(3)))
			}
			return string([]byte{byte(rnd.IntN(256)), byte(rnd.IntN(256))})
		default:
			return fmt.Sprintf("value-%c-%d%d%d",
				rune('a'+k), rnd.IntN(10), rnd.IntN(10), rnd.IntN(10))
		}
	}
	var out []labels.Labels
	b := labels.NewScratchBuilder(8)
	for range rnd.IntN(3000) {
		b.Reset()
		for k, n := range names {
			if rnd.IntN(3) > 0 {
				b.Add(n, values(k))
			}
		}
		b.Sort()
		if l := b.Labels(); l.Len() > 0 {
			out = append(out, l)
		}
	}
	return out
}

// rawReader returns Prometheus's reader of an index in memory.
func rawReader(t testing.TB, b []byte) *index.Reader {
	t.Helper()
	r, err := index.NewReader(rawBytes(b), index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

type rawBytes []byte

func (b rawBytes) Len() int                    { return len(b) }
func (b rawBytes) Range(start, end int) []byte { return b[start:end] }

// newManager returns a manager that is closed when the test ends.
func newManager(t testing.TB, opts Options) *Manager {
	t.Helper()
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// acquire returns a header that is released when the test ends.
func acquire(t testing.TB, m *Manager, src Source) *Header {
	t.Helper()
	h, release, err := m.Acquire(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return h
}
