package storepb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore answers Series with its series function.
type fakeStore struct {
	UnimplementedStoreServer
	UnimplementedInfoServer
	series func(*SeriesRequest, grpc.ServerStreamingServer[SeriesResponse]) error
}

func (s *fakeStore) Series(
	req *SeriesRequest, stream grpc.ServerStreamingServer[SeriesResponse],
) error {
	return s.series(req, stream)
}

func (s *fakeStore) LabelNames(
	_ context.Context, req *LabelNamesRequest,
) (*LabelNamesResponse, error) {
	return &LabelNamesResponse{Names: req.WithoutReplicaLabels}, nil
}

func (s *fakeStore) Info(context.Context, *InfoRequest) (*InfoResponse, error) {
	return &InfoResponse{ComponentType: "store", Store: &StoreInfo{MinTime: -1, MaxTime: 1}}, nil
}

// serve starts a server with Codec and dials it. Both are closed at the end of the test.
func serve(t testing.TB, store *fakeStore, opts ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	return serveWith(t, store, opts, nil)
}

func serveWith(
	t testing.TB, store *fakeStore, opts []grpc.ServerOption, dial []grpc.DialOption,
) *grpc.ClientConn {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(append(opts, grpc.ForceServerCodecV2(Codec()))...)
	RegisterStoreServer(srv, store)
	RegisterInfoServer(srv, store)
	reflection.Register(srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///bufconn", append(
		dial,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(
			func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) },
		),
	)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// watchedStream stands for an interceptor: it formats every message before and after it is sent.
type watchedStream struct {
	grpc.ServerStream
	messages []any
}

func (s *watchedStream) SendMsg(m any) error {
	s.messages = append(s.messages, m)
	before := fmt.Sprint(m)
	err := s.ServerStream.SendMsg(m)
	if after := fmt.Sprint(m); before != after {
		return fmt.Errorf("message changed from %q to %q", before, after)
	}
	return err
}

// compressions is a stats handler of a client that counts answers by compression.
type compressions struct {
	mu   sync.Mutex
	seen map[string]int // guarded by mu
}

func (c *compressions) TagRPC(
	ctx context.Context, _ *stats.RPCTagInfo,
) context.Context {
	return ctx
}

func (c *compressions) TagConn(
	ctx context.Context, _ *stats.ConnTagInfo,
) context.Context {
	return ctx
}
func (c *compressions) HandleConn(context.Context, stats.ConnStats) {}
func (c *compressions) HandleRPC(_ context.Context, s stats.RPCStats) {
	if h, ok := s.(*stats.InHeader); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.seen[h.Compression]++
	}
}

func recvAll(stream grpc.ServerStreamingClient[SeriesResponse]) ([]*SeriesResponse, error) {
	var out []*SeriesResponse
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, m)
	}
}

