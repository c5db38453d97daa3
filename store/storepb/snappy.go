package storepb

import (
	"io"
	"sync"

	"github.com/klauspost/compress/s2"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // Registers "gzip".
)

// SnappyName is the message compression that a Querier with --grpc-compression=snappy asks for.
const SnappyName = "snappy"

func init() {
	encoding.RegisterCompressor(newSnappyCompressor())
}

// snappyCompressor is the framed snappy stream format (not the block format), as Thanos's clients
// speak it. Writers and readers are pooled: each holds about 140 KiB.
type snappyCompressor struct {
	writers, readers sync.Pool
}

func newSnappyCompressor() *snappyCompressor {
	c := &snappyCompressor{}
	c.writers.New = func() any {
		// Concurrency 1 compresses in the goroutine that sends: a frame is too small for hand-overs
		// to pay.
		return &snappyWriter{
			Writer: s2.NewWriter(nil, s2.WriterSnappyCompat(), s2.WriterConcurrency(1)),
			pool:   &c.writers,
		}
	}
	c.readers.New = func() any {
		// The format's blocks hold at most 64 KiB; without ReaderAllocBlock a reader starts with
		// more than 1 MiB.
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

// Close ends the stream. grpc closes exactly once, and not after a failed Write: then the writer is
// left to the collector.
func (z *snappyWriter) Close() error {
	err := z.Writer.Close()
	z.Reset(nil) // Lets go of the destination.
	z.pool.Put(z)
	return err
}

func (c *snappyCompressor) Decompress(r io.Reader) (io.Reader, error) {
	z := c.readers.Get().(*s2.Reader)
	z.Reset(r)
	return &snappyReader{z: z, pool: &c.readers}, nil
}

// snappyReader lends a pooled reader to one message.
type snappyReader struct {
	z    *s2.Reader // nil once given back
	pool *sync.Pool
}

func (r *snappyReader) Read(p []byte) (int, error) {
	if r.z == nil {
		return 0, io.EOF
	}
	return r.z.Read(p)
}

// Close gives the reader back. grpc closes whatever a compressor returns when it is done with a
// message; giving back at io.EOF instead would let a Read after it meet another message's reader.
func (r *snappyReader) Close() error {
	if r.z != nil {
		r.z.Reset(nil)
		r.pool.Put(r.z)
		r.z = nil
	}
	return nil
}
