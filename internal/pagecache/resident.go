package pagecache

import (
	"context"
	"fmt"
	"slices"
	"time"

	"larder/internal/bytecache"
)

// Resident is a page in the memory of a cache.
type Resident struct {
	Block uint32 // its number within this process
	File  int    // the number of the file, see ObjectID
	Page  int64  // the number of the page
	// Asked means that more than one request used the page.
	Asked bool
}

// EachResident calls f for each page in the memory of the cache. f must not call the reader.
func (r *Reader) EachResident(f func(Resident)) {
	in, ok := r.cache.(bytecache.Resident)
	if !ok {
		return
	}
	in.Each(func(local uint64, asked bool) {
		f(Resident{
			Block: uint32(local >> (pageBits + fileBits)),
			File:  int(local >> pageBits & (1<<fileBits - 1)),
			Page:  pageNumber(local), Asked: asked,
		})
	})
}

// Warming says how Warm reads pages.
type Warming struct {
	// Asked means that another process has used the pages more than once: the cache then keeps them
	// as if this one had.
	Asked bool
	// DiskOnly leaves out pages that are not on the disk. The bucket is not read.
	DiskOnly bool
}

// Warm reads pages into the cache before a request needs them, same as Fetch.
func (r *Reader) Warm(
	ctx context.Context, obj Object, spans []Span, how Warming, acct *Account,
) error {
	var pages *Pages
	var err error
	if how.DiskOnly {
		pages, err = r.fetchOnDisk(ctx, obj, spans, acct)
	} else {
		pages, err = r.Fetch(ctx, obj, spans, acct)
	}
	in, ok := r.cache.(bytecache.Resident)
	if err != nil || !how.Asked || !ok {
		return err
	}
	for _, no := range pages.numbers() {
		if key, ok := pageKey(r.named(obj).ID, no); ok {
			in.Ask(key)
		}
	}
	return nil
}

// fetchOnDisk returns the pages of the spans that are in memory or on the disk. It charges and
// counts those on the disk only.
func (r *Reader) fetchOnDisk(
	ctx context.Context, obj Object, spans []Span, acct *Account,
) (*Pages, error) {
	obj = r.named(obj)
	pages, _, err := r.touch(obj, spans)
	if err != nil {
		return nil, err
	}
	var t tally
	var at []int // by key: index in the list
	var keys []bytecache.Key
	list := pages.list
	for i := range list {
		var ok bool
		if list[i].b, ok = r.cached(obj, list[i].no); ok {
			continue
		}
		if key, ok := obj.cacheKey(list[i].no, r.shift); ok {
			at, keys = append(at, i), append(keys, key)
		}
	}
	at, keys = r.onDisk(at, keys)
	for _, i := range at {
		t.touchedBytes += r.geometry(obj).pageLen(list[i].no)
	}
	t.touched = int64(len(at))
	if err := acct.spend(t.touchedBytes, 0); err != nil {
		return nil, fmt.Errorf("object %s: %w", obj.Name, err)
	}
	if len(keys) > 0 {
		defer acct.waited(time.Now())
		values := make([][]byte, len(keys))
		found := r.cache.Fetch(ctx, keys, values)
		var read, bytes int64
		for k, b := range values {
			if i := at[k]; b != nil && r.fits(obj, list[i].no, b) {
				list[i].b = b
				read++
				bytes += int64(len(b))
			}
		}
		t.foundBy(found, read, bytes)
	}
	r.record(&t, acct)
	pages.list = slices.DeleteFunc(list, func(p page) bool { return p.b == nil })
	pages.seal()
	return pages, nil
}

// onDisk returns the elements of at and keys whose pages are on the disk.
func (r *Reader) onDisk(at []int, keys []bytecache.Key) ([]int, []bytecache.Key) {
	l, ok := r.cache.(locator)
	if !ok || len(keys) == 0 {
		return nil, nil
	}
	n := 0
	for i, has := range l.OnDisk(keys) {
		if has {
			at[n], keys[n] = at[i], keys[i]
			n++
		}
	}
	return at[:n], keys[:n]
}
