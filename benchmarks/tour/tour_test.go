package tour

import (
	"context"
	"errors"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"larder/store/storepb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPrint(t *testing.T) {
	var b strings.Builder
	err := Print(&b, []Result{
		{
			Question: Question{Name: "one"},
			Cold:     Answer{FirstFrame: 12 * time.Millisecond, Total: 1234567 * time.Nanosecond},
			Warm: Answer{FirstFrame: time.Millisecond, Total: 2 * time.Millisecond, Series: 3,
				Chunks: 40, Samples: 500, Bytes: 1001},
		},
		{Question: Question{Name: "two"}, Cold: Answer{Text: "a"}, Warm: Answer{Text: "b"}},
		{Question: Question{Name: "three"}, Cold: Answer{Err: errors.New("no")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `
  COLD first  COLD all  WARM first  WARM all  series  chunks  samples  KB  what
     12.0 ms    1.2 ms      1.0 ms    2.0 ms       3      40      500   2  one
           -         -           -         -       -       -        -   -  two: b
           -         -           -         -       -       -        -   -  three: FAILED: no
`
	if diff := cmp.Diff(want[1:], b.String()); diff != "" {
		t.Error(diff)
	}
}

// server answers every Series request with the given frames.
type server struct {
	storepb.UnimplementedStoreServer
	storepb.UnimplementedInfoServer
	frames []*storepb.SeriesResponse
	err    error
	calls  int
}

func (s *server) Info(context.Context, *storepb.InfoRequest) (*storepb.InfoResponse, error) {
	return &storepb.InfoResponse{
		LabelSets: []*storepb.ZLabelSet{{Labels: []*storepb.Label{{Name: "a", Value: "b"}}}},
		Store:     &storepb.StoreInfo{MinTime: 0, MaxTime: 1000},
	}, nil
}

func (s *server) Series(_ *storepb.SeriesRequest, stream storepb.Store_SeriesServer) error {
	s.calls++
	for _, f := range s.frames {
		if err := stream.Send(f); err != nil {
			return err
		}
	}
	return s.err
}

// dial serves s and returns a tour of it. The server becomes ready when ready is called.
func dial(t *testing.T, s *server) (tour *Tour, ready func()) {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	h := health.NewServer()
	h.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(srv, h)
	storepb.RegisterStoreServer(srv, s)
	storepb.RegisterInfoServer(srv, s)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///",
		grpc.WithContextDialer(
			func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
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
	return New(conn), func() { h.SetServingStatus("", healthpb.HealthCheckResponse_SERVING) }
}

func oneSeries(
	minTime, maxTime int64, data string, hash uint64, labels ...string,
) *storepb.SeriesResponse {
	s := &storepb.Series{}
	for i := 0; i < len(labels); i += 2 {
		s.Labels = append(s.Labels, &storepb.Label{Name: labels[i], Value: labels[i+1]})
	}
	if data != "" {
		s.Chunks = []*storepb.AggrChunk{{MinTime: minTime, MaxTime: maxTime,
			Raw: &storepb.Chunk{Data: []byte(data), Hash: hash}}}
	}
	return &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: s}}
}

func batchOf(frames ...*storepb.SeriesResponse) *storepb.SeriesResponse {
	b := &storepb.SeriesBatch{}
	for _, f := range frames {
		b.Series = append(b.Series, f.GetSeries())
	}
	return &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Batch{Batch: b}}
}

func TestAnswers(t *testing.T) {
	const data = "\x00\x07data"
	good := xxhash.Sum64String(data)
	question := Question{Name: "q", ask: seriesQuestion{back: 500}.ask} // [500, 1000]
	f := func(name string, s *server, fails codes.Code, wantErr string, want Answer) {
		t.Helper()
		tour, ready := dial(t, s)
		ready()
		if err := tour.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		q := question
		q.Fails = fails
		results, err := tour.Take(t.Context(), []Question{q})
		if err != nil {
			t.Fatal(err)
		}
		if s.calls != 2 {
			t.Errorf("%s: asked %d times", name, s.calls)
		}
		err = Check(results)
		if (err == nil) != (wantErr == "") ||
			err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: error %v, want %q", name, err, wantErr)
		}
		got := results[0].Warm
		if wantErr == "" &&
			(got.Series != want.Series || got.Chunks != want.Chunks ||
				got.Samples != want.Samples || got.Frames != want.Frames) {
			t.Errorf("%s: %+v", name, got)
		}
	}

	f("nothing", &server{}, codes.OK, "", Answer{})
	f("single series", &server{frames: []*storepb.SeriesResponse{
		oneSeries(400, 500, data, good, "a", "1"), oneSeries(600, 700, data, good, "a", "1"),
		oneSeries(1000, 2000, data, good, "a", "1", "b", "2"),
	}}, codes.OK, "", Answer{Series: 2, Chunks: 3, Samples: 21, Frames: 3})
	f("batches", &server{frames: []*storepb.SeriesResponse{
		batchOf(oneSeries(500, 600, data, good, "a", "1"), oneSeries(500, 600, data, good, "b",
			"1")), batchOf(oneSeries(0, 0, "", 0, "c", "1")),
	}}, codes.OK, "", Answer{Series: 3, Chunks: 2, Samples: 14, Frames: 2})
	f("wrong order", &server{frames: []*storepb.SeriesResponse{oneSeries(0, 0, "", 0, "b", "1"),
		oneSeries(0, 0, "", 0, "a", "2")}}, codes.OK, "after", Answer{})
	f("unsorted labels",
		&server{frames: []*storepb.SeriesResponse{oneSeries(0, 0, "", 0, "b", "1", "a", "1")}},
		codes.OK, "not sorted", Answer{})
	f(
		"wrong hash", &server{
			frames: []*storepb.SeriesResponse{oneSeries(500, 600, data, good+1, "a", "1")}},
		codes.OK,
		"hash", Answer{})
	f(
		"too early", &server{frames: []*storepb.SeriesResponse{oneSeries(400, 499, data, good, "a",
			"1")}}, codes.OK, "outside", Answer{})
	f(
		"warning", &server{
			frames: []*storepb.SeriesResponse{
				{Result: &storepb.SeriesResponse_Warning{Warning: "careful"}}}}, codes.OK,
		"careful",
		Answer{})
	f("failure", &server{err: status.Error(codes.Aborted, "block gone")}, codes.OK, "block gone",
		Answer{})
	f("an expected failure", &server{err: status.Error(codes.InvalidArgument, "bad regex")},
		codes.InvalidArgument, "", Answer{})
	f("an expected failure that does not occur", &server{}, codes.InvalidArgument, "should have",
		Answer{})
}

func TestWaitReadyWaits(t *testing.T) {
	tour, ready := dial(t, &server{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := tour.WaitReady(ctx); err == nil {
		t.Error("a server that is not ready counts as ready")
	}
	ready()
	if err := tour.WaitReady(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestQuestionsNameDifferentThings: the names of questions tell the table's lines apart.
func TestQuestionsNameDifferentThings(t *testing.T) {
	seen := map[string]bool{}
	for _, q := range Questions() {
		if q.Name == "" || seen[q.Name] {
			t.Errorf("question %q occurs twice", q.Name)
		}
		seen[q.Name] = true
	}
}
