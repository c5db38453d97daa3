package indexcache

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
	"larder/internal/faultstore"
	"larder/internal/pagecache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// indexes returns a bucket with an index of each block.
func indexes(data []byte, blocks ...ulid.ULID) *faultstore.Bucket {
	objects := map[string][]byte{}
	for _, id := range blocks {
		objects[id.String()+"/index"] = data
	}
	return faultstore.Wrap(faultstore.InMemory(objects), nil)
}

// TestDiskHasThePagesOfTheReader checks that a cache opens its disk for pages of its own size, the
// default included. A disk for smaller pages would refuse all of them.
func TestDiskHasThePagesOfTheReader(t *testing.T) {
	f := func(pageSize int, want int64) {
		t.Helper()
		var got int64
		c := New(indexes(nil), Options{
			Pages: pagecache.Options{PageSize: pageSize},
			Disk:  func(pageBytes int64) bytecache.Disk { got = pageBytes; return nil },
		})
		defer c.Close()
		if got != want || int64(c.PageSize()) != want {
			t.Errorf("%d bytes a page on the disk, %d in memory, want %d", got, c.PageSize(), want)
		}
	}
	f(0, DefaultPageSize)
	f(64<<10, 64<<10)
	f(5000, 8<<10)
}

func TestIndexIsKept(t *testing.T) {
	id := ulid.MustParse("01HV4Y5E3GJ6XQ5Z2K4M9N8P7R")
	f := func(name string, opts Options, number uint32, wantReads int) {
		t.Helper()
		data := bytes.Repeat([]byte("0123456789"), 5000)
		b := indexes(data, id)
		opts.Pages.Registerer = prometheus.NewRegistry()
		c := New(b, opts)
		defer c.Close()
		obj := c.Object(number, id, 7, int64(len(data)))
		span := pagecache.Span{Off: 20_000, End: 20_010}
		var acct pagecache.Account
		for range 3 {
			p, err := c.Fetch(t.Context(), obj, []pagecache.Span{span}, &acct)
			if err != nil {
				t.Fatal(err)
			}
			if got, _, ok := p.Bytes(20_000, 10, nil); !ok || string(got) != "0123456789" {
				t.Errorf("%s: got %q", name, got)
			}
		}
		if n := len(b.Calls(objstore.OpGetRange)); n != wantReads {
			t.Errorf("%s: %d reads, want %d", name, n, wantReads)
		}
		if _, err := c.Refetch(t.Context(), obj, span, &acct); err != nil {
			t.Error(err)
		}
		if n := len(b.Calls(objstore.OpGetRange)); n != wantReads+1 {
			t.Errorf("%s: %d reads after Refetch, want %d", name, n, wantReads+1)
		}
	}
	f("kept", Options{}, 1, 1)
	small := pagecache.Options{PageSize: 1 << 10}
	f("pages of 1 KiB", Options{Pages: small, MaxBytes: 4 << 20}, 1, 1)
	f("switched off", Options{MaxBytes: -1}, 1, 3)
	f("none kept, whatever the size", Options{MaxBytes: 4 << 20, NoPages: true}, 1, 3)
	f("a block number that does not fit", Options{}, 1<<24, 3)
}

// TestBlocksAreApart checks that the same page of two blocks has two entries.
func TestBlocksAreApart(t *testing.T) {
	b := indexes(make([]byte, 10_000), ulid.ULID{0}, ulid.ULID{1}, ulid.ULID{2})
	c := New(b, Options{})
	span := []pagecache.Span{{Off: 0, End: 1}}
	for number := range uint32(3) {
		obj := c.Object(number, ulid.ULID{byte(number)}, 7, 10_000)
		if _, err := c.Fetch(t.Context(), obj, span, nil); err != nil {
			t.Error(err)
		}
	}
	st, reads := c.Stats(), len(b.Calls(objstore.OpGetRange))
	if reads != 3 || st.Items != 3 || st.MaxBytes != DefaultMaxBytes {
		t.Errorf("%d reads, %+v; want 3 reads and 3 items", reads, st)
	}
	c.Close()
	_, err := c.Fetch(t.Context(), c.Object(0, ulid.ULID{}, 0, 10_000), span, nil)
	if !errors.Is(err, pagecache.ErrClosed) {
		t.Errorf("after Close: got %v, want %v", err, pagecache.ErrClosed)
	}
}

