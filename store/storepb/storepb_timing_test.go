package storepb

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// BenchmarkEncode measures the encoder alone. Frames are released as soon as they are finished.
func BenchmarkEncode(b *testing.B) {
	for _, chunks := range []int{2, 20} {
		s := typicalSeries(chunks)
		for _, batch := range []int64{0, 64} {
			b.Run(fmt.Sprintf("chunks=%d/batch=%d", chunks, batch), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(SeriesSize(s.labels, s.chunks)))
				w := NewFrameWriter(NewFramePool(), batch, func(*Frame) error { return nil })
				for b.Loop() {
					if err := w.WriteSeries(s.labels, s.chunks); err != nil {
						b.Fatal(err)
					}
				}
				w.Discard()
			})
		}
	}
}

// rawCodec receives messages without decoding them, so that a benchmark measures the server.
type rawCodec struct{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) { return Codec().Marshal(v) }
func (rawCodec) Name() string                           { return "proto" }
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*int) += data.Len()
	return nil
}

// BenchmarkSend measures a whole stream: series are encoded, sent, and received by a client in this
// process that does not decode them. Allocations include both sides.
func BenchmarkSend(b *testing.B) {
	var series []sample
	for i := range 256 {
		series = append(series, typicalSeriesN(2, i))
	}
	pool := NewFramePool()
	var send int
	store := &fakeStore{
		series: func(req *SeriesRequest, stream grpc.ServerStreamingServer[SeriesResponse]) error {
			w := NewFrameWriter(pool, req.ResponseBatchSize,
				func(f *Frame) error { return stream.SendMsg(f) })
			for i := range send {
				s := &series[i%len(series)]
				if err := w.WriteSeries(s.labels, s.chunks); err != nil {
					return err
				}
			}
			return w.Flush()
		},
	}
	conn := serve(b, store)
	for _, compression := range []string{"", SnappyName} {
		for _, batch := range []int64{0, 64} {
			b.Run(fmt.Sprintf("compression=%s/batch=%d", compression, batch), func(b *testing.B) {
				send = b.N
				perFrame := max(1, int(batch))
				call := []grpc.CallOption{grpc.ForceCodecV2(rawCodec{})}
				if compression != "" {
					call = append(call, grpc.UseCompressor(compression))
				}
				stream, err := conn.NewStream(
					b.Context(),
					&Store_ServiceDesc.Streams[0],
					Store_Series_FullMethodName,
					call...)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(SeriesSize(series[0].labels, series[0].chunks)))
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				b.ResetTimer()
				if err := errors.Join(stream.SendMsg(&SeriesRequest{ResponseBatchSize: batch}),
					stream.CloseSend()); err != nil {
					b.Fatal(err)
				}
				frames, got := 0, 0
				for {
					err := stream.RecvMsg(&got)
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					frames++
				}
				b.StopTimer()
				runtime.ReadMemStats(&after)
				if want := (b.N + perFrame - 1) / perFrame; frames != want {
					b.Fatalf("got %d frames, want %d", frames, want)
				}
				b.ReportMetric(float64(frames)/b.Elapsed().Seconds(), "frames/s")
				b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(frames),
					"allocs/frame")
			})
		}
	}
}
