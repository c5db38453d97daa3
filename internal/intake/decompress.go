package intake

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/encoding"
)

const (
	// unpackedFreely is how much comes out of a decompressor side by side with others. Requests are
	// smaller: 64 KiB are hundreds of matchers. Beyond it messages are decompressed one at a time,
	// because a client that sends bombs would otherwise keep every core busy.
	unpackedFreely = 64 << 10
	// maxUnpacking is how many large messages are decompressed or wait for it. They are not counted
	// by client: grpc does not say whose message it has decompressed.
	maxUnpacking = 32
	// unpackingWait is how long a large message waits for its turn. One of 16 MiB takes some 30 ms.
	unpackingWait = 2 * time.Second
)

var errUnpacking = errors.New(
	"the server is busy decompressing other large messages: ask again later, or without compression",
)

// BoundDecompression makes the decompressors of the named compressors reserve the bytes that come
// out of them in account. grpc's registry of compressors is that of the process, and is not locked:
// only a main package calls this, before anything uses grpc.
func BoundDecompression(account *Account, names ...string) {
	for _, name := range names {
		c := encoding.GetCompressor(name)
		if b, ok := c.(*compressor); ok {
			c = b.Compressor
		}
		encoding.RegisterCompressor(&compressor{c, account})
	}
}

type compressor struct {
	encoding.Compressor
	account *Account
}

func (c *compressor) Decompress(r io.Reader) (io.Reader, error) {
	next, err := c.Compressor.Decompress(r)
	if err != nil {
		return nil, err
	}
	// No client is known here: all that is being decompressed counts as one.
	held := c.account.Open(context.Background())
	return &unpacking{next: next, reservation: held, account: c.account}, nil
}

// unpacking reserves what it returns until it is closed.
//
// INVARIANT: the place and the bytes are given back by Close alone, which grpc calls whatever
// becomes of the message. To give them back at io.EOF would lose them: grpc stops reading a message
// that is too large.
type unpacking struct {
	next        io.Reader
	reservation *Reservation
	account     *Account
	queued      bool // among maxUnpacking
	placed      bool
	returned    int64 // bytes, with those of the Read that is running
}

func (u *unpacking) Read(p []byte) (int, error) {
	if err := u.reservation.Reserve(int64(len(p))); err != nil {
		return 0, err
	}
	if u.returned += int64(len(p)); !u.placed && u.returned > unpackedFreely {
		if err := u.wait(); err != nil {
			return 0, err
		}
	}
	n, err := u.next.Read(p)
	u.returned -= int64(len(p) - n)
	u.reservation.Release(int64(len(p) - n))
	return n, err
}

func (u *unpacking) wait() error {
	if u.account.large.Add(1) > maxUnpacking {
		u.account.large.Add(-1)
		return errUnpacking
	}
	u.queued = true
	t := time.NewTimer(unpackingWait)
	defer t.Stop()
	select {
	case u.account.unpacking <- struct{}{}:
		u.placed = true
		return nil
	case <-t.C:
		return errUnpacking
	}
}

func (u *unpacking) Close() error {
	var err error
	if c, ok := u.next.(io.Closer); ok {
		err = c.Close()
	}
	if u.placed {
		<-u.account.unpacking
		u.placed = false
	}
	if u.queued {
		u.account.large.Add(-1)
		u.queued = false
	}
	u.reservation.Close()
	return err
}
