package pagecache

import (
	"context"

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

// Warm reads pages into the cache before a request needs them, same as Fetch. asked says that other
// processes have used them more than once: the cache then keeps them as if this one had.
func (r *Reader) Warm(
	ctx context.Context, obj Object, spans []Span, asked bool, acct *Account,
) error {
	pages, err := r.Fetch(ctx, obj, spans, acct)
	in, ok := r.cache.(bytecache.Resident)
	if err != nil || !asked || !ok {
		return err
	}
	for _, no := range pages.numbers() {
		if key, ok := pageKey(r.named(obj).ID, no); ok {
			in.Ask(key)
		}
	}
	return nil
}
