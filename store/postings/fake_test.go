package postings

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"larder/internal/bytecache"
	"larder/internal/faultstore"
	"larder/internal/pagecache"
	"larder/store/indexheader"
)

// testIndex is the index of a block in memory. Prometheus's own code has written it, and reads it
// to compare results.
type testIndex struct {
	testHeader
	index  []byte
	reader *index.Reader
	object pagecache.Object
	labels map[uint32]labels.Labels // by posting
}

// newTestIndex writes an index of format V2. The series must differ.
func newTestIndex(t testing.TB, series []labels.Labels) *testIndex {
	t.Helper()
	series = slices.Clone(series)
	slices.SortFunc(series, labels.Compare)
	name := filepath.Join(t.TempDir(), "index")
	w, err := index.NewWriter(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	symbols := map[string]struct{}{}
	for _, ls := range series {
		ls.Range(
			func(l labels.Label) { symbols[l.Name], symbols[l.Value] = struct{}{}, struct{}{} },
		)
	}
	sorted := make([]string, 0, len(symbols))
	for s := range symbols {
		sorted = append(sorted, s)
	}
	sort.Strings(sorted)
	for _, s := range sorted {
		if err := w.AddSymbol(s); err != nil {
			t.Fatal(err)
		}
	}
	for i, ls := range series {
		if err := w.AddSeries(storage.SeriesRef(i), ls); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return openTestIndex(t, b)
}

// openTestIndex opens an index of any format.
func openTestIndex(t testing.TB, b []byte) *testIndex {
	t.Helper()
	out := &testIndex{
		index:  b,
		object: pagecache.Object{Name: "BLOCK/index", Size: int64(len(b)), ID: 1 << 14},
		labels: map[uint32]labels.Labels{},
	}
	out.names = map[string][]testEntry{}
	var err error
	if out.reader, err = index.NewReader(indexBytes(b), index.DecodePostingsRaw); err != nil {
		t.Fatal(err)
	}
	toc, err := index.NewTOCFromByteSlice(indexBytes(b))
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	for _, off := range []uint64{
		toc.LabelIndices, toc.LabelIndicesTable, toc.PostingsTable, toc.Series,
	} {
		ends = append(ends, int64(off))
	}
	add := func(name, value []byte, off uint64, _ int) error {
		entry := testEntry{value: slices.Clone(value), list: indexheader.List{Off: int64(off)}}
		out.names[string(name)] = append(out.names[string(name)], entry)
		ends = append(ends, int64(off))
		return nil
	}
	err = index.ReadPostingsOffsetTable(indexBytes(b), toc.PostingsTable, add)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ends)
	for _, entries := range out.names {
		byValue := func(a, b testEntry) int { return bytes.Compare(a.value, b.value) }
		slices.SortFunc(entries, byValue)
		for i := range entries {
			l := &entries[i].list
			at, _ := slices.BinarySearch(ends, l.Off+1)
			l.End = ends[at]
		}
	}
	if all := out.names[""]; len(all) > 0 {
		out.all = all[0].list
	}
	delete(out.names, "")
	ps, err := out.reader.Postings(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	var builder labels.ScratchBuilder
	for ps.Next() {
		if err := out.reader.Series(ps.At(), &builder, nil); err != nil {
			t.Fatal(err)
		}
		out.labels[uint32(ps.At())] = builder.Labels()
	}
	if ps.Err() != nil {
		t.Fatal(ps.Err())
	}
	return out
}

// want returns the postings that Prometheus finds.
func (b *testIndex) want(t testing.TB, ms []*labels.Matcher) []uint32 {
	t.Helper()
	// PostingsForMatchers sorts its matchers.
	ps, err := tsdb.PostingsForMatchers(context.Background(), b.reader, slices.Clone(ms)...)
	if err != nil {
		t.Fatal(err)
	}
	out := []uint32{}
	for ps.Next() {
		out = append(out, uint32(ps.At()))
	}
	if ps.Err() != nil {
		t.Fatal(ps.Err())
	}
	return out
}

// matching returns the postings in refs whose series match all of ms.
func (b *testIndex) matching(refs []uint32, ms []*labels.Matcher) []uint32 {
	out := []uint32{}
	for _, ref := range refs {
		ok := true
		for _, m := range ms {
			ok = ok && m.Matches(b.labels[ref].Get(m.Name))
		}
		if ok {
			out = append(out, ref)
		}
	}
	return out
}

type indexBytes []byte

func (b indexBytes) Len() int                    { return len(b) }
func (b indexBytes) Range(start, end int) []byte { return b[start:end] }

type testEntry struct {
	value []byte
	list  indexheader.List
}

// testHeader is a header in memory that counts look-ups.
type testHeader struct {
	all     indexheader.List
	names   map[string][]testEntry
	looked  int // values looked up
	visited int // values streamed
	visit   func()
}

func (h *testHeader) AllPostings() indexheader.List { return h.all }
func (h *testHeader) ValueCount(name string) int    { return len(h.names[name]) }

func (h *testHeader) find(name, value string) int {
	return sort.Search(
		len(h.names[name]), func(i int) bool { return string(h.names[name][i].value) >= value },
	)
}

func (h *testHeader) Lists(
	ctx context.Context, name string, values []string, dst []indexheader.List,
) ([]indexheader.List, error) {
	h.looked += len(values)
	for i, v := range values {
		if i > 0 && values[i-1] >= v {
			return dst, fmt.Errorf("values %q are not ascending", values)
		}
		l := indexheader.List{}
		if at := h.find(name, v); at < len(h.names[name]) && string(h.names[name][at].value) == v {
			l = h.names[name][at].list
		}
		dst = append(dst, l)
	}
	return dst, ctx.Err()
}

func (h *testHeader) Values(
	ctx context.Context, name, from string, f func(value []byte, l indexheader.List) (bool, error),
) error {
	for _, e := range h.names[name][h.find(name, from):] {
		h.visited++
		if h.visit != nil {
			h.visit()
		}
		if more, err := f(e.value, e.list); err != nil || !more {
			return err
		}
	}
	return nil
}

// name returns the label and value of a list.
func (h *testHeader) name(l indexheader.List) (name, value string) {
	for name, entries := range h.names {
		for _, e := range entries {
			if e.list == l {
				return name, string(e.value)
			}
		}
	}
	return "", ""
}

// realHeader builds the header that the gateway would use.
func realHeader(t testing.TB, b *testIndex) *indexheader.Header {
	t.Helper()
	m, err := indexheader.New(indexheader.Options{Bucket: newTestBucket(b)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	h, release, err := m.Acquire(
		context.Background(),
		indexheader.Source{ID: ulid.ULID{1}, IndexObject: b.object.Name, IndexSize: b.object.Size},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return h
}

// testPages reads the index of a block through a real reader of pages, and records what it is asked
// for.
type testPages struct {
	*pagecache.Reader
	bucket    *testBucket
	fetches   [][]pagecache.Span
	refetches []pagecache.Span
}

func newTestPages(t testing.TB, b *testIndex) *testPages {
	t.Helper()
	bucket := newTestBucket(b)
	r := pagecache.New(
		bucket, &pageMap{pages: map[uint64][]byte{}}, pagecache.Options{PageSize: 512},
	)
	t.Cleanup(r.Close)
	return &testPages{Reader: r, bucket: bucket}
}

func (p *testPages) Fetch(
	ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account,
) (*pagecache.Pages, error) {
	byOff := func(a, b pagecache.Span) int { return cmp.Compare(a.Off, b.Off) }
	if !slices.IsSortedFunc(spans, byOff) {
		return nil, errors.New("spans are not sorted")
	}
	p.fetches = append(p.fetches, spans)
	return p.Reader.Fetch(ctx, obj, spans, acct)
}

func (p *testPages) Refetch(
	ctx context.Context, obj pagecache.Object, span pagecache.Span, acct *pagecache.Account,
) (*pagecache.Pages, error) {
	p.refetches = append(p.refetches, span)
	return p.Reader.Refetch(ctx, obj, span, acct)
}

var errBucket = errors.New("bucket is away")

// testBucket is a bucket with the index of a block. It damages bytes, or fails, as it is told.
type testBucket struct {
	*faultstore.Bucket
	index []byte
	fail  bool

	mu    sync.Mutex
	flips []flip
}

// flip damages the byte at off in the next times reads that include it.
type flip struct {
	off   int64
	times int
}

func newTestBucket(b *testIndex) *testBucket {
	objects := map[string][]byte{b.object.Name: b.index}
	out := &testBucket{
		Bucket: faultstore.Wrap(faultstore.InMemory(objects), nil), index: b.index,
	}
	out.Script(out.read)
	return out
}

func (b *testBucket) read(
	_ context.Context, c faultstore.Call, _ int,
) (io.ReadCloser, error, bool) {
	if b.fail {
		return nil, errBucket, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	body := slices.Clone(b.index[c.Off : c.Off+c.Length])
	for i := range b.flips {
		if f := &b.flips[i]; f.times > 0 && f.off >= c.Off && f.off < c.Off+c.Length {
			f.times--
			body[f.off-c.Off] ^= 4
		}
	}
	return io.NopCloser(bytes.NewReader(body)), nil, true
}

// reads returns how many ranges were read.
func (b *testBucket) reads() int { return len(b.Calls(objstore.OpGetRange)) }

// pageMap is a cache that keeps all pages.
type pageMap struct {
	mu    sync.Mutex
	pages map[uint64][]byte
}

func (c *pageMap) Get(key uint64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.pages[key]
	return b, ok
}

func (c *pageMap) Set(key bytecache.Key, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages[key.Local] = value
}

func (c *pageMap) Del(key bytecache.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pages, key.Local)
}

func (c *pageMap) Fetch(context.Context, []bytecache.Key, [][]byte) (none bytecache.Found) {
	return none
}

func (c *pageMap) Remote() bool { return false }
