package storepb

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Answer stands for a message that a unary handler answers with. Sent is called once grpc has
// written the encoded message, or has dropped it.
type Answer interface {
	// Encoded returns the parts of the message if it is encoded already, otherwise nil.
	Encoded() [][]byte
	// Payload returns the message that is to be encoded if Encoded returns nil.
	Payload() proto.Message
	Sent()
}

// marshalAnswer returns an answer in buffers that are not pooled. It calls Sent when grpc frees the
// largest of them.
func marshalAnswer(a Answer) (mem.BufferSlice, error) {
	parts := a.Encoded()
	if parts == nil {
		m := a.Payload()
		b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, proto.Size(m)), m)
		if err != nil {
			a.Sent()
			return nil, err
		}
		parts = [][]byte{b}
	}
	largest := 0
	for i, part := range parts {
		if len(part) > len(parts[largest]) {
			largest = i
		}
	}
	out := make(mem.BufferSlice, len(parts))
	for i, part := range parts {
		if i == largest && !mem.IsBelowBufferPoolingThreshold(cap(part)) {
			out[i] = mem.NewBuffer(&part, untilSent{a})
			continue
		}
		out[i] = mem.SliceBuffer(part)
		if i == largest {
			a.Sent() // grpc does not tell when it frees a small buffer
		}
	}
	return out, nil
}

// untilSent is the pool that grpc puts the buffer of an answer into. It keeps nothing.
type untilSent struct{ answer Answer }

func (untilSent) Get(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

func (u untilSent) Put(*[]byte) { u.answer.Sent() }
