package pagecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"larder/internal/bucket/cost"
	"larder/internal/bytecache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// content returns the bytes of an object of tests. Equal offsets in different pages have different
// bytes.
func content(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i ^ i>>8*7 ^ i>>16*13)
	}
	return b
}

// errGone is the error of a bucket that recognises it only unwrapped, same as S3's.
type errGone struct{}

func (errGone) Error() string { return "the specified key does not exist" }

// testBucket serves objects and counts reads. faultstore cannot replace it in benchmarks, whose
// allocations it would change.
type testBucket struct {
	objects map[string][]byte
	// hook may answer a read in the bucket's place. With handled false, the bucket answers.
	hook func(ctx context.Context, name string, off, length int64) (body io.ReadCloser, err error,
		handled bool)

	mu    sync.Mutex
	reads []string // "name [off,end)"
	open  int      // bodies that are not closed
}

func newTestBucket(sizes map[string]int) *testBucket {
	b := &testBucket{objects: map[string][]byte{}}
	for name, size := range sizes {
		b.objects[name] = content(size)
	}
	return b
}

func (b *testBucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	b.mu.Lock()
	b.reads = append(b.reads, fmt.Sprintf("%s [%d,%d)", name, off, off+length))
	b.mu.Unlock()
	if b.hook != nil {
		if body, err, handled := b.hook(ctx, name, off, length); handled {
			return b.count(body), err
		}
	}
	data, ok := b.objects[name]
	if !ok {
		return nil, errGone{}
	}
	if length <= 0 || off < 0 {
		return nil, fmt.Errorf("bad range %d+%d", off, length)
	}
	return b.count(
		io.NopCloser(
			bytes.NewReader(data[min(off, int64(len(data))):min(off+length, int64(len(data)))]),
		),
	), nil
}

func (b *testBucket) IsObjNotFoundErr(err error) bool {
	_, ok := err.(errGone)
	return ok
}

// taken returns the reads since the last call.
func (b *testBucket) taken() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	reads := b.reads
	b.reads = nil
	return reads
}

func (b *testBucket) count(body io.ReadCloser) io.ReadCloser {
	if body == nil {
		return nil
	}
	b.mu.Lock()
	b.open++
	b.mu.Unlock()
	return &countedBody{ReadCloser: body, b: b}
}

type countedBody struct {
	io.ReadCloser
	b    *testBucket
	once sync.Once
}

func (c *countedBody) Close() error {
	c.once.Do(func() {
		c.b.mu.Lock()
		c.b.open--
		c.b.mu.Unlock()
	})
	return c.ReadCloser.Close()
}

// checkClosed checks that all bodies are closed.
func (b *testBucket) checkClosed(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open != 0 {
		t.Errorf("%d bodies were not closed", b.open)
	}
}

// mapCache keeps all pages.
type mapCache struct {
	mu sync.Mutex
	m  map[uint64][]byte
}

func newMapCache() *mapCache { return &mapCache{m: map[uint64][]byte{}} }

func (c *mapCache) Get(key uint64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.m[key]
	return b, ok
}

func (c *mapCache) Set(key bytecache.Key, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.m[key.Local]; !ok {
		c.m[key.Local] = value
	}
}

func (c *mapCache) Del(key bytecache.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, key.Local)
}

func (c *mapCache) Fetch(context.Context, []bytecache.Key, [][]byte) (none bytecache.Found) {
	return none
}

func (c *mapCache) Remote() bool { return false }

func (c *mapCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.m)
}

// body is a body that a test feeds by hand.
type body struct {
	ctx  context.Context
	feed chan []byte // closed: the end
	fail chan error
	off  int64 // offset of the next bytes to feed
	rest []byte
	deaf bool // ignores its context
}

func newBody(ctx context.Context) *body {
	return &body{ctx: ctx, feed: make(chan []byte), fail: make(chan error)}
}

func (b *body) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		done := b.ctx.Done()
		if b.deaf {
			done = nil
		}
		select {
		case more, ok := <-b.feed:
			if !ok {
				return 0, io.EOF
			}
			b.rest = more
		case err := <-b.fail:
			return 0, err
		case <-done:
			return 0, b.ctx.Err()
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *body) Close() error { return nil }

var errBroken = errors.New("connection reset by peer")
var errDenied = errors.New("access denied")

// apart returns a meter by which no gaps between needed pages are read.
func apart() *cost.Meter { return cost.Fixed(cost.Model{MaxGap: -1}) }
