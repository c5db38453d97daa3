package memcached

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestQueueKeepsLastRequest plays random writes, and workers that take and finish them in any
// order, against a map. The last request of an ID is pending. Writes of one ID are carried out one
// at a time, the last request last.
func TestQueueKeepsLastRequest(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		q := newQueue(5, 300)
		want := map[ID]write{} // the last requests
		stored := map[ID]write{}
		type job struct {
			p *pendingWrite
			w write
		}
		var running []job
		check := func() {
			t.Helper()
			bytes, values := int64(0), 0
			for id, w := range want {
				p := q.pending[id]
				switch {
				case p == nil:
					if s := stored[id]; s.remove != w.remove || !same(s.value, w.value) {
						t.Fatalf("seed %d: stored %+v, last requested %+v", seed, s, w)
					}
				case p.remove != w.remove || !same(p.value, w.value):
					t.Fatalf("seed %d: pending %+v, last requested %+v", seed, p.write, w)
				case !w.remove:
					bytes += int64(len(w.value))
					values++
				}
			}
			if q.bytes != bytes || q.values != values || bytes > 300 || values > 5 {
				t.Fatalf("seed %d: counts %d values, %d bytes; has %d, %d", seed, q.values, q.bytes,
					values, bytes)
			}
		}
		for range 300 {
			switch op := rng.IntN(10); {
			case op < 5:
				w := write{id: idOf(strconv.Itoa(rng.IntN(8))), remove: op == 0}
				if !w.remove {
					w.value = make([]byte, rng.IntN(100))
				}
				if q.put(w) {
					want[w.id] = w
				}
			case op < 8 && q.order.len() > 0:
				p, w, _ := q.take()
				for _, j := range running {
					if j.w.id == w.id {
						t.Fatalf("seed %d: two writes of one ID at once", seed)
					}
				}
				running = append(running, job{p, w})
			case len(running) > 0:
				i := rng.IntN(len(running))
				j := running[i]
				running = append(running[:i], running[i+1:]...)
				stored[j.w.id] = j.w
				q.done(j.p, j.w)
			}
			check()
		}
	}
}

func TestQueueOrder(t *testing.T) {
	q := newQueue(1000, 1<<20)
	next := 0
	put := func(n int) {
		for range n {
			q.put(write{id: idOf(strconv.Itoa(next)), value: []byte(strconv.Itoa(next))})
			next++
		}
	}
	taken := 0
	take := func(n int) {
		t.Helper()
		for range n {
			p, w, _ := q.take()
			if string(w.value) != strconv.Itoa(taken) {
				t.Fatalf("got %s, want %d", w.value, taken)
			}
			taken++
			q.done(p, w)
		}
	}
	put(10)
	take(3)
	put(10)
	take(17)
	put(1)
	take(1)
	if n, bytes := q.waiting(); n != 0 || bytes != 0 || q.length.Load() != 0 {
		t.Errorf("%d, %d bytes wait", n, bytes)
	}
}
