package intake

import (
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
	// unpackingWait is how long a large message waits for its turn. One of 16 MiB takes some 30 ms.
	unpackingWait = 10 * time.Second
)

var errUnpackingWait = errors.New(
	"the server is busy decompressing other large messages: ask again later",
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
	return &unpacking{next: next, reservation: c.account.Open(), place: c.account.unpacking}, nil
}

// unpacking reserves what it returns until it is closed.
//
// INVARIANT: the place and the bytes are given back by Close alone, which grpc calls whatever
// becomes of the message. To give them back at io.EOF would lose them: grpc stops reading a message
// that is too large.
type unpacking struct {
	next        io.Reader
	reservation *Reservation
	place       chan struct{}
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
	t := time.NewTimer(unpackingWait)
	defer t.Stop()
	select {
	case u.place <- struct{}{}:
		u.placed = true
		return nil
	case <-t.C:
		return errUnpackingWait
	}
}

func (u *unpacking) Close() error {
	var err error
	if c, ok := u.next.(io.Closer); ok {
		err = c.Close()
	}
	if u.placed {
		<-u.place
		u.placed = false
	}
	u.reservation.Close()
	return err
}
