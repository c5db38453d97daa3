package storepb

import (
	"bytes"
	"sync"
	"testing"

	"google.golang.org/grpc/mem"
)

// testPool is a FramePool that poisons buffers in every build and tracks which buffers are in use.
type testPool struct {
	*FramePool
	t testing.TB

	mu   sync.Mutex
	out  map[*[]byte]bool // guarded by mu
	gets int              // guarded by mu
	none chan struct{}    // guarded by mu; closed when no buffer is in use; nil if no test waits
}

func newTestPool(t testing.TB) *testPool {
	return &testPool{FramePool: &FramePool{poison: true}, t: t, out: map[*[]byte]bool{}}
}

func (p *testPool) Get(n int) *[]byte {
	b := p.FramePool.Get(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gets++
	p.out[b] = true
	return b
}

func (p *testPool) Put(b *[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.out[b] {
		p.t.Errorf("buffer %p was put back twice, or is not the pool's", b)
		return
	}
	delete(p.out, b)
	p.FramePool.Put(b)
	if len(p.out) == 0 && p.none != nil {
		close(p.none)
		p.none = nil
	}
}

func (p *testPool) wantNoneOut() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.out) != 0 {
		p.t.Errorf("%d buffers were not put back", len(p.out))
	}
}

func (p *testPool) outNow() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.out)
}

// waitNoneOut waits until all buffers have returned. grpc returns the last ones from a goroutine of
// its own.
func (p *testPool) waitNoneOut() {
	p.mu.Lock()
	if len(p.out) == 0 {
		p.mu.Unlock()
		return
	}
	if p.none == nil {
		p.none = make(chan struct{})
	}
	none := p.none
	p.mu.Unlock()
	<-none
}

func TestFramePool(t *testing.T) {
	p := NewFramePool()
	for _, c := range []struct{ length, wantCap int }{
		{0, 2048}, {1, 2048}, {2048, 2048}, {2049, 4096}, {32 << 10, 32 << 10},
		{32<<10 + 1, 64 << 10},
		{MaxFrameBytes, MaxFrameBytes}, {MaxFrameBytes + 1, MaxFrameBytes + 1},
	} {
		b := p.Get(c.length)
		if len(*b) != c.length || cap(*b) < c.wantCap ||
			(c.length > MaxFrameBytes) != (cap(*b)&(cap(*b)-1) != 0) {
			t.Errorf("Get(%d): got len %d cap %d, want cap %d",
				c.length, len(*b), cap(*b), c.wantCap)
		}
		if mem.IsBelowBufferPoolingThreshold(cap(*b)) {
			t.Errorf("Get(%d): grpc would not give back a buffer of %d bytes", c.length, cap(*b))
		}
		p.Put(b)
	}
	// The pool drops a buffer that is not from Get, because it would be shorter than its tier.
	odd := make([]byte, 3000)
	p.Put(&odd)
	if b := p.Get(3000); cap(*b) != 4096 {
		t.Errorf("got a buffer with cap %d, the pool kept a foreign one", cap(*b))
	}
}

func TestPoison(t *testing.T) {
	p := &FramePool{poison: true}
	b := p.Get(5000)
	data := *b
	copy(data, "still in use")
	*b = data[:12] // shorter than before, like the buffer of a frame
	p.Put(b)
	if want := bytes.Repeat([]byte{poisonByte}, len(data)); !bytes.Equal(data, want) {
		t.Errorf("a buffer still reads %q after Put", data[:16])
	}
}
