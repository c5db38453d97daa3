package indexcache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"

	"larder/internal/pagecache"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bucket serves one index, whatever it is called, and counts reads.
type bucket struct {
	data  []byte
	name  string // of the last read
	reads int
}

func (b *bucket) GetRange(
	_ context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	b.reads++
	b.name = name
	return io.NopCloser(bytes.NewReader(b.data[off : off+length])), nil
}

func (b *bucket) IsObjNotFoundErr(error) bool  { return false }
func (b *bucket) IsAccessDeniedErr(error) bool { return false }

func TestIndexIsKept(t *testing.T) {
	id := ulid.MustParse("01HV4Y5E3GJ6XQ5Z2K4M9N8P7R")
	f := func(name string, opts Options, number uint32, wantReads int) {
		t.Helper()
		b := &bucket{data: bytes.Repeat([]byte("0123456789"), 5000)}
		opts.Pages.Registerer = prometheus.NewRegistry()
		c := New(b, opts)
		defer c.Close()
		obj := c.Object(number, id, 7, int64(len(b.data)))
		var acct pagecache.Account
		for range 3 {
			p, err := c.Fetch(t.Context(), obj, []pagecache.Span{{Off: 20_000, End: 20_010}}, &acct)
			if err != nil {
				t.Fatal(err)
			}
			if got, _, ok := p.Bytes(20_000, 10, nil); !ok || string(got) != "0123456789" {
				t.Errorf("%s: got %q", name, got)
			}
		}
		if b.reads != wantReads || b.name != "01HV4Y5E3GJ6XQ5Z2K4M9N8P7R/index" {
			t.Errorf("%s: %d reads, want %d; the last of %s", name, b.reads, wantReads, b.name)
		}
		if _, err := c.Refetch(t.Context(), obj, pagecache.Span{Off: 20_000, End: 20_010}, &acct); err != nil {
			t.Error(err)
		}
		if b.reads != wantReads+1 {
			t.Errorf("%s: Refetch did not read", name)
		}
	}
	f("kept", Options{}, 1, 1)
	f(
		"pages of 1 KiB", Options{Pages: pagecache.Options{PageSize: 1 << 10}, MaxBytes: 4 << 20},
		1, 1,
	)
	f("switched off", Options{MaxBytes: -1}, 1, 3)
	f("none kept, whatever the size", Options{MaxBytes: 4 << 20, NoPages: true}, 1, 3)
	f("a block number that does not fit", Options{}, 1<<24, 3)
}

// TestBlocksAreApart: the same page of two blocks is two entries.
func TestBlocksAreApart(t *testing.T) {
	b := &bucket{data: make([]byte, 10_000)}
	c := New(b, Options{})
	span := []pagecache.Span{{Off: 0, End: 1}}
	for number := range uint32(3) {
		if _, err := c.Fetch(t.Context(), c.Object(number, ulid.ULID{byte(number)}, 7, 10_000), span, nil); err != nil {
			t.Error(err)
		}
	}
	if st := c.Stats(); b.reads != 3 || st.Items != 3 || st.MaxBytes != DefaultMaxBytes {
		t.Errorf("%d reads, %+v", b.reads, st)
	}
	c.Close()
	if _, err := c.Fetch(t.Context(), c.Object(0, ulid.ULID{}, 0, 10_000), span, nil); !errors.Is(
		err, pagecache.ErrClosed,
	) {
		t.Errorf("after Close: %v", err)
	}
}

// TestEvictedIsAddedAndNotHeld: after a burst of which little is kept, what was added under
// Thanos's names and not evicted is what is held, and what never got in is neither: dashboards
// chart one against the other.
func TestEvictedIsAddedAndNotHeld(t *testing.T) {
	const size, page, step = 8 << 20, 1 << 10, 64 << 10
	reg := prometheus.NewRegistry()
	b := &bucket{data: make([]byte, size)}
	c := New(
		b,
		Options{
			MaxBytes:      1 << 20,
			PostingsBytes: 1 << 20,
			Pages:         pagecache.Options{PageSize: page, Registerer: reg},
		},
	)
	defer c.Close()
	obj := c.Object(1, ulid.ULID{1}, 7, size)
	for off := int64(0); off < size; off += step {
		for range 1 + off/step%3 { // some are asked for again
			if _, err := c.Fetch(t.Context(), obj, []pagecache.Span{{Off: off, End: off + step}}, nil); err != nil {
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
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "item_type" {
					got[strings.TrimPrefix(family.GetName(), "thanos_store_index_cache_")+" "+l.GetValue()] = m.GetCounter().
						GetValue() +
						m.GetGauge().
							GetValue()
				}
			}
		}
	}
	f := func(item string, least, overflowed float64) {
		t.Helper()
		added, evicted, items := got["items_added_total "+item], got["items_evicted_total "+item], got["items "+item]
		if added-evicted != items || added < least || items == 0 || items > least/4 {
			t.Errorf("%s: %v were added, %v evicted, %v are held", item, added, evicted, items)
		}
		if o := got["items_overflowed_total "+item]; o != overflowed {
			t.Errorf("%s: %v overflowed, want %v", item, o, overflowed)
		}
	}
	f("Pages", size/page, 0)
	f("ExpandedPostings", postings, large)
}

// TestThanosNames: what the cache holds is exported under the names of Thanos's index cache, until
// it is closed.
func TestThanosNames(t *testing.T) {
	id := ulid.MustParse("01HV4Y5E3GJ6XQ5Z2K4M9N8P7R")
	reg := prometheus.NewRegistry()
	c := New(
		&bucket{data: make([]byte, 100_000)},
		Options{
			MaxBytes:      4 << 20,
			PostingsBytes: 1 << 20,
			Pages:         pagecache.Options{Registerer: reg},
		},
	)
	if _, err := c.Fetch(t.Context(), c.Object(1, id, 7, 100_000), []pagecache.Span{{Off: 0, End: 3 * 8 << 10}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP thanos_store_index_cache_items Values held.
# TYPE thanos_store_index_cache_items gauge
thanos_store_index_cache_items{item_type="ExpandedPostings"} 0
thanos_store_index_cache_items{item_type="Pages"} 3
# HELP thanos_store_index_cache_items_size_bytes Bytes of the values held, without bookkeeping.
# TYPE thanos_store_index_cache_items_size_bytes gauge
thanos_store_index_cache_items_size_bytes{item_type="ExpandedPostings"} 0
thanos_store_index_cache_items_size_bytes{item_type="Pages"} 24576
# HELP thanos_store_index_cache_max_item_size_bytes Bytes of a whole index page, the largest that there is.
# TYPE thanos_store_index_cache_max_item_size_bytes gauge
thanos_store_index_cache_max_item_size_bytes 8192
# HELP thanos_store_index_cache_max_size_bytes Bytes that pages and expanded postings may take.
# TYPE thanos_store_index_cache_max_size_bytes gauge
thanos_store_index_cache_max_size_bytes 5.24288e+06
`), "thanos_store_index_cache_items", "thanos_store_index_cache_items_size_bytes", "thanos_store_index_cache_max_item_size_bytes",
		"thanos_store_index_cache_max_size_bytes"); err != nil {
		t.Error(err)
	}
	c.Close()
	// The count of panics is the process's, and stays.
	if got, err := reg.Gather(); err != nil || len(got) != 1 ||
		got[0].GetName() != "larder_panics_total" {
		t.Errorf("after Close: %v, %v", got, err)
	}
}
