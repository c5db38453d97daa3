package main

import (
	"context"
	"io"
	"time"

	"larder/internal/bytecache"
	"larder/internal/pagecache"
)

// hits counts pages and bytes.
type hits struct{ pages, bytes, hitPages, hitBytes int64 }

func (h *hits) count(bytes int64, hit bool) {
	h.pages++
	h.bytes += bytes
	if hit {
		h.hitPages++
		h.hitBytes += bytes
	}
}

func (h hits) add(o hits) hits {
	return hits{h.pages + o.pages, h.bytes + o.bytes, h.hitPages + o.hitPages,
		h.hitBytes + o.hitBytes}
}

// ratio and byteRatio are percentages.
func (h hits) ratio() float64     { return percent(h.hitPages, h.pages) }
func (h hits) byteRatio() float64 { return percent(h.hitBytes, h.bytes) }

func percent(part, whole int64) float64 { return 100 * float64(part) / float64(max(whole, 1)) }

// replay reads the trace through a page reader over the cache. pace is the minimum time per page, 0
// for none.
func replay(
	ctx context.Context, t *trace, c cache, pace time.Duration,
) (dashboards, all hits, err error) {
	r := pagecache.New(zeros{}, local{c}, pagecache.Options{PageSize: pageSize})
	defer r.Close()
	var dash, scan pagecache.Account
	var spans []pagecache.Span
	start, due := time.Now(), time.Duration(0)
	for _, a := range t.accesses {
		spans = spans[:0]
		for _, no := range a.pages {
			off := no * pageSize
			spans = append(spans, pagecache.Span{Off: off, End: off + t.pageLen(a.object, no)})
		}
		acct := &dash
		if a.scan {
			acct = &scan
		}
		if _, err := r.Fetch(ctx, t.objects[a.object], spans, acct); err != nil {
			return hits{}, hits{}, err
		}
		// Not after every page, because a sleep takes longer than most of them.
		due += pace * time.Duration(len(a.pages))
		if ahead := due - time.Since(start); pace > 0 && ahead > time.Millisecond {
			time.Sleep(ahead)
		}
	}
	of := func(a *pagecache.Account) hits {
		return hits{a.Touched.Load(), a.TouchedBytes.Load(), a.Hits.Load(), a.HitBytes.Load()}
	}
	return of(&dash), of(&dash).add(of(&scan)), nil
}

// zeros is a bucket of objects of any size, full of zeros.
type zeros struct{}

func (zeros) GetRange(_ context.Context, _ string, _, length int64) (io.ReadCloser, error) {
	return &zeroBody{length}, nil
}

func (zeros) IsObjNotFoundErr(error) bool  { return false }
func (zeros) IsAccessDeniedErr(error) bool { return false }

type zeroBody struct{ left int64 }

func (b *zeroBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), b.left))
	clear(p[:n])
	b.left -= int64(n)
	return n, nil
}

func (b *zeroBody) Close() error { return nil }

// local makes a candidate a cache for a page reader.
type local struct{ cache }

func (c local) Fetch(
	_ context.Context, keys []bytecache.Key, values [][]byte,
) (none bytecache.Found) {
	for i, key := range keys {
		if values[i] == nil {
			values[i], _ = c.Get(key.Local)
		}
	}
	return none
}

func (c local) Remote() bool                        { return false }
func (c local) Set(key bytecache.Key, value []byte) { c.cache.Set(key.Local, value) }
func (c local) Del(key bytecache.Key)               { c.cache.Del(key.Local) }
func (c local) Stats() bytecache.Stats              { return bytecache.Stats{} }
func (c local) Close()                              {}