// TestTransport sends the same series through every combination of compression, batching,
// interceptors and tracing. Buffers are overwritten when they are released, therefore a frame that
// is released too early would not decode.
func TestTransport(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	var series []sample
	var want []*Series
	for i := range 100 {
		s := randomSample(r)
		s.labels = AppendLabel(s.labels, "~", fmt.Sprint(i))
		s.msg.Labels = append(s.msg.Labels, &Label{Name: "~", Value: fmt.Sprint(i)})
		series = append(series, s)
		want = append(want, s.msg)
	}
	long := sized(1_000_000, 700<<10, 700<<10, 1<<20+1, 5)
	for _, c := range long.chunks {
		clear(c.Parts[0].Data) // gzip needs seconds for this much noise with the race detector
	}
	series, want = append(series, long), append(want, long.msg)
	hints, err := anypb.New(&SeriesResponseHints{QueriedBlocks: []*Block{{Id: "block"}}})
	if err != nil {
		t.Fatal(err)
	}

	watch := func(
		srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler,
	) error {
		return handler(srv, &watchedStream{ServerStream: ss})
	}
	for _, intercept := range []bool{false, true} {
		for _, traced := range []bool{false, true} {
			pool := newTestPool(t)
			store := &fakeStore{
				series: func(
					req *SeriesRequest, stream grpc.ServerStreamingServer[SeriesResponse],
				) error {
					w := NewFrameWriter(pool, req.ResponseBatchSize,
						func(f *Frame) error { return stream.SendMsg(f) })
					defer w.Discard()
					for _, s := range series {
						if err := w.WriteSeries(s.labels, s.chunks); err != nil {
							return err
						}
					}
					if err := w.WriteWarning("careful"); err != nil {
						return err
					}
					return w.WriteHints(hints)
				},
			}
			var opts []grpc.ServerOption
			if intercept {
				opts = append(opts, grpc.ChainStreamInterceptor(watch, watch))
			}
			if traced {
				tp := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()))
				opts = append(opts,
					grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(tp))))
			}
			seen := &compressions{seen: map[string]int{}}
			client := NewStoreClient(
				serveWith(t, store, opts, []grpc.DialOption{grpc.WithStatsHandler(seen)}),
			)

			for _, compression := range []string{"", "gzip", SnappyName} {
				for _, batch := range []int64{0, 64} {
					t.Run(
						fmt.Sprintf("intercept=%v/traced=%v/compression=%s/batch=%d",
							intercept, traced, compression, batch),
						func(t *testing.T) {
							call := []grpc.CallOption{grpc.MaxCallRecvMsgSize(64 << 20)}
							if compression != "" {
								call = append(call, grpc.UseCompressor(compression))
							}
							before := seen.seen[compression]
							stream, err := client.Series(
								t.Context(),
								&SeriesRequest{ResponseBatchSize: batch},
								call...)
							if err != nil {
								t.Fatal(err)
							}
							frames, err := recvAll(stream)
							if err != nil {
								t.Fatal(err)
							}
							if len(frames) < 2 || frames[len(frames)-2].GetWarning() != "careful" ||
								frames[len(frames)-1].GetHints() == nil {
								t.Fatalf("%d frames do not end in the warning and the hints",
									len(frames))
							}
							wantSeries(t, want, join(frames))
							if got := seen.seen[compression] - before; got != 1 {
								t.Errorf("answers compressed as %q: got %d, want 1 (of %v)",
									compression, got, seen.seen)
							}
							pool.waitNoneOut()
						},
					)
				}
			}
		}
	}
}