// TestItemsAreAddedLessEvicted checks Thanos's metrics after a burst of which little is kept. Items
// are those added less those evicted, because dashboards compare them. Items that were refused
// count as neither.
func TestItemsAreAddedLessEvicted(t *testing.T) {
	const size, page, step = 8 << 20, 1 << 10, 64 << 10
	reg := prometheus.NewRegistry()
	c := New(indexes(make([]byte, size), ulid.ULID{1}), Options{
		MaxBytes:      1 << 20,
		PostingsBytes: 1 << 20,
		Pages:         pagecache.Options{PageSize: page, Registerer: reg},
	})
	defer c.Close()
	obj := c.Object(1, ulid.ULID{1}, 7, size)
	for off := int64(0); off < size; off += step {
		spans := []pagecache.Span{{Off: off, End: off + step}}
		for range 1 + off/step%3 { // some are requested again
			if _, err := c.Fetch(t.Context(), obj, spans, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	const postings, large = 5000, 10
	for n := range postings + large {
		key := PostingsKey(ulid.ULID{1}, 7, 0, page, []byte(strconv.Itoa(n)))
		v := make([]byte, 1000)
		if n >= postings {
			v = make([]byte, 1<<20)
		}
		c.Postings().Set(key, v)
	}
	got := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		name := strings.TrimPrefix(family.GetName(), "thanos_store_index_cache_")
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "item_type" {
					value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
					got[name+" "+l.GetValue()] = value
				}
			}
		}
	}
	f := func(item string, least, overflowed float64) {
		t.Helper()
		added, evicted := got["items_added_total "+item], got["items_evicted_total "+item]
		items := got["items "+item]
		if added-evicted != items || added < least || items == 0 || items > least/4 {
			t.Errorf("%s: %v added, %v evicted, %v items", item, added, evicted, items)
		}
		if o := got["items_overflowed_total "+item]; o != overflowed {
			t.Errorf("%s: %v overflowed, want %v", item, o, overflowed)
		}
	}
	f("Pages", size/page, 0)
	f("ExpandedPostings", postings, large)
}

// TestThanosNames checks the metrics under the names of Thanos's index cache, and that Close
// unregisters them.
func TestThanosNames(t *testing.T) {
	id := ulid.MustParse("01HV4Y5E3GJ6XQ5Z2K4M9N8P7R")
	reg := prometheus.NewRegistry()
	c := New(indexes(make([]byte, 100_000), id), Options{
		MaxBytes:      4 << 20,
		PostingsBytes: 1 << 20,
		Pages:         pagecache.Options{Registerer: reg},
	})
	spans := []pagecache.Span{{Off: 0, End: 3 * 16 << 10}}
	if _, err := c.Fetch(t.Context(), c.Object(1, id, 7, 100_000), spans, nil); err != nil {
		t.Fatal(err)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP thanos_store_index_cache_items Values in the cache.
# TYPE thanos_store_index_cache_items gauge
thanos_store_index_cache_items{item_type="ExpandedPostings"} 0
thanos_store_index_cache_items{item_type="Pages"} 3
# HELP thanos_store_index_cache_items_size_bytes Bytes of the values in the cache, without bookkeeping.
# TYPE thanos_store_index_cache_items_size_bytes gauge
thanos_store_index_cache_items_size_bytes{item_type="ExpandedPostings"} 0
thanos_store_index_cache_items_size_bytes{item_type="Pages"} 49152
# HELP thanos_store_index_cache_max_item_size_bytes Largest size of an index page in bytes.
# TYPE thanos_store_index_cache_max_item_size_bytes gauge
thanos_store_index_cache_max_item_size_bytes 16384
# HELP thanos_store_index_cache_max_size_bytes Limit of the bytes of pages and expanded postings.
# TYPE thanos_store_index_cache_max_size_bytes gauge
thanos_store_index_cache_max_size_bytes 5.24288e+06
`), "thanos_store_index_cache_items", "thanos_store_index_cache_items_size_bytes",
		"thanos_store_index_cache_max_item_size_bytes",
		"thanos_store_index_cache_max_size_bytes"); err != nil {
		t.Error(err)
	}
	c.Close()
	// The counter of panics belongs to the process, and stays.
	if got, err := reg.Gather(); err != nil || len(got) != 1 ||
		got[0].GetName() != "larder_panics_total" {
		t.Errorf("after Close: %v, %v", got, err)
	}
}

// TestPostingsAreCountedByTier: postings that another request has put into memory, after this one
// missed them there, do not count as found in memcached.
func TestPostingsAreCountedByTier(t *testing.T) {
	p := newPostings(bytecache.Options{MaxBytes: 1 << 20}, bytecachetest.NewRemote())
	defer p.close()
	key := bytecache.Key{Local: 1, ID: bytecache.ID{1}}
	if _, ok := p.Get(key); ok {
		t.Fatal("found before it was set")
	}
	p.Set(key, append(AppendID(nil, key), 7))
	if v, ok := p.Fetch(t.Context(), key); !ok || string(v) != "\x07" {
		t.Fatalf("got %x, %v", v, ok)
	}
	if memory, memcached := p.memoryHits.Load(), p.remoteHits.Load(); memory != 1 ||
		memcached != 0 {
		t.Errorf("%d found in memory, %d in memcached", memory, memcached)
	}
}
