package trips

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thanos-io/objstore"
)

const (
	firstByte      = 20 * time.Millisecond
	bytesPerSecond = 80_000_000
)

// bucket is a bucket whose reads take virtual time and are recorded, once it is on.
type bucket struct {
	objstore.Bucket

	mu    sync.Mutex
	on    bool
	reads []*read
	other int // calls that are not ranged reads
}

// read is one ranged read. Its end is the time at which its last byte arrived.
type read struct {
	name       string
	bytes      int64
	start, end time.Time
}

// block is the folder of the block that is read.
func (r *read) block() string {
	block, _, _ := strings.Cut(r.name, "/")
	return block
}

// turnOn makes the bucket slow and records its reads from now on.
func (b *bucket) turnOn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.on = true
}

// note counts a call that the scenarios should not make.
func (b *bucket) note() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on {
		b.other++
	}
}

// GetRange reads a range.
func (b *bucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	b.mu.Lock()
	on := b.on
	r := &read{name: name, start: time.Now()}
	r.end = r.start.Add(firstByte)
	if on {
		b.reads = append(b.reads, r)
	}
	b.mu.Unlock()
	body, err := b.Bucket.GetRange(ctx, name, off, length)
	if err != nil || !on {
		return body, err
	}
	if err := until(ctx, r.end); err != nil {
		return nil, err
	}
	return &slowBody{ReadCloser: body, ctx: ctx, b: b, read: r}, nil
}

// Get reads an object.
func (b *bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	b.note()
	return b.Bucket.Get(ctx, name)
}

// Attributes asks for the size of an object.
func (b *bucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	b.note()
	return b.Bucket.Attributes(ctx, name)
}

// Exists asks whether there is an object.
func (b *bucket) Exists(ctx context.Context, name string) (bool, error) {
	b.note()
	return b.Bucket.Exists(ctx, name)
}

// slowBody delivers bytes at bytesPerSecond.
type slowBody struct {
	io.ReadCloser
	ctx  context.Context
	b    *bucket
	read *read
}

func (s *slowBody) ObjectSize() (int64, error) { return objstore.TryToGetSize(s.ReadCloser) }

func (s *slowBody) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.b.mu.Lock()
	s.read.bytes += int64(n)
	s.read.end = s.read.start.Add(firstByte +
		time.Duration(float64(s.read.bytes)/bytesPerSecond*float64(time.Second)))
	end := s.read.end
	s.b.mu.Unlock()
	if e := until(s.ctx, end); e != nil {
		return n, e
	}
	return n, err
}

// until sleeps until t, or until the context ends.
func until(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// chain is the length of the longest chain of reads in which each began when the former had ended
// or later. Virtual time has no noise: a read that begins at the end of another one depends on it,
// or on another read that ended at that time.
func chain(reads []*read) int {
	// Of intervals in the order of their ends, taking each that begins after the last one taken has
	// ended gives a longest chain.
	rs := slices.SortedFunc(slices.Values(reads), func(a, b *read) int {
		return cmp.Or(a.end.Compare(b.end), a.start.Compare(b.start))
	})
	n := 0
	var end time.Time
	for _, r := range rs {
		if n == 0 || !r.start.Before(end) {
			n++
			end = r.end
		}
	}
	return n
}

func TestChain(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(0, int64(ms)*1e6) }
	for _, c := range []struct {
		name  string
		reads []*read
		want  int
	}{
		{"no reads", nil, 0},
		{"side by side", []*read{{start: at(0), end: at(20)}, {start: at(19), end: at(39)}}, 1},
		{"one after the other", []*read{
			{start: at(20), end: at(40)}, {start: at(0), end: at(20)},
		}, 2},
		{"the long read is not in the chain", []*read{
			{start: at(0), end: at(100)}, {start: at(0), end: at(20)},
			{start: at(20), end: at(40)}, {start: at(50), end: at(70)},
		}, 3},
	} {
		if got := chain(c.reads); got != c.want {
			t.Errorf("%s: a chain of %d, want %d", c.name, got, c.want)
		}
	}
}
