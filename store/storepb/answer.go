package storepb

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Answer wraps the response message of a unary handler. Codec calls Sent once, when grpc has
// written or dropped the encoded message.
type Answer interface {
	Payload() proto.Message
	Sent()
}

// marshalAnswer encodes an answer into a buffer that is not pooled. Sent is called on an error too.
func marshalAnswer(a Answer) (mem.BufferSlice, error) {
	m := a.Payload()
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, proto.Size(m)), m)
	if err != nil || mem.IsBelowBufferPoolingThreshold(cap(b)) {
		a.Sent() // grpc does not free the buffer of a small message
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	return mem.BufferSlice{mem.NewBuffer(&b, untilSent{a})}, nil
}

// untilSent is the pool of an answer's buffer. grpc returns the buffer once it is sent.
type untilSent struct{ answer Answer }

func (untilSent) Get(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

func (u untilSent) Put(*[]byte) { u.answer.Sent() }
