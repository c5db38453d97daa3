package store_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// benchBucket writes a layout into LARDER_BENCH_DIR, where later runs find it, or else into a
// directory of the benchmark.
func benchBucket(b *testing.B, layout dataset.Layout) string {
	b.Helper()
	dir := os.Getenv("LARDER_BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	dir = filepath.Join(dir, layout.Name)
	if _, err := os.Stat(filepath.Join(dir, "complete")); err == nil {
		return dir
	}
	if _, err := layout.Write(context.Background(), dir, dataset.WriteOptions{}); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "complete"), nil, 0o600); err != nil {
		b.Fatal(err)
	}
	return dir
}

func wholeMetric(batch int64) *storepb.SeriesRequest {
	return &storepb.SeriesRequest{
		MinTime: 0, MaxTime: 1 << 50, ResponseBatchSize: batch,
		Matchers: []*storepb.LabelMatcher{{Name: "__name__", Value: dataset.WholeMetricName}},
	}
}

// sink is a server stream that drops frames, so that a benchmark measures larder alone.
type sink struct {
	grpc.ServerStream
	ctx   context.Context
	bytes int64
}

func (s *sink) Context() context.Context           { return s.ctx }
func (s *sink) Send(*storepb.SeriesResponse) error { panic("frames only") }

func (s *sink) SendMsg(
	m any,
) error {
	s.bytes += int64(m.(*storepb.Frame).Size())
	return nil
}

// BenchmarkSeriesWarm answers {__name__="..."} over 50,000 series, without grpc and with all pages
// in memory: from index pages, while a series set is built, and from the set.
func BenchmarkSeriesWarm(b *testing.B) {
	f := func(name string, setBytes int64, build bool) {
		b.Run(name, func(b *testing.B) {
			g := startGateway(b, benchBucket(b, dataset.Bench50k(1)),
				gatewayOptions{setBytes: setBytes, chunkBytes: 512 << 20})
			n := 0
			run := func() int64 {
				s := &sink{ctx: context.Background()}
				req := wholeMetric(64)
				if n++; build {
					req.WithoutReplicaLabels = []string{fmt.Sprint(n)} // another set
				}
				if err := g.Server.Series(req, s); err != nil {
					b.Fatal(err)
				}
				return s.bytes
			}
			run()
			b.ReportAllocs()
			for b.Loop() {
				b.SetBytes(run())
			}
		})
	}
	f("pages", -1, false)
	f("build", 64<<20, true)
	f("set", 64<<20, false)
}

// countingCodec counts the bytes of received messages and does not decode them.
type countingCodec struct{ encoding.CodecV2 }

type rawMessage struct{ bytes int64 }

func (c countingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(*rawMessage); ok {
		m.bytes += int64(data.Len())
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// BenchmarkSeriesWarmGRPC is BenchmarkSeriesWarm over a loopback connection, including the client.
func BenchmarkSeriesWarmGRPC(b *testing.B) {
	g := startGateway(b, benchBucket(b, dataset.Bench50k(1)), gatewayOptions{chunkBytes: 512 << 20})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := grpc.NewServer(grpc.ForceServerCodecV2(storepb.Codec()))
	storepb.RegisterStoreServer(srv, g.Server)
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	conn, err := grpc.NewClient(
		l.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(countingCodec{encoding.GetCodecV2(proto.Name)}),
		),
	)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	run := func() int64 {
		stream, err := conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true},
			"/thanos.Store/Series")
		if err != nil {
			b.Fatal(err)
		}
		if err := stream.SendMsg(wholeMetric(64)); err != nil {
			b.Fatal(err)
		}
		if err := stream.CloseSend(); err != nil {
			b.Fatal(err)
		}
		var m rawMessage
		for {
			if err := stream.RecvMsg(&m); err == io.EOF {
				return m.bytes
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
	run()
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(run())
	}
}
