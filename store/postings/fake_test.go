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

	"larder/internal/pagecache"
	"larder/store/indexheader"

	"larder/internal/bytecache"
)

// postingsBlock is the index of a block in memory, written and also read by Prometheus's own code.
type postingsBlock struct {
	postingsHeader
	index  []byte
	reader *index.Reader
	object pagecache.Object
	labels map[uint32]labels.Labels // by posting
}

// newPostingsBlock writes series, which must differ, into an index of format V2.
func newPostingsBlock(t testing.TB, series []labels.Labels) *postingsBlock {
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
	return openPostingsBlock(t, b)
}

// openPostingsBlock reads an index of any format.
func openPostingsBlock(t testing.TB, b []byte) *postingsBlock {
	t.Helper()
	out := &postingsBlock{
		index:  b,
		object: pagecache.Object{Name: "BLOCK/index", Size: int64(len(b)), ID: 1 << 14},
		labels: map[uint32]labels.Labels{},
	}
	out.names = map[string][]postingsEntry{}
	var err error
	if out.reader, err = index.NewReader(postingsBytes(b), index.DecodePostingsRaw); err != nil {
		t.Fatal(err)
	}
	toc, err := index.NewTOCFromByteSlice(postingsBytes(b))
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	for _, off := range []uint64{toc.LabelIndices, toc.LabelIndicesTable, toc.PostingsTable, toc.Series} {
		ends = append(ends, int64(off))
	}
	err = index.ReadPostingsOffsetTable(
		postingsBytes(b),
		toc.PostingsTable,
		func(name, value []byte, off uint64, _ int) error {
			out.names[string(name)] = append(
				out.names[string(name)],
				postingsEntry{value: slices.Clone(value), list: indexheader.List{Off: int64(off)}},
			)
			ends = append(ends, int64(off))
			return nil
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ends)
	for _, entries := range out.names {
		slices.SortFunc(
			entries, func(a, b postingsEntry) int { return bytes.Compare(a.value, b.value) },
		)
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

// want returns what Prometheus answers.
func (b *postingsBlock) want(t testing.TB, ms []*labels.Matcher) []uint32 {
	t.Helper()
	// It orders the matchers that it is given.
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

// matching returns those of refs whose series match all of ms.
func (b *postingsBlock) matching(refs []uint32, ms []*labels.Matcher) []uint32 {
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

type postingsBytes []byte

func (b postingsBytes) Len() int                    { return len(b) }
func (b postingsBytes) Range(start, end int) []byte { return b[start:end] }

type postingsEntry struct {
	value []byte
	list  indexheader.List
}

// postingsHeader is a header of plain maps that counts what it is asked.
type postingsHeader struct {
	all     indexheader.List
	names   map[string][]postingsEntry
	asked   int // values looked up
	visited int // values streamed
	visit   func()
}

func (h *postingsHeader) AllPostings() indexheader.List { return h.all }
func (h *postingsHeader) ValueCount(name string) int    { return len(h.names[name]) }

func (h *postingsHeader) find(name, value string) int {
	return sort.Search(
		len(h.names[name]), func(i int) bool { return string(h.names[name][i].value) >= value },
	)
}

func (h *postingsHeader) Lists(
	ctx context.Context, name string, values []string, dst []indexheader.List,
) ([]indexheader.List, error) {
	h.asked += len(values)
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

func (h *postingsHeader) Values(
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
func (h *postingsHeader) name(l indexheader.List) (name, value string) {
	for name, entries := range h.names {
		for _, e := range entries {
			if e.list == l {
				return name, string(e.value)
			}
		}
	}
	return "", ""
}

// postingsRealHeader builds the header that the gateway would use.
func postingsRealHeader(t testing.TB, b *postingsBlock) *indexheader.Header {
	t.Helper()
	m, err := indexheader.New(
		indexheader.Options{Bucket: &postingsBucket{data: b.index, name: b.object.Name}},
	)
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

// postingsPages reads the index of a block through real pages from a bucket that counts, fails and
// flips bits.
type postingsPages struct {
	*pagecache.Reader
	bucket    *postingsBucket
	fetches   [][]pagecache.Span
	refetches []pagecache.Span
}

func newPostingsPages(t testing.TB, b *postingsBlock) *postingsPages {
	t.Helper()
	bucket := &postingsBucket{data: b.index, name: b.object.Name}
	r := pagecache.New(
		bucket, &postingsCache{pages: map[uint64][]byte{}}, pagecache.Options{PageSize: 512},
	)
	t.Cleanup(r.Close)
	return &postingsPages{Reader: r, bucket: bucket}
}

func (p *postingsPages) Fetch(
	ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account,
) (*pagecache.Pages, error) {
	if !slices.IsSortedFunc(
		spans, func(a, b pagecache.Span) int { return cmp.Compare(a.Off, b.Off) },
	) {
		return nil, errors.New("spans are not sorted")
	}
	p.fetches = append(p.fetches, spans)
	return p.Reader.Fetch(ctx, obj, spans, acct)
}

func (p *postingsPages) Refetch(
	ctx context.Context, obj pagecache.Object, span pagecache.Span, acct *pagecache.Account,
) (*pagecache.Pages, error) {
	p.refetches = append(p.refetches, span)
	return p.Reader.Refetch(ctx, obj, span, acct)
}

var errPostingsBucket = errors.New("the bucket is on fire")

type postingsBucket struct {
	mu    sync.Mutex
	name  string
	data  []byte
	flips []postingsFlip
	fail  bool
	reads int
}

// postingsFlip damages the byte at off in the next times reads of it.
type postingsFlip struct {
	off   int64
	times int
}

func (b *postingsBucket) GetRange(
	_ context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads++
	if b.fail {
		return nil, errPostingsBucket
	}
	if name != b.name || off < 0 || off+length > int64(len(b.data)) {
		return nil, fmt.Errorf("read of %s [%d, %d)", name, off, off+length)
	}
	out := slices.Clone(b.data[off : off+length])
	for i := range b.flips {
		if f := &b.flips[i]; f.times > 0 && f.off >= off && f.off < off+length {
			f.times--
			out[f.off-off] ^= 4
		}
	}
	return io.NopCloser(bytes.NewReader(out)), nil
}

func (b *postingsBucket) Attributes(context.Context, string) (objstore.ObjectAttributes, error) {
	return objstore.ObjectAttributes{Size: int64(len(b.data))}, nil
}

func (b *postingsBucket) IsObjNotFoundErr(error) bool  { return false }
func (b *postingsBucket) IsAccessDeniedErr(error) bool { return false }

type postingsCache struct {
	mu    sync.Mutex
	pages map[uint64][]byte
}

func (c *postingsCache) Get(key uint64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.pages[key]
	return b, ok
}

func (c *postingsCache) Set(key bytecache.Key, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages[key.Local] = value
}

func (c *postingsCache) Del(key bytecache.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pages, key.Local)
}

func (c *postingsCache) Fetch(context.Context, []bytecache.Key, [][]byte) {}

func (c *postingsCache) Remote() bool { return false }
