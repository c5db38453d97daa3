package indexheader

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"larder/internal/localfs"
)

// For the race detector: concurrent look-ups, evictions, damage, Forget and Prefetch.
func TestConcurrentUse(t *testing.T) {
	idx := synthIndex(t, 3000)
	values := modelOf(t, idx).values["pod"]
	model := modelOf(t, idx)
	dir := t.TempDir()
	bkt := newBucket()
	var srcs []Source
	for n := range byte(6) {
		srcs = append(srcs, bkt.add(n, idx))
	}
	m := newManager(
		t,
		Options{
			Dir:             localfs.At(dir),
			Bucket:          bkt,
			MaxOpenFiles:    2,
			IdleTimeout:     time.Millisecond,
			BlockCacheBytes: 200 << 10,
		},
	)
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(g, 1))
			for range 60 {
				src := srcs[rnd.IntN(len(srcs))]
				switch rnd.IntN(12) {
				case 0:
					m.Forget(src.ID)
				case 1:
					m.Prefetch(srcs)
				case 2:
					if f, err := os.OpenFile(headerFile(dir, src.ID), os.O_RDWR, 0); err == nil {
						f.WriteAt([]byte{byte(rnd.IntN(256))}, int64(20+rnd.IntN(60_000)))
						f.Close()
					}
				default:
					if err := useHeader(m, src, model, values, rnd); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func useHeader(m *Manager, src Source, model *model, values []string, rnd *rand.Rand) error {
	ctx := context.Background()
	h, release, err := m.Acquire(ctx, src)
	if err != nil {
		return err
	}
	defer release()
	some := pick(rnd, values, 0.02)
	lists, err := h.Lists(ctx, "pod", some, nil)
	if err != nil {
		return err
	}
	for i, l := range lists {
		if want := model.want("pod", some[i]); l != want {
			return fmt.Errorf("list of %q is %v, want %v", some[i], l, want)
		}
	}
	refs := []uint32{uint32(rnd.IntN(1000)), 1000 + uint32(rnd.IntN(2000))}
	return h.Symbols(ctx, refs, func(i int, s []byte) error {
		if string(s) != model.symbols[refs[i]] {
			return fmt.Errorf("symbol %d is %q", refs[i], s)
		}
		return nil
	})
}
