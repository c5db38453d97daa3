package chunkcache

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"larder/internal/bytecache"
	"larder/internal/faultstore"
	"larder/internal/pagecache"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bucket returns a bucket with objects of 4 MiB that repeat their name.
func bucket(names ...string) *faultstore.Bucket {
	objects := map[string][]byte{}
	for _, name := range names {
		objects[name] = []byte(strings.Repeat(name, 4<<20/len(name)+1)[:4<<20])
	}
	return faultstore.Wrap(faultstore.InMemory(objects), nil)
}

// TestDiskHasThePagesOfTheReader checks that a cache opens its disk for pages of its own size, the
// default included. A disk for smaller pages would refuse all of them.
func TestDiskHasThePagesOfTheReader(t *testing.T) {
	f := func(pageSize int, want int64) {
		t.Helper()
		var got int64
		c := New(bucket(), Options{
			Pages: pagecache.Options{PageSize: pageSize},
			Disk:  func(pageBytes int64) bytecache.Disk { got = pageBytes; return nil },
		})
		defer c.Close()
		if got != want || int64(c.PageSize()) != want {
			t.Errorf("%d bytes a page on the disk, %d in memory, want %d", got, c.PageSize(), want)
		}
	}
	f(0, 8<<10)
	f(64<<10, 64<<10)
	f(5000, 8<<10)
}

func TestChunkFilesAreKept(t *testing.T) {
	id := ulid.MustParse("01HV4Y5E3GJ6XQ5Z2K4M9N8P7R")
	f := func(name string, opts Options, number uint32, file, wantReads int) {
		t.Helper()
		object := fmt.Sprintf("%s/chunks/%06d", id, file)
		b := bucket(object, "other")
		opts.Pages.Registerer = prometheus.NewRegistry()
		c := New(b, opts)
		defer c.Close()
		obj := c.Object(number, id, 7, file, object, 100_000)
		// Its pages have the same numbers.
		other := c.Object(number, id, 7, file+1, "other", 100_000)
		for range 3 {
			p, err := c.Fetch(t.Context(), obj, []pagecache.Span{{Off: 0, End: 39}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, _, ok := p.Bytes(0, len(object), nil); !ok || string(got) != object {
				t.Errorf("%s: got %q", name, got)
			}
		}
		if reads := b.Calls(); len(reads) != wantReads || reads[0].Name != object {
			t.Errorf("%s: reads %v, want %d", name, reads, wantReads)
		}
		if _, err := c.Fetch(t.Context(), other, []pagecache.Span{{Off: 0, End: 1}},
			nil); err != nil {
			t.Error(err)
		}
		if _, err := c.Refetch(t.Context(), obj, pagecache.Span{Off: 0, End: 1}, nil); err != nil {
			t.Error(err)
		}
		if reads := b.Calls(); len(reads) != wantReads+2 {
			t.Errorf("%s: reads %v, want %d", name, reads, wantReads+2)
		}
	}
	f("kept", Options{}, 1, 1, 1)
	f(
		"pages of 4 KiB", Options{Pages: pagecache.Options{PageSize: 4 << 10}, MaxBytes: 4 << 20},
		1<<24-1, 1<<14-1, 1,
	)
	f("switched off", Options{MaxBytes: -1}, 1, 1, 3)
	f("a block number that does not fit", Options{}, 1<<24, 1, 3)
	f("a file number that does not fit", Options{}, 1, 1<<14, 3)
	f("a file number that is the index's", Options{}, 1, 0, 3)
}

// TestLargePagesAreKept: a cache keeps pages of any size that fits its allowance.
func TestLargePagesAreKept(t *testing.T) {
	f := func(maxBytes int64, pageSize int) {
		t.Helper()
		b := bucket("chunks")
		c := New(b, Options{MaxBytes: maxBytes, Pages: pagecache.Options{PageSize: pageSize}})
		defer c.Close()
		obj := c.Object(1, ulid.ULID{1}, 7, 1, "chunks", 4<<20)
		for range 5 {
			if _, err := c.Fetch(t.Context(), obj, []pagecache.Span{{Off: 0, End: 10}},
				nil); err != nil {
				t.Fatal(err)
			}
		}
		if st, reads := c.Stats(), b.Calls(); len(reads) != 1 || st.TooLarge != 0 {
			t.Errorf("%d bytes, pages of %d: %d reads for 5 fetches of one page; %+v",
				maxBytes, pageSize, len(reads), st)
		}
	}
	f(50<<20, 1<<20)
	f(16<<20, 1<<20)
	f(12<<20, 256<<10)
	f(3<<20, 64<<10)
	f(3<<20, 40_000) // rounded up to 64 KiB
}

func TestClose(t *testing.T) {
	c := New(bucket("o"), Options{})
	if st := c.Stats(); st.MaxBytes != DefaultMaxBytes || c.PageSize() != 8<<10 {
		t.Errorf("%+v, pages of %d", st, c.PageSize())
	}
	c.Close()
	obj := c.Object(0, ulid.ULID{}, 0, 1, "o", 10)
	_, err := c.Fetch(t.Context(), obj, []pagecache.Span{{Off: 0, End: 1}}, nil)
	if !errors.Is(err, pagecache.ErrClosed) {
		t.Errorf("after Close: got %v, want %v", err, pagecache.ErrClosed)
	}
}
