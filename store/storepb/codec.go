package storepb

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Codec is what a server that sends Frames is made with: grpc.ForceServerCodecV2(storepb.Codec()). It sends a *Frame as it is and
// leaves every other message, and all decoding, to grpc's own codec. On the wire nobody can tell the two apart.
func Codec() encoding.CodecV2 {
	return codec{next: encoding.GetCodecV2(proto.Name)}
}

type codec struct {
	next encoding.CodecV2
}

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*Frame); ok {
		return f.take()
	}
	return c.next.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	return c.next.Unmarshal(data, v)
}

func (c codec) Name() string { return proto.Name }
