package storepb

import (
	"io"
	"sync"

	"github.com/klauspost/compress/s2"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // Registers "gzip".
)

// SnappyName is the message compression of Queriers with --grpc-compression=snappy.
const SnappyName = "snappy"

func init() {
	encoding.RegisterCompressor(newSnappyCompressor())
}

// snappyCompressor implements the framed snappy stream format (not the block format), same as the
// clients of Thanos. Writers and readers are pooled, because each holds about 140 KiB.
type snappyCompressor struct {
	writers, readers sync.Pool
}

func newSnappyCompressor() *snappyCompressor {
	c := &snappyCompressor{}
	c.writers.New = func() any {
		// Concurrency 1 compresses in the goroutine that sends. A frame is too small for other
		// goroutines to help.
		return &snappyWriter{
			Writer: s2.NewWriter(nil, s2.WriterSnappyCompat(), s2.WriterConcurrency(1)),
			pool:   &c.writers,
		}
	}
	c.readers.New = func() any {
		// Blocks of the format have at most 64 KiB. Without ReaderAllocBlock a reader allocates
		// more than 1 MiB at once.
		return s2.NewReader(nil, s2.ReaderMaxBlockSize(64<<10), s2.ReaderAllocBlock(64<<10))
	}
	return c
}

func (c *snappyCompressor) Name() string { return SnappyName }

func (c *snappyCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	z := c.writers.Get().(*snappyWriter)
	z.Reset(w)
	return z, nil
}

type snappyWriter struct {
	*s2.Writer
	pool *sync.Pool
}

// Close ends the stream and returns the writer to the pool. grpc calls it once, and not after a
// failed Write. The garbage collector frees the writer then.
func (z *snappyWriter) Close() error {
	err := z.Writer.Close()
	z.Reset(nil) // Drop the reference to the destination.
	z.pool.Put(z)
	return err
}

func (c *snappyCompressor) Decompress(r io.Reader) (io.Reader, error) {
	z := c.readers.Get().(*s2.Reader)
	z.Reset(r)
	return &snappyReader{z: z, pool: &c.readers}, nil
}

// snappyReader uses a pooled reader for one message.
type snappyReader struct {
	z    *s2.Reader // nil once closed
	pool *sync.Pool
}

func (r *snappyReader) Read(p []byte) (int, error) {
	if r.z == nil {
		return 0, io.EOF
	}
	return r.z.Read(p)
}

// Close returns the reader to the pool. grpc calls it at the end of a message. Read must not return
// the reader at io.EOF, because a later Read could then use the reader of another message.
func (r *snappyReader) Close() error {
	if r.z != nil {
		r.z.Reset(nil)
		r.pool.Put(r.z)
		r.z = nil
	}
	return nil
}
