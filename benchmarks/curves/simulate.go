package curves

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"larder/internal/bytecache"
	"larder/internal/pagetrace"
)

// Options of Draw. The zero value works.
type Options struct {
	// Scales are the sizes of a tier as multiples of its own. Default 0.5, 1, 2 and 10.
	Scales []float64
	// MaxAccesses bounds the accesses that are replayed. Default 2,000,000. A longer trace is
	// sampled by pages. More are more exact and take longer.
	MaxAccesses int
}

// Curves are the curves of all caches of a trace.
type Curves struct {
	// Rate is the part of all pages that was replayed, Accesses how many accesses that were.
	Rate     float64  `json:"rate"`
	Accesses int      `json:"accesses"`
	Seconds  float64  `json:"seconds"` // the length of the trace
	Curves   []Curve  `json:"curves"`
	Notes    []string `json:"notes"`
}

// Curve is what becomes of a cache if one of its tiers has other sizes.
type Curve struct {
	Cache string `json:"cache"` // index or chunks
	// Tier is the tier whose size changes: memory or disk.
	Tier string `json:"tier"`
	// Share is the part of the accesses of all caches that are accesses to this one.
	Share  float64 `json:"share"`
	Points []Point `json:"points"`
}

// Point is a size and its hit ratios.
type Point struct {
	Scale float64 `json:"scale"`
	Bytes int64   `json:"bytes"` // of the tier
	// Memory and Disk are the shares of all accesses that each tier answers.
	Memory float64 `json:"memory"`
	Disk   float64 `json:"disk"`
}

// Miss is the share of the accesses that no tier answers.
func (p *Point) Miss() float64 { return max(1-p.Memory-p.Disk, 0) }

// accesses are the fetches of one cache.
type accesses struct {
	cache   pagetrace.Cache
	fetches []fetch
	pages   []int64
}

type fetch struct {
	object uint64
	pages  int // how many of accesses.pages, after those of earlier fetches
}

