package intake

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/encoding"
)

const (
	// unpackedFreely is the decompressed size up to which messages are decompressed concurrently.
	// It is enough for hundreds of matchers. Larger messages are decompressed one at a time,
	// because decompression bombs would otherwise occupy every core.
	unpackedFreely = 64 << 10
	// maxUnpacking bounds the large messages that are decompressed or wait for it. They are not
	// counted by client, because grpc does not tell a decompressor the client.
	maxUnpacking = 32
	// unpackingWait is the maximum time that a large message waits for its turn. Decompressing 16
	// MiB takes about 30 ms.
	unpackingWait = 2 * time.Second
)

var errUnpacking = errors.New(
	"the server is busy decompressing other large messages: retry later, or without compression",
)

// BoundDecompression makes the named compressors reserve decompressed bytes in account. grpc's
// registry of compressors belongs to the process and is not locked: only a main package may call
// this, before anything uses grpc.
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
	// The client is not known here. All messages that are being decompressed count as one client.
	held := c.account.Open(context.Background())
	return &unpacking{next: next, reservation: held, account: c.account}, nil
}

// unpacking reserves the bytes that it returns until it is closed.
//
// INVARIANT: only Close releases the turn and the bytes. grpc always calls it. Releasing them at
// io.EOF would leak them, because grpc stops reading a message that is too large.
type unpacking struct {
	next        io.Reader
	reservation *Reservation
	account     *Account
	queued      bool // counted in maxUnpacking
	placed      bool
	returned    int64 // bytes, including those of the running Read
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
