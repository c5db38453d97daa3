package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/benchmarks/scenario"
	"larder/store/storepb"
)

// call is a request, encoded once.
type call struct {
	method string
	series bool
	tenant string // "" for none
	body   []byte
}

// encode encodes a request. With stats it asks for the statistics of the answer.
func encode(r *scenario.Request, stats bool) (call, error) {
	c := call{}
	switch m := r.Message.(type) {
	case *storepb.SeriesRequest:
		c.method, c.series = "/thanos.Store/Series", true
		if stats {
			hints, err := anypb.New(&storepb.SeriesRequestHints{EnableQueryStats: true})
			if err != nil {
				return c, err
			}
			m = proto.CloneOf(m)
			m.Hints = hints
			r.Message = m
		}
	case *storepb.LabelValuesRequest:
		c.method = "/thanos.Store/LabelValues"
	case *storepb.LabelNamesRequest:
		c.method = "/thanos.Store/LabelNames"
	default:
		return c, fmt.Errorf("no method for a %T", r.Message)
	}
	var err error
	c.body, err = proto.Marshal(r.Message)
	return c, err
}

// answer is what a client sees of an answer.
type answer struct {
	first, end time.Time
	bytes      int64
	stats      *storepb.QueryStats // nil without
}

// do makes a call and reads the answer to its end.
func do(ctx context.Context, conn *grpc.ClientConn, c *call) (a answer, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() { a.end = time.Now() }()
	if c.tenant != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "thanos-tenant", c.tenant)
	}
	// On the wire a unary call is a stream of one message.
	desc := &grpc.StreamDesc{StreamName: "Call", ServerStreams: true}
	stream, err := conn.NewStream(ctx, desc, c.method)
	if err != nil {
		return a, err
	}
	// An error of the server is returned by RecvMsg.
	if err := stream.SendMsg(c.body); err != nil && !errors.Is(err, io.EOF) {
		return a, err
	}
	if err := stream.CloseSend(); err != nil {
		return a, err
	}
	for {
		var m message
		err := stream.RecvMsg(&m)
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return a, err
		}
		if a.first.IsZero() {
			a.first = time.Now()
		}
		a.bytes += int64(m.bytes)
		if m.special != nil && c.series {
			if err := a.read(m.special); err != nil {
				return a, err
			}
		}
	}
}

// read reads a frame that is a warning or has hints.
func (a *answer) read(b []byte) error {
	var resp storepb.SeriesResponse
	if err := proto.Unmarshal(b, &resp); err != nil {
		return err
	}
	if w := resp.GetWarning(); w != "" {
		return fmt.Errorf("the answer has a warning: %s", w)
	}
	if resp.GetHints() == nil {
		return nil
	}
	var h storepb.SeriesResponseHints
	if err := resp.GetHints().UnmarshalTo(&h); err != nil {
		return err
	}
	a.stats = h.QueryStats
	return nil
}

// message is a received message: its size, and its bytes if it is a warning or has hints.
type message struct {
	bytes   int
	special []byte
}

// The first bytes of a SeriesResponse with a warning (field 2) and with hints (field 3).
const warningTag, hintsTag = 2<<3 | 2, 3<<3 | 2

// raw is a gRPC codec of encoded messages.
type raw struct{}

// Marshal passes a []byte on.
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("raw codec: cannot send a %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal fills a *message.
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return fmt.Errorf("raw codec: cannot receive into a %T", v)
	}
	m.bytes = data.Len()
	for _, b := range data {
		if p := b.ReadOnlyData(); len(p) > 0 {
			if p[0] == warningTag || p[0] == hintsTag {
				m.special = data.Materialize()
			}
			break
		}
	}
	return nil
}

// Name is that of the protobuf codec, because the messages are protobuf.
func (raw) Name() string { return "proto" }