// Draw replays a trace against caches of several sizes. open opens it from the beginning.
func Draw(
	ctx context.Context, open func() (*pagetrace.Reader, func() error, error), o Options,
) (*Curves, error) {
	o.MaxAccesses = cmp.Or(o.MaxAccesses, 2_000_000)
	if len(o.Scales) == 0 {
		o.Scales = []float64{0.5, 1, 2, 10}
	}
	total := 0
	if err := each(open, 1, func(_ *pagetrace.Reader, f *pagetrace.Fetch) {
		total += len(f.Pages)
	}); err != nil {
		return nil, err
	}
	if total == 0 {
		return nil, errors.New("the trace has no accesses")
	}
	out := &Curves{}
	all := map[int]*accesses{}
	limit := min(1, float64(o.MaxAccesses)/float64(total))
	err := each(open, limit, func(t *pagetrace.Reader, f *pagetrace.Fetch) {
		a := all[f.Cache]
		if a == nil {
			a = &accesses{cache: t.Header.Caches[f.Cache]}
			all[f.Cache] = a
		}
		out.Rate, out.Seconds = t.Rate(), f.At.Seconds()
		out.Accesses += len(f.Pages)
		a.fetches = append(a.fetches, fetch{f.Object, len(f.Pages)})
		a.pages = append(a.pages, f.Pages...)
	})
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, no := range slices.Sorted(maps.Keys(all)) {
		a := all[no]
		for _, tier := range []string{"memory", "disk"} {
			size := a.cache.MemoryBytes
			if tier == "disk" {
				size = a.cache.DiskBytes
			}
			if size <= 0 {
				continue
			}
			out.Curves = append(out.Curves, Curve{
				Cache: a.cache.Kind, Tier: tier,
				Share:  float64(len(a.pages)) / float64(out.Accesses),
				Points: make([]Point, len(o.Scales)),
			})
			points := out.Curves[len(out.Curves)-1].Points
			for i, scale := range o.Scales {
				memory, disk := float64(a.cache.MemoryBytes), float64(a.cache.DiskBytes)
				if tier == "memory" {
					memory *= scale
				} else {
					disk *= scale
				}
				g.Go(func() error {
					p, err := a.simulate(ctx, int64(memory*out.Rate), int64(disk*out.Rate))
					p.Scale, p.Bytes = scale, int64(float64(size)*scale)
					points[i] = p
					return err
				})
			}
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if out.note(); len(out.Curves) == 0 {
		return nil, errors.New("the gateway of the trace had no caches of pages")
	}
	return out, nil
}

// few is a number of pages below which a sampled cache is too small to behave like a large one.
const few = 500

func (c *Curves) note() {
	c.Notes = append(c.Notes, "the trace has accesses of pages only: series sets, expanded "+
		"postings, label answers, index headers and memcached have no curve")
	if c.Rate >= 1 {
		return
	}
	c.Notes = append(c.Notes, fmt.Sprintf(
		"%.3g %% of the pages were replayed, against caches of that part of their size",
		100*c.Rate))
	for _, curve := range c.Curves {
		for _, p := range curve.Points {
			if n := float64(p.Bytes) * c.Rate; n < few*8<<10 {
				c.Notes = append(c.Notes, fmt.Sprintf(
					"%s: a sampled %s of %.1f MiB is too small to be exact", curve.Cache,
					curve.Tier, n/(1<<20)))
				break
			}
		}
	}
}

// each calls f for all fetches of a trace, at a rate of at most rate.
func each(
	open func() (*pagetrace.Reader, func() error, error), rate float64,
	f func(*pagetrace.Reader, *pagetrace.Fetch),
) (err error) {
	t, stop, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	t.Sample(t.Rate() * rate)
	for {
		fetch, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f(t, fetch)
	}
}

// simulate replays the accesses against a memory and a disk of these sizes, 0 for none.
func (a *accesses) simulate(ctx context.Context, memory, disk int64) (p Point, err error) {
	page := make([]byte, a.cache.PageBytes)
	o := bytecache.Options{
		MaxBytes: memory, MaxValueBytes: int64(len(page)), ExpectedValueBytes: int64(len(page)),
	}
	if memory <= 0 {
		o.MaxBytes = -1
	}
	var below bytecache.Disk
	if disk > 0 {
		below = newDisk(disk, page, a.cache.DiskSecondUse)
	}
	cache := bytecache.Open(o, below, nil)
	defer cache.Close()
	inMemory, onDisk, next := 0, int64(0), 0
	var keys []bytecache.Key
	for i, f := range a.fetches {
		if i%1024 == 0 && ctx.Err() != nil {
			return p, ctx.Err()
		}
		keys = keys[:0]
		for _, no := range a.pages[next : next+f.pages] {
			key := pageKey(f.object, no)
			if _, ok := cache.Get(key.Local); ok {
				inMemory++
				continue
			}
			keys = append(keys, key)
		}
		next += f.pages
		if len(keys) == 0 {
			continue
		}
		values := make([][]byte, len(keys))
		onDisk += cache.Fetch(ctx, keys, values).DiskItems
		for i, key := range keys {
			if values[i] == nil {
				cache.Set(key, page)
			}
		}
		// One value always stays pending: see bytecache.
		for cache.Stats().PendingBytes > 2*int64(len(page)) {
			runtime.Gosched()
		}
	}
	n := float64(max(len(a.pages), 1))
	p.Memory, p.Disk = float64(inMemory)/n, float64(onDisk)/n
	return p, nil
}

// pageKey returns the key of a page, as bytecache.Tiered expects it.
func pageKey(object uint64, no int64) bytecache.Key {
	k := bytecache.Key{Local: object<<bytecache.PageBits | uint64(no)}
	binary.BigEndian.PutUint64(k.ID[:], object)
	binary.BigEndian.PutUint32(k.ID[bytecache.PageAt:], uint32(no))
	return k
}
