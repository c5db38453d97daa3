package store_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	gproto "google.golang.org/protobuf/proto"

	"larder/benchmarks/dataset"
	"larder/internal/intake"
	"larder/store"
	"larder/store/storepb"
)

// fleetBlocks is 13 blocks of two hours, each with some 8,000 series of 400 pods.
func fleetBlocks() dataset.Layout {
	const hour = int64(3_600_000)
	src := dataset.Service{Name: "api", Namespace: "shop", Pods: 400, Handlers: 1}.Series(1)
	out := dataset.Layout{Name: "fleet13"}
	for i := range int64(13) {
		from := dataset.Epoch + 2*i*hour
		out.Blocks = append(out.Blocks, dataset.Block{
			ID:      ulid.ULID{1, byte(i)},
			MinTime: from, MaxTime: from + 2*hour, Interval: hour, Series: src,
			Labels: labels.FromStrings("cluster", "eu-west-1"),
		})
	}
	return out
}

// BenchmarkLabels asks over a loopback connection, with a client that does not decode. "first" asks
// something that was not asked before of blocks whose headers are open.
func BenchmarkLabels(b *testing.B) {
	metric := []*storepb.LabelMatcher{{Name: "__name__", Value: "http_requests_total"}}
	for _, c := range []struct {
		name   string
		layout dataset.Layout
		label  string // values of it; names if empty
		ms     []*storepb.LabelMatcher
	}{
		{"values/13blocks", fleetBlocks(), "pod", nil},
		{"values/13blocks/matcher", fleetBlocks(), "pod", metric},
		{"names/13blocks", fleetBlocks(), "", nil},
		{"names/13blocks/matcher", fleetBlocks(), "", metric},
		{
			"values/1block10000", dataset.ManyValues("manyvalues10k", 1, 10_000),
			dataset.ManyValuesLabel, nil,
		},
		{"values/500blocks", dataset.ManyBlocks500(1), "pod", nil},
		{"values/500blocks/matcher", dataset.ManyBlocks500(1), "pod", metric},
	} {
		for _, first := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/first=%v", c.name, first), func(b *testing.B) {
				account := intake.NewAccount(0, nil)
				g := startGateway(b, benchBucket(b, c.layout), gatewayOptions{
					server: func(o *store.Options) { o.Messages = account },
				})
				conn := countingClient(b, g, account)
				n := 0
				run := func() {
					var without []string
					if first { // another question with the same answer
						n++
						without = []string{fmt.Sprint(n)}
					}
					var req gproto.Message = &storepb.LabelValuesRequest{
						Label: c.label, End: 1 << 50, Matchers: c.ms, WithoutReplicaLabels: without,
					}
					method := "/thanos.Store/LabelValues"
					if c.label == "" {
						method = "/thanos.Store/LabelNames"
						req = &storepb.LabelNamesRequest{
							End: 1 << 50, Matchers: c.ms, WithoutReplicaLabels: without,
						}
					}
					var m rawMessage
					if err := conn.Invoke(b.Context(), method, req, &m); err != nil {
						b.Fatal(err)
					}
					b.SetBytes(m.bytes)
				}
				run()
				b.ReportAllocs()
				for b.Loop() {
					run()
				}
			})
		}
	}
}

// countingClient serves a gateway as cmd/larder does and returns a client that does not decode.
func countingClient(b *testing.B, g *gateway, account *intake.Account) *grpc.ClientConn {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := grpc.NewServer(grpc.ForceServerCodecV2(storepb.Codec()))
	storepb.RegisterStoreServer(intake.Registrar{Server: srv, Account: account}, g.Server)
	go func() { _ = srv.Serve(l) }()
	b.Cleanup(srv.Stop)
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
	b.Cleanup(func() { conn.Close() })
	return conn
}
