package tsdbfmt

import (
	"errors"
	"fmt"
	"hash/crc32"
)

var (
	// ErrShort is returned when the bytes given end inside a length prefix: more of the object must
	// be read to know the size.
	ErrShort = errors.New("more bytes are needed")
	// ErrChecksum is returned when bytes do not have the checksum that is stored with them.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrCorrupt is returned when bytes cannot be what they should be: a length past the end, a
	// varint that never ends, a value that its field does not allow.
	ErrCorrupt = errors.New("corrupt encoding")
)

// UnknownEncodingError is returned for a chunk whose encoding byte is none that this package knows.
// Such a chunk must not be sent: any type given to it would be a guess.
type UnknownEncodingError struct {
	Enc byte
}

func (e *UnknownEncodingError) Error() string {
	return fmt.Sprintf("unknown chunk encoding %d", e.Enc)
}

// castagnoli is the polynomial of every checksum in a block.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)
