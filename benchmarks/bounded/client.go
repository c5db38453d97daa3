package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"larder/store/storepb"
)

// answer is the summary of an answer: small, but different for different answers.
type answer struct {
	series, chunks, values int
	bytes                  int64
	hash                   uint64
}

func (a answer) String() string {
	if a.values > 0 {
		return fmt.Sprintf("%d values", a.values)
	}
	return fmt.Sprintf("%d series, %d chunks", a.series, a.chunks)
}

// reading is an answer being read. Messages are counted and hashed in place, and not decoded,
// because decoding would be most of the work on a machine with two cores.
type reading struct {
	answer
	labels bool // the answer to a label request
	digest *xxhash.Digest
	err    error
	keep   func(message []byte) // may be nil
}

// rawCodec passes messages to a reading.
type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*reading)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	r.message(b.ReadOnlyData())
	return nil
}

func (r *reading) message(b []byte) {
	r.bytes += int64(len(b))
	_, _ = r.digest.Write(b) // never fails
	if r.keep != nil {
		r.keep(b)
	}
	each(b, &r.err, func(field int, value []byte) {
		switch {
		case r.labels && field == 1:
			r.values++
		case r.labels:
		case field == 1:
			r.oneSeries(value)
		case field == 4:
			each(value, &r.err, func(_ int, value []byte) { r.oneSeries(value) })
		}
	})
}

func (r *reading) oneSeries(b []byte) {
	r.series++
	each(b, &r.err, func(field int, _ []byte) {
		if field == 2 {
			r.chunks++
		}
	})
}

// each calls f with the fields of a message. All fields of larder's answers have a length.
func each(b []byte, bad *error, f func(field int, value []byte)) {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag&7 != 2 {
			*bad = fmt.Errorf("a field of type %d", tag&7)
			return
		}
		size, m := binary.Uvarint(b[n:])
		if m <= 0 || size > uint64(len(b)-n-m) {
			*bad = errors.New("a field that is cut off")
			return
		}
		b = b[n+m:]
		f(int(tag>>3), b[:size])
		b = b[size:]
	}
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30),
			grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2(proto.Name)})))
}

// ask sends a request and reads its answer to the end. It calls keep, if not nil, with every
// message.
func ask(ctx context.Context, conn *grpc.ClientConn, req any, keep func([]byte)) (answer, error) {
	_, labels := req.(*storepb.LabelValuesRequest)
	r := reading{labels: labels, digest: xxhash.New(), keep: keep}
	err := exchange(ctx, conn, req, &r)
	r.hash = r.digest.Sum64()
	return r.answer, errors.Join(err, r.err)
}

func exchange(ctx context.Context, conn *grpc.ClientConn, req any, r *reading) error {
	if r.labels {
		return conn.Invoke(ctx, storepb.Store_LabelValues_FullMethodName, req, r)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		storepb.Store_Series_FullMethodName)
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(req), stream.CloseSend()); err != nil &&
		!errors.Is(err, io.EOF) {
		return err
	}
	for {
		if err := stream.RecvMsg(r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
