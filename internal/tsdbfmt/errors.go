package tsdbfmt

import (
	"errors"
	"fmt"
	"hash/crc32"
)

var (
	// ErrShort is returned if the bytes end within a length prefix: read more of the object to know
	// the size.
	ErrShort = errors.New("more bytes are needed")
	// ErrChecksum is returned if bytes do not match their stored checksum.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrCorrupt is returned for bytes that are invalid: a length past the end, a varint that never
	// ends, a value that its field does not allow.
	ErrCorrupt = errors.New("corrupt encoding")
)

// UnknownEncodingError is returned for a chunk with an unknown encoding byte. Such a chunk must not
// be sent: any type for it would be a guess.
type UnknownEncodingError struct {
	Enc byte
}

func (e *UnknownEncodingError) Error() string {
	return fmt.Sprintf("unknown chunk encoding %d", e.Enc)
}

// castagnoli is the polynomial of every checksum in a block.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)
