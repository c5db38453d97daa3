package storepb

import (
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Codec returns the codec for servers that send Frames: grpc.ForceServerCodecV2(storepb.Codec()).
// It sends a *Frame unchanged, and notifies an Answer when it was sent. It rejects StoreAPI
// requests with too many fields, and skips messages that a Receiver does not accept. grpc's own
// codec handles all other messages. The wire format is the same.
func Codec() encoding.CodecV2 {
	return codec{next: encoding.GetCodecV2(protocodec.Name)}
}

// Receiver wraps a message to be received. The message is decoded into Target.
type Receiver interface {
	Target() any
	// Accept is called before anything is decoded, with the length of the message on the wire. For
	// a StoreAPI request it is called again with the number of fields. If it returns false, the
	// message is not decoded, and the receiver must end the request. Codec cannot do so, because
	// grpc would turn its error into Internal.
	Accept(bytes, fields int) bool
}

type codec struct {
	next encoding.CodecV2
}

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*Frame); ok {
		return f.take()
	}
	if a, ok := v.(Answer); ok {
		return marshalAnswer(a)
	}
	return c.next.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	receiver, ok := v.(Receiver)
	if ok {
		if !receiver.Accept(data.Len(), 0) {
			return nil
		}
		v = receiver.Target()
	}
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
	fields, err := checkEntries(req, wire.ReadOnlyData())
	if err != nil {
		return err
	}
	if ok && !receiver.Accept(wire.Len(), fields) {
		return nil
	}
	return c.next.Unmarshal(mem.BufferSlice{wire}, v)
}

func (c codec) Name() string { return protocodec.Name }
