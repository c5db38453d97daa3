package objectstore

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/thanos-io/objstore"
)

// Counts are the calls of a Bucket, failed ones included.
type Counts struct {
	// Reads are ranged reads, Lists listings, Others reads of whole objects and of their sizes.
	Reads, Lists, Others int64
	// Bytes are bytes of bodies that were read.
	Bytes int64
	// Errors are calls that the model made fail.
	Errors int64
	// ApartReads and ApartBytes are those of ranged reads that are counted apart, and not in Reads
	// and Bytes: see CountApart.
	ApartReads, ApartBytes int64
}

// Minus returns the calls since b.
func (c Counts) Minus(b Counts) Counts {
	return Counts{
		Reads: c.Reads - b.Reads, Lists: c.Lists - b.Lists, Others: c.Others - b.Others,
		Bytes: c.Bytes - b.Bytes, Errors: c.Errors - b.Errors,
		ApartReads: c.ApartReads - b.ApartReads, ApartBytes: c.ApartBytes - b.ApartBytes,
	}
}

// Add adds the calls of b.
func (c *Counts) Add(b Counts) {
	c.Reads += b.Reads
	c.Lists += b.Lists
	c.Others += b.Others
	c.Bytes += b.Bytes
	c.Errors += b.Errors
	c.ApartReads += b.ApartReads
	c.ApartBytes += b.ApartBytes
}

// Bucket is a bucket that behaves like the model. It is safe for concurrent use.
type Bucket struct {
	objstore.Bucket

	mu     sync.Mutex
	chance chance
	counts Counts
	record bool
	reads  []*Read
	apart  func(ctx context.Context) bool // nil: none
}

// Wrap returns b with the behaviour of m. Closing it closes b.
func Wrap(b objstore.Bucket, m Model) *Bucket { return &Bucket{Bucket: b, chance: newChance(m)} }

// CountApart counts ranged reads apart whose context fulfils a condition, for instance those that
// no request asked for. They are not recorded.
func (b *Bucket) CountApart(condition func(ctx context.Context) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.apart = condition
}

// SetModel replaces the model for calls that begin from now on.
func (b *Bucket) SetModel(m Model) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.chance = newChance(m)
}

// Counts returns the calls so far.
func (b *Bucket) Counts() Counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts
}

// Record starts a new record of reads, or ends recording.
func (b *Bucket) Record(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.record, b.reads = on, nil
}

// Reads returns the reads that began since Record.
func (b *Bucket) Reads() []Read {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Read
	for _, r := range b.reads {
		out = append(out, *r)
	}
	return out
}

// call counts a call and waits for its first byte.
func (b *Bucket) call(ctx context.Context, n *int64, name string) error {
	b.mu.Lock()
	*n++
	d, err := b.chance.call(name)
	if err != nil {
		b.counts.Errors++
	}
	b.mu.Unlock()
	if wait := until(ctx, time.Now().Add(d)); wait != nil {
		return wait
	}
	return err
}

// begin counts a read and returns it. Its end is the time of its first byte. bytes counts those of
// its body.
func (b *Bucket) begin(
	ctx context.Context, n *int64, name string,
) (r *Read, bytes *int64, bytesPerSecond int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bytes = &b.counts.Bytes
	apart := n == &b.counts.Reads && b.apart != nil && b.apart(ctx)
	if apart {
		n, bytes = &b.counts.ApartReads, &b.counts.ApartBytes
	}
	*n++
	d, err := b.chance.call(name)
	if err != nil {
		b.counts.Errors++
	}
	r = &Read{Name: name, Start: time.Now()}
	r.End = r.Start.Add(d)
	r.firstByte = r.End
	if b.record && !apart {
		b.reads = append(b.reads, r)
	}
	return r, bytes, b.chance.model.BytesPerSecond, err
}

// read reads with open once the first byte is due.
func (b *Bucket) read(
	ctx context.Context, n *int64, name string, open func() (io.ReadCloser, error),
) (io.ReadCloser, error) {
	r, bytes, bytesPerSecond, err := b.begin(ctx, n, name)
	if wait := until(ctx, r.firstByte); wait != nil {
		return nil, wait
	}
	if err != nil {
		return nil, err
	}
	inner, err := open()
	if err != nil {
		return inner, err
	}
	return &body{
		ReadCloser: inner, ctx: ctx, bucket: b, read: r, bytes: bytes,
		bytesPerSecond: bytesPerSecond,
	}, nil
}

// Get reads an object.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.read(ctx, &b.counts.Others, name, func() (io.ReadCloser, error) {
		return b.Bucket.Get(ctx, name)
	})
}

// GetRange reads a range of an object.
func (b *Bucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	return b.read(ctx, &b.counts.Reads, name, func() (io.ReadCloser, error) {
		return b.Bucket.GetRange(ctx, name, off, length)
	})
}

// Iter lists a folder.
func (b *Bucket) Iter(
	ctx context.Context, dir string, each func(name string) error, options ...objstore.IterOption,
) error {
	if err := b.call(ctx, &b.counts.Lists, dir); err != nil {
		return err
	}
	return b.Bucket.Iter(ctx, dir, each, options...)
}

// IterWithAttributes lists a folder.
func (b *Bucket) IterWithAttributes(
	ctx context.Context, dir string, each func(objstore.IterObjectAttributes) error,
	options ...objstore.IterOption,
) error {
	if err := b.call(ctx, &b.counts.Lists, dir); err != nil {
		return err
	}
	return b.Bucket.IterWithAttributes(ctx, dir, each, options...)
}

// Exists asks whether there is an object.
func (b *Bucket) Exists(ctx context.Context, name string) (bool, error) {
	if err := b.call(ctx, &b.counts.Others, name); err != nil {
		return false, err
	}
	return b.Bucket.Exists(ctx, name)
}

// Attributes asks for the size of an object.
func (b *Bucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if err := b.call(ctx, &b.counts.Others, name); err != nil {
		return objstore.ObjectAttributes{}, err
	}
	return b.Bucket.Attributes(ctx, name)
}

// body delivers bytes at the bandwidth of the model.
type body struct {
	io.ReadCloser
	ctx            context.Context
	bucket         *Bucket
	read           *Read
	bytes          *int64 // a count of bucket
	bytesPerSecond int64
}

// ObjectSize returns the size that the client tells.
func (b *body) ObjectSize() (int64, error) { return objstore.TryToGetSize(b.ReadCloser) }

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bucket.mu.Lock()
	*b.bytes += int64(n)
	r := b.read
	r.Bytes += int64(n)
	if b.bytesPerSecond > 0 {
		seconds := float64(r.Bytes) / float64(b.bytesPerSecond)
		r.End = r.firstByte.Add(time.Duration(seconds * float64(time.Second)))
	} else {
		r.End = time.Now()
	}
	end := r.End
	b.bucket.mu.Unlock()
	if e := until(b.ctx, end); e != nil {
		return n, e
	}
	return n, err
}

// until waits until t, or until the context ends.
func until(ctx context.Context, t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
