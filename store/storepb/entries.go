package storepb

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// maxEntries bounds the fields of a request, with those of nested messages and the numbers in
// lists. The bound is checked before decoding, because two bytes on the wire can become a matcher
// of a hundred bytes in memory. 10,000 matchers are 40,000 fields.
const maxEntries = 45_000

// checkEntries counts the fields of an encoded message. It returns an error if there are too many.
// It ignores malformed bytes, because the decoder rejects them.
func checkEntries(m proto.Message, wire []byte) (int, error) {
	left := countEntries(m.ProtoReflect().Descriptor(), wire, maxEntries)
	if left < 0 {
		return 0, fmt.Errorf("more than %d fields in a %s: split the request",
			maxEntries, m.ProtoReflect().Descriptor().FullName())
	}
	return maxEntries - left, nil
}

// countEntries subtracts the number of fields in b from left. It stops once the result is negative.
func countEntries(md protoreflect.MessageDescriptor, b []byte, left int) int {
	for len(b) > 0 && left >= 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return left
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return left
		}
		left--
		if fd := md.Fields().ByNumber(num); fd != nil && typ == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b)
			switch {
			case fd.Message() != nil:
				left = countEntries(fd.Message(), value, left)
			case fd.IsList() && fd.Kind() != protoreflect.StringKind &&
				fd.Kind() != protoreflect.BytesKind:
				left -= len(value) // packed numbers, of at least one byte each
			}
		}
		b = b[n:]
	}
	return left
}

// UnmarshalHints decodes the hints of a request into m.
func UnmarshalHints(hints *anypb.Any, m proto.Message) error {
	if _, err := checkEntries(m, hints.GetValue()); err != nil {
		return err
	}
	return hints.UnmarshalTo(m)
}
