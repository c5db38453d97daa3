package pagecache

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
)

// testDisk is a disk of values that are kept when they are set.
type testDisk struct {
	bytecache.Cache
	values map[bytecache.ID][]byte
	asked  []int64 // pages
}

func (d *testDisk) Set(key bytecache.Key, value []byte) { d.values[key.ID] = value }

func (d *testDisk) Keep(key bytecache.Key, value []byte, _ bool) { d.Set(key, value) }

func (d *testDisk) Del(key bytecache.Key) { delete(d.values, key.ID) }

func (d *testDisk) Close() {}

func (d *testDisk) Has(keys []bytecache.Key) (has []bool) {
	for _, key := range keys {
		has = append(has, d.values[key.ID] != nil)
	}
	return has
}

func (d *testDisk) Fetch(
	_ context.Context, keys []bytecache.Key, values [][]byte,
) (found bytecache.Found) {
	for i, key := range keys {
		d.asked = append(d.asked, pageNumber(key.Local))
		if b := d.values[key.ID]; b != nil && values[i] == nil {
			values[i] = bytes.Clone(b)
			found.DiskItems++
			found.DiskBytes += int64(len(b))
		}
	}
	return found
}

// TestWarmFromDiskOnly: pages that the disk has come into memory, as pages that were asked again.
// Other pages are left out: neither the bucket nor memcached is asked. A page of another length
// than the object's is dropped. Only what is read from the disk is charged.
func TestWarmFromDiskOnly(t *testing.T) {
	const page, size = 1 << 10, 7*1<<10 + 100
	bucket, remote := newTestBucket(map[string]int{"o": size}), bytecachetest.NewRemote()
	memory := bytecache.NewMemory(bytecache.Options{MaxBytes: 1 << 20})
	disk := &testDisk{Cache: bytecache.None{}, values: map[bytecache.ID][]byte{}}
	cache := bytecache.NewTiered(
		memory, disk, bytecache.NewMemcached(remote, bytecache.Options{}),
	)
	defer cache.Close()
	r := New(bucket, cache, Options{PageSize: page})
	defer r.Close()
	obj := remoteObject(size)
	key := func(no int64) bytecache.Key {
		k, ok := obj.cacheKey(no, r.shift)
		if !ok {
			t.Fatalf("page %d has no key", no)
		}
		return k
	}
	whole := content(size)
	for _, no := range []int64{0, 1, 3, 7} { // 7 is the short last page
		disk.Set(key(no), whole[no*page:min((no+1)*page, size)])
	}
	disk.Set(key(5), []byte("too short"))
	memory.Set(key(1), whole[page:2*page])

	spans := []Span{{0, 2 * page}, {3 * page, size}}
	limit := errors.New("enough")
	var acct Account
	charged := int64(0)
	acct.Spend = func(touched, fetched int64) error {
		if charged += touched; fetched != 0 {
			t.Errorf("charged %d bytes of the bucket", fetched)
		}
		return limit
	}
	how := Warming{Asked: true, DiskOnly: true}
	if err := r.Warm(t.Context(), obj, spans, how, &acct); !errors.Is(err, limit) {
		t.Errorf("over the limit: %v", err)
	}
	if len(disk.asked) > 0 {
		t.Errorf("pages %v were read over the limit", disk.asked)
	}
	charged, limit = 0, nil
	if err := r.Warm(t.Context(), obj, spans, how, &acct); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int64{0, 3, 5, 7}, disk.asked); diff != "" {
		t.Errorf("pages read from the disk (-want +got):\n%s", diff)
	}
	if want := int64(3*page + 100); charged != want {
		t.Errorf("charged %d bytes, want %d", charged, want)
	}
	if touched, hits, bytes := acct.Touched.Load(), acct.DiskHits.Load(),
		acct.RemoteHitBytes.Load(); touched != 4 || hits != 3 || bytes != 2*page+100 {
		t.Errorf("counted %d pages, %d found with %d bytes", touched, hits, bytes)
	}
	asked := map[int64]bool{}
	memory.Each(func(local uint64, again bool) { asked[pageNumber(local)] = again })
	want := map[int64]bool{0: true, 1: true, 3: true, 7: true}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("pages in memory, and whether they count as asked (-want +got):\n%s", diff)
	}
	if reads := bucket.taken(); len(reads) > 0 || len(remote.Asked()) > 0 {
		t.Errorf("reads %v of the bucket, %v of memcached", reads, remote.Asked())
	}
	// Without a disk nothing is read.
	bare := New(bucket, bytecache.None{}, Options{PageSize: page})
	defer bare.Close()
	if err := bare.Warm(t.Context(), obj, spans, how, nil); err != nil {
		t.Fatal(err)
	}
	if reads := bucket.taken(); len(reads) > 0 {
		t.Errorf("reads %v of the bucket without a disk", reads)
	}
}
