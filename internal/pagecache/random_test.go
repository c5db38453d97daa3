package pagecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oklog/ulid/v2"

	"larder/internal/bucket/cost"
	"larder/internal/bucket/slots"
	"larder/internal/bytecache"
	"larder/internal/bytecache/bytecachetest"
)

// TestRandomReads makes concurrent requests for random spans, through caches that keep all, some or
// no pages. The bucket fails and callers leave at random. Results have the right bytes, and no
// request fails without a fault.
func TestRandomReads(t *testing.T) {
	caches := map[string]func() Cache{
		"all":  func() Cache { return newMapCache() },
		"none": func() Cache { return bytecache.None{} },
		"memory": func() Cache {
			m := bytecache.NewMemory(
				bytecache.Options{MaxBytes: 600 << 10, ExpectedValueBytes: 1 << 10},
			)
			t.Cleanup(func() {
				if st := m.Stats(); st.Hits == 0 || st.Evictions+st.Refused == 0 {
					t.Errorf("the cache keeps all or nothing: %+v", st)
				}
				m.Close()
			})
			return m
		},
	}
	caches["remote"] = func() Cache {
		return bytecache.NewMemcached(bytecachetest.NewRemote(), bytecache.Options{})
	}
	caches["tiered"] = func() Cache {
		m := bytecache.NewMemory(
			bytecache.Options{MaxBytes: 600 << 10, ExpectedValueBytes: 1 << 10},
		)
		t.Cleanup(m.Close)
		return bytecache.NewTiered(
			m, bytecache.NewMemcached(bytecachetest.NewRemote(), bytecache.Options{}),
		)
	}
	// This cache forgets pages, and returns values of wrong lengths or none, at random.
	caches["unreliable"] = func() Cache {
		remote := bytecachetest.NewRemote()
		remote.Answer = func(ids []bytecache.ID, values [][]byte) {
			for i := range values {
				switch rand.IntN(6) {
				case 0:
					values[i] = nil
				case 1:
					values[i] = []byte("of another length")
				}
			}
			if rand.IntN(20) == 0 {
				panic("fault")
			}
		}
		return bytecache.NewMemcached(remote, bytecache.Options{})
	}
	for name, newCache := range caches {
		for _, faults := range []float64{0, 0.4} {
			t.Run(fmt.Sprintf("%s/faults=%v", name, faults), func(t *testing.T) {
				randomReads(t, newCache(), faults)
			})
		}
	}
}

func randomReads(t *testing.T, cache Cache, faults float64) {
	sizes := map[string]int{"a": 150_001, "b": 1 << 10, "c": 1<<17 + 512, "d": 1}
	names := []string{"a", "b", "c", "d"}
	b := newTestBucket(sizes)
	var failed atomic.Int64
	b.hook = func(_ context.Context, name string, off, length int64) (io.ReadCloser, error, bool) {
		if rand.Float64() >= faults {
			return nil, nil, false
		}
		failed.Add(1)
		data := b.objects[name][off : off+length]
		switch rand.IntN(5) {
		case 0:
			return nil, errBroken, true
		case 1:
			return io.NopCloser(bytes.NewReader(data[:rand.Int64N(length)])), nil, true
		case 2:
			return io.NopCloser(
				io.MultiReader(
					bytes.NewReader(data[:rand.Int64N(length)]), brokenReader{errBroken},
				),
			), nil, true
		case 3: // a store that ignores the end of the range
			return io.NopCloser(bytes.NewReader(append(append([]byte{}, data...), 'x'))), nil, true
		default:
			panic("fault")
		}
	}
	r := New(
		b,
		cache,
		Options{
			PageSize:         512,
			Costs:            cost.Fixed(cost.Model{MaxRead: 16 << 10}),
			Limiter:          slots.New(slots.Options{Max: 5}),
			MaxInFlightBytes: 40 << 10,
		},
	)
	defer r.Close()
	n := 150
	if testing.Short() {
		n = 60
	}
	var good, bad, left atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 11))
			var acct Account
			for range n {
				id := rng.IntN(len(names))
				obj := Object{
					Name:  names[id],
					Size:  int64(sizes[names[id]]),
					ID:    uint64(id),
					Block: ulid.ULID{1},
				}
				spans := randomSpans(rng, obj.Size)
				ctx, cancel := context.WithCancel(t.Context())
				leaves := rng.IntN(10) == 0
				if leaves {
					go cancel()
				}
				var p *Pages
				var err error
				if rng.IntN(10) == 0 {
					spans = spans[:1]
					p, err = r.Refetch(ctx, obj, spans[0], &acct)
				} else {
					p, err = r.Fetch(ctx, obj, spans, &acct)
				}
				cancel()
				switch {
				case err == nil:
					good.Add(1)
					checkSpans(t, p, b.objects[obj.Name], spans)
				case errors.Is(err, context.Canceled) && leaves:
					left.Add(1)
				case faults == 0:
					t.Errorf("without a fault: %v", err)
				default:
					bad.Add(1)
				}
			}
			if sum := acct.Hits.Load() + acct.RemoteHits.Load() + acct.Coalesced.Load() +
				acct.Fetched.Load(); sum < acct.Touched.Load() {
				t.Errorf(
					"touched %d pages, but hits, coalesced and fetched are %d", acct.Touched.Load(),
					sum,
				)
			}
		})
	}
	wg.Wait()
	r.Close()
	b.checkClosed(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.table) != 0 || len(r.flights) != 0 || len(r.lookups) != 0 {
		t.Errorf(
			"%d pages, %d flights and %d look-ups are left", len(r.table), len(r.flights),
			len(r.lookups),
		)
	}
	// This waits for ever if bytes were not released.
	all := r.opts.MaxInFlightBytes
	if _, err := r.inFlight.AcquireFor(t.Context(), slots.NewRead(t.Context()), all); err != nil {
		t.Error(err)
	}
	if good.Load() < 100 || (faults > 0 && failed.Load() < 20) {
		t.Errorf(
			"the test covers too little: %d good, %d bad, %d left, %d faults", good.Load(),
			bad.Load(), left.Load(), failed.Load(),
		)
	}
}

func randomSpans(rng *rand.Rand, size int64) []Span {
	spans := make([]Span, 1+rng.IntN(6))
	at := int64(0)
	for i := range spans {
		at += rng.Int64N(max(size-at, 0)/3 + 1)
		length := rng.Int64N(size - at + 1)
		if rng.IntN(3) > 0 {
			length = min(length, 2000)
		}
		spans[i] = Span{at, at + length}
	}
	return spans
}
