package storepb

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Answer stands for a message that a unary handler answers with. Sent is called once grpc has
// written the encoded message, or has dropped it.
type Answer interface {
	Payload() proto.Message
	Sent()
}

// marshalAnswer encodes an answer into a buffer that is not pooled, and ends with Sent.
func marshalAnswer(a Answer) (mem.BufferSlice, error) {
	m := a.Payload()
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, proto.Size(m)), m)
	if err != nil || mem.IsBelowBufferPoolingThreshold(cap(b)) {
		a.Sent() // the buffer of a small message has no end that shows
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	return mem.BufferSlice{mem.NewBuffer(&b, untilSent{a})}, nil
}

// untilSent is the pool that an answer's buffer goes back to.
type untilSent struct{ answer Answer }

func (untilSent) Get(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

func (u untilSent) Put(*[]byte) { u.answer.Sent() }
