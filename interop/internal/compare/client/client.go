// Package client asks a store gateway and counts the bytes of the answer without decoding them, so
// that the client's work does not hide the server's.
package client

import (
	"context"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"larder/interop/internal/gateway"
)

// Call is a request, encoded once.
type Call struct {
	// Method is the full name of the gRPC method.
	Method  string
	Request []byte
}

// Result is what a call took.
type Result struct {
	First, Wall time.Duration
	Bytes       int64
	Frames      int
}

// Client has one connection, as a Querier has.
type Client struct{ conn *gateway.Client }

// Dial connects to a gateway.
func Dial(addr string) (*Client, error) {
	c, err := gateway.Dial(addr, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(Raw{})))
	if err != nil {
		return nil, err
	}
	return &Client{c}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Do makes the call. each, unless nil, gets every message of the answer, which is its to keep.
func (c *Client) Do(ctx context.Context, call Call, each func([]byte)) (Result, error) {
	var r Result
	begin := time.Now()
	// On the wire a unary call is a stream of one message.
	desc := &grpc.StreamDesc{StreamName: "Call", ServerStreams: true}
	stream, err := c.conn.Conn().NewStream(ctx, desc, call.Method)
	if err != nil {
		return r, err
	}
	if err := stream.SendMsg(Message(call.Request)); err != nil {
		return r, err
	}
	if err := stream.CloseSend(); err != nil {
		return r, err
	}
	for {
		m := received{copy: each != nil}
		err := stream.RecvMsg(&m)
		if err == io.EOF {
			break
		}
		if err != nil {
			return r, err
		}
		if r.Frames == 0 {
			r.First = time.Since(begin)
		}
		r.Frames++
		r.Bytes += m.n
		if each != nil {
			each(m.data)
		}
	}
	r.Wall = time.Since(begin)
	return r, nil
}

// Message is an encoded message.
type Message []byte

// received is a message of an answer: its size, and its bytes if they were asked for.
type received struct {
	copy bool
	n    int64
	data []byte
}

// Raw is a gRPC codec that passes encoded messages on.
type Raw struct{}

// Marshal takes a Message.
func (Raw) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(Message)
	if !ok {
		return nil, fmt.Errorf("raw codec: cannot send a %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(m)}, nil
}

// Unmarshal fills a *Message, or counts.
func (Raw) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *Message:
		*m = data.Materialize()
	case *received:
		m.n = int64(data.Len())
		if m.copy {
			m.data = data.Materialize()
		}
	default:
		return fmt.Errorf("raw codec: cannot receive into a %T", v)
	}
	return nil
}

// Name is that of the protobuf codec: what passes through is protobuf.
func (Raw) Name() string { return "proto" }