// TestCodecFallsThrough checks that grpc's own codec handles messages that are not Frames.
func TestCodecFallsThrough(t *testing.T) {
	store := &fakeStore{
		series: func(_ *SeriesRequest, stream grpc.ServerStreamingServer[SeriesResponse]) error {
			return stream.Send(
				&SeriesResponse{Result: &SeriesResponse_Warning{Warning: "a plain message"}},
			)
		},
	}
	conn := serve(t, store)
	info, err := NewInfoClient(conn).Info(t.Context(), &InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(
		&InfoResponse{ComponentType: "store", Store: &StoreInfo{MinTime: -1, MaxTime: 1}}, info,
		protocmp.Transform()); diff != "" {
		t.Errorf("Info (-want +got):\n%s", diff)
	}
	names, err := NewStoreClient(
		conn,
	).LabelNames(t.Context(), &LabelNamesRequest{WithoutReplicaLabels: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, names.Names); diff != "" {
		t.Errorf("LabelNames (-want +got):\n%s", diff)
	}
	stream, err := NewStoreClient(conn).Series(t.Context(), &SeriesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	frames, err := recvAll(stream)
	if err != nil || len(frames) != 1 || frames[0].GetWarning() != "a plain message" {
		t.Errorf("got %v, %v", frames, err)
	}
	if _, err := Codec().Marshal("not a message"); err == nil {
		t.Error("Codec encoded a string without an error")
	}
}

// TestReflection checks that a client without the .proto files finds the services and their types.
func TestReflection(t *testing.T) {
	conn := serve(t, &fakeStore{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	got := map[string]bool{}
	for _, s := range ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}).GetListServicesResponse().GetService() {
		got[s.Name] = true
	}
	for _, want := range []string{"thanos.Store", "thanos.info.Info"} {
		if !got[want] {
			t.Errorf("services %v lack %s", got, want)
		}
	}
	for _, symbol := range []string{"thanos.Store", "thanos.info.Info", "hintspb.QueryStats"} {
		resp := ask(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{
				FileContainingSymbol: symbol,
			},
		})
		if len(resp.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("%s: no file (%v)", symbol, resp.GetErrorResponse())
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

// refusingStream is an interceptor that fails before grpc sees the message.
type refusingStream struct{ grpc.ServerStream }

func (refusingStream) SendMsg(any) error { return status.Error(codes.PermissionDenied, "refused") }

// TestSendFails checks that the buffer returns to the pool once, whichever side fails.
func TestSendFails(t *testing.T) {
	s := typicalSeries(20)
	t.Run("before grpc takes it", func(t *testing.T) {
		pool := newTestPool(t)
		store := &fakeStore{
			series: func(
				_ *SeriesRequest, stream grpc.ServerStreamingServer[SeriesResponse],
			) error {
				f := NewSeriesFrame(pool, s.labels, s.chunks)
				defer f.Release()
				return stream.SendMsg(f)
			},
		}
		conn := serve(
			t,
			store,
			grpc.StreamInterceptor(
				func(
					srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler,
				) error {
					return h(srv, refusingStream{ss})
				},
			),
		)
		stream, err := NewStoreClient(conn).Series(t.Context(), &SeriesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = recvAll(stream); status.Code(err) != codes.PermissionDenied {
			t.Errorf("got %v", err)
		}
		pool.waitNoneOut()
	})
	t.Run("in grpc", func(t *testing.T) {
		pool := newTestPool(t)
		store := &fakeStore{
			series: func(
				_ *SeriesRequest, stream grpc.ServerStreamingServer[SeriesResponse],
			) error {
				f := NewSeriesFrame(pool, s.labels, s.chunks)
				defer f.Release()
				return stream.SendMsg(f)
			},
		}
		stream, err := NewStoreClient(
			serve(t, store, grpc.MaxSendMsgSize(100)),
		).Series(t.Context(), &SeriesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = recvAll(stream); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("got %v", err)
		}
		pool.waitNoneOut()
	})
	t.Run("twice", func(t *testing.T) {
		pool := newTestPool(t)
		store := &fakeStore{
			series: func(
				_ *SeriesRequest, stream grpc.ServerStreamingServer[SeriesResponse],
			) error {
				f := NewSeriesFrame(pool, s.labels, s.chunks)
				defer f.Release()
				if err := stream.SendMsg(f); err != nil {
					return err
				}
				return stream.SendMsg(f)
			},
		}
		stream, err := NewStoreClient(serve(t, store)).Series(t.Context(), &SeriesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		frames, err := recvAll(stream)
		if status.Code(err) != codes.Internal || len(frames) != 1 {
			t.Errorf("got %d frames, %v; want one and Internal", len(frames), err)
		}
		pool.waitNoneOut()
	})
	t.Run("client goes away", func(t *testing.T) {
		pool := newTestPool(t)
		failed := make(chan error, 1)
		store := &fakeStore{
			series: func(
				req *SeriesRequest, stream grpc.ServerStreamingServer[SeriesResponse],
			) error {
				w := NewFrameWriter(pool, req.ResponseBatchSize,
					func(f *Frame) error { return stream.SendMsg(f) })
				defer w.Discard()
				for {
					if err := w.WriteSeries(s.labels, s.chunks); err != nil {
						failed <- err
						return err
					}
				}
			},
		}
		client := NewStoreClient(serve(t, store))
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			stream, err := client.Series(ctx, &SeriesRequest{ResponseBatchSize: 10})
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				if _, err := stream.Recv(); err != nil {
					t.Fatal(err)
				}
			}
			cancel()
			select {
			case err := <-failed:
				if c := status.Code(err); c != codes.Canceled && c != codes.Unavailable {
					t.Errorf("got %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the server still sends after the client has cancelled")
			}
		}
		// grpc drops the buffers that are queued for a cancelled stream, and the garbage collector
		// frees them. None may return twice, which the pool checks, and larder must not keep the
		// last frame.
		if n := pool.outNow(); n > 2*20 {
			t.Errorf("%d buffers are still out after 20 cancelled streams", n)
		}
	})
}
