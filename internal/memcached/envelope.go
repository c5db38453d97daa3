package memcached

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
)

// ID identifies a value, in every process.
type ID = [32]byte

// A value on the wire: version (1 B), crc32c of ID and payload (4 B, little endian), ID, payload.
// The ID is included because a connection that is out of step returns the value of another key,
// with a correct checksum.
const (
	envelopeVersion = 1
	envelopeBytes   = 1 + 4 + len(ID{})
)

// keyBytes is the length of a key without its namespace.
var keyBytes = base64.RawURLEncoding.EncodedLen(len(ID{}))

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendKey appends the wire key of an ID.
func appendKey(dst []byte, namespace string, id *ID) []byte {
	dst = append(dst, namespace...)
	return base64.RawURLEncoding.AppendEncode(dst, id[:])
}

// appendEnvelope appends a value in its wire form.
func appendEnvelope(dst []byte, id *ID, payload []byte) []byte {
	crc := crc32.Update(crc32.Checksum(id[:], castagnoli), castagnoli, payload)
	dst = append(dst, envelopeVersion)
	dst = binary.LittleEndian.AppendUint32(dst, crc)
	dst = append(dst, id[:]...)
	return append(dst, payload...)
}

// Faults of a received value.
const (
	faultShort    = "short"
	faultVersion  = "version"
	faultChecksum = "checksum"
	faultIdentity = "identity"
)

// openEnvelope returns the payload of a received value, a part of b, if it was stored under the ID;
// otherwise it returns the fault.
func openEnvelope(b []byte, id *ID) (payload []byte, fault string) {
	switch {
	case len(b) < envelopeBytes:
		return nil, faultShort
	case b[0] != envelopeVersion:
		return nil, faultVersion
	case binary.LittleEndian.Uint32(b[1:]) != crc32.Checksum(b[5:], castagnoli):
		return nil, faultChecksum
	case ID(b[5:envelopeBytes]) != *id:
		return nil, faultIdentity
	}
	return b[envelopeBytes:], ""
}
