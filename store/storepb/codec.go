package storepb

import (
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Codec is what a server that sends Frames is made with: grpc.ForceServerCodecV2(storepb.Codec()). It sends a *Frame as it is,
// refuses requests of the StoreAPI that have far too many fields, and leaves every other message, and all decoding, to grpc's own codec. On the wire nobody can tell
// the two apart.
func Codec() encoding.CodecV2 {
	return codec{next: encoding.GetCodecV2(protocodec.Name)}
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
	var req proto.Message
	switch v := v.(type) {
	case *SeriesRequest:
		req = v
	case *LabelNamesRequest:
		req = v
	case *LabelValuesRequest:
		req = v
	default:
		return c.next.Unmarshal(data, v)
	}
	wire := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer wire.Free()
	if err := checkEntries(req, wire.ReadOnlyData()); err != nil {
		return err
	}
	return c.next.Unmarshal(mem.BufferSlice{wire}, v)
}

func (c codec) Name() string { return protocodec.Name }
