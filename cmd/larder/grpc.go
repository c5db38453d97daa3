package main

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"larder/internal/inbound"
	"larder/internal/intake"
	"larder/internal/panics"
	"larder/internal/requestlog"
	"larder/internal/telemetry"
	"larder/store/storepb"
)

// Bounds of clients that are not flags. docs/security.md lists all bounds. The size of answers is
// bounded only by what gRPC can send.
const (
	maxAnswerBytes = math.MaxInt32
	// maxRequestBytes bounds a message. It is enough for ten thousand matchers of 1,600 bytes, and
	// small enough that a few hostile requests do not exhaust the memory.
	maxRequestBytes = 16 << 20
	// maxHeaderBytes bounds the metadata of a request. grpc's default is 16 MiB.
	maxHeaderBytes = 16 << 10
	// handshakeTimeout bounds TLS and the beginning of HTTP/2 on a new connection.
	handshakeTimeout = 20 * time.Second
	// A connection without traffic for deadPeerPing is pinged, and closed without an answer within
	// deadPeerTimeout. grpc's default is 2 hours.
	deadPeerPing    = time.Minute
	deadPeerTimeout = 20 * time.Second
	// streamWindow is the number of bytes that a client may send on a stream before they are read,
	// connectionWindow that for all streams of a connection. grpc's default grows with the
	// bandwidth, up to 16 MiB for each stream.
	streamWindow     = 64 << 10
	connectionWindow = 1 << 20
	// maxSmallMessage bounds the messages of Info, Health and reflection, which only name services
	// and symbols.
	maxSmallMessage = 4 << 10
	// reflectionLifetime bounds a stream of reflection. Tools need it for seconds.
	reflectionLifetime = 10 * time.Minute
	// watchLifetime bounds a Watch of Health, so that --grpc-server-max-connection-age can end its
	// connection.
	watchLifetime = time.Hour
	// maxConnectionGrace is the time for requests to finish on a connection that has reached its
	// maximum age.
	maxConnectionGrace = time.Hour
	// maxConnectionIdle is the time after which a connection without requests is closed. Queriers
	// call Info every few seconds.
	maxConnectionIdle = 15 * time.Minute
)

type grpcConfig struct {
	address                 string
	grace, maxConnectionAge time.Duration
	tls                     serverTLS
	// maxConnections bounds all connections, maxPerClient those of one address, maxStreams the
	// requests of a connection, maxRequestsPerClient those of one address. 0: no bound.
	maxConnections, maxPerClient, maxStreams, maxRequestsPerClient int
	shares                                                         []inbound.Share
	reflection                                                     bool
}

func (c *grpcConfig) flags(f flagger) {
	flag(f, "grpc-address", "0.0.0.0:10901", &c.address, text,
		"Listen host:port for gRPC: StoreAPI and Info.")
	flag(f, "grpc-grace-period", "2m", &c.grace, goDuration,
		"Time for running gRPC requests to finish after a stop signal. 0 = cancel them at once.")
	flag(f, "grpc-server-max-connection-age", "60m", &c.maxConnectionAge, goDuration,
		"Age of a connection at which its client is asked to reconnect. 0 = never.")
	flag(f, "grpc-max-connections", "1024", &c.maxConnections, integer(0),
		"Maximum number of gRPC connections. Further connections are closed at once. "+
			"0 = no limit.")
	flag(f, "grpc-max-connections-per-client", "256", &c.maxPerClient, integer(0),
		"Maximum number of gRPC connections from one address (IPv6: one /64). "+
			"Clients behind one proxy share the address of the proxy. 0 = no limit.")
	flag(f, "grpc-max-requests-per-client", "2048", &c.maxRequestsPerClient, integer(0),
		"Maximum number of open gRPC requests of one client address. A client that opens more "+
			"loses the connection that has most of them. 0 = no limit.")
	listFlag(f, "grpc-client-shares", &c.shares, inbound.ParseShare,
		"Number of clients that an address or a network counts as, such as 10.0.0.7=8 "+
			"for a proxy. It multiplies the limits of a client on connections, open requests "+
			"and received bytes. May be repeated.").PlaceHolder("ADDRESS=N")
	boolFlag(f, "grpc-reflection", "true", &c.reflection,
		"Serve gRPC reflection, which lists the services and messages of the port.")
	flag(f, "grpc-max-concurrent-streams", "1000", &c.maxStreams, integer(0),
		"Maximum number of concurrent requests on a gRPC connection. "+
			"The client queues further requests. 0 = no limit.")
	c.tls.flags(f)
}

func (c *grpcConfig) load() error {
	_, err := newCertificates(&c.tls)
	return err
}

// useTunedBuffers replaces grpc's buffer pool in the whole process. grpc's own has no size between
// 32 KiB and 1 MiB and clears every buffer. A frame of 40 KiB therefore costs 18 times as much as
// with a pool of every power of two.
//
// Call it before any use of grpc.
func useTunedBuffers() error {
	pool, err := mem.NewBinaryTieredBufferPool(8, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20)
	if err != nil {
		return err
	}
	experimental.SetDefaultBufferPool(pool)
	return nil
}

// rpcServer is the gRPC server with its health service.
type rpcServer struct {
	*grpc.Server
	health *health.Server
	open   *inbound.Requests // shared with its listener
	certs  *certificates     // nil without TLS
}

// services has the services besides health and reflection, and the account of their messages.
type services struct {
	store    storepb.StoreServer
	info     storepb.InfoServer
	messages *intake.Account
	// incomplete bounds the bytes of messages that are being received; 0 = inbound's default.
	incomplete int64
	// unsent bounds the bytes of label answers that clients have not read; 0 = inbound's default.
	unsent int64
}

// newRPCServer returns the server, which does not serve yet. Call it once for each reg.
func newRPCServer(
	conf grpcConfig, s services, requests *requestlog.Log, logs requestlog.Options,
	reg prometheus.Registerer, tracing *telemetry.Tracing,
) (*rpcServer, error) {
	metrics := grpcprom.NewServerMetrics(
		grpcprom.WithServerHandlingTimeHistogram(
			grpcprom.WithHistogramOpts(&prometheus.HistogramOpts{
				// Thanos's classic buckets, from which the mixin computes quantiles.
				Buckets: []float64{
					0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120,
				},
				NativeHistogramBucketFactor:    1.1,
				NativeHistogramMaxBucketNumber: 256,
			}),
		),
	)
	counted := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "grpc_req_panics_recovered_total",
		Help: "Total number of gRPC requests recovered from internal panic.",
	})
	reg.MustRegister(metrics, counted)

	var exemplar []grpcprom.Option
	var traceUnary []grpc.UnaryServerInterceptor // outermost
	var traceStream []grpc.StreamServerInterceptor
	if tracing.Enabled {
		spans := tracing.GRPC()
		traceUnary, traceStream = append(traceUnary, spans.Unary), append(traceStream, spans.Stream)
		exemplar = append(exemplar, grpcprom.WithExemplarFromContext(traceIDs))
	}
	guard := panics.New("grpc", logs.Logger, reg)
	recovered := recovery.WithRecoveryHandlerContext(func(ctx context.Context, p any) error {
		counted.Inc()
		return status.Error(
			codes.Internal, guard.Caught(p, "requestID", requestlog.ID(ctx)).Error(),
		)
	})
	open := inbound.NewRequests(inbound.RequestsOptions{
		MaxPerClient: orNone(conf.maxRequestsPerClient), Shares: conf.shares,
		HalfReceived: s.incomplete, Unsent: s.unsent,
	})
	outcomes := requestlog.NewOutcomes(logs)
	opts := []grpc.ServerOption{
		grpc.ForceServerCodecV2(storepb.Codec()),
		grpc.MaxSendMsgSize(maxAnswerBytes),
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		grpc.InTapHandle(open.Tap),
		// Queriers ping idle connections every 10 s, for which grpc's default would disconnect
		// them.
		grpc.KeepaliveEnforcementPolicy(
			keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true},
		),
		// Stop returns when no handler uses the store any more. The store is closed afterwards.
		grpc.WaitForHandlers(true),
		// Same order as in Thanos, except that recovery is innermost, so that a panic is counted
		// and logged as the Internal error that the client sees.
		grpc.ChainUnaryInterceptor(append(traceUnary,
			open.Unary, requestlog.IDUnary, metrics.UnaryServerInterceptor(exemplar...),
			requests.Unary, outcomes.Unary, recovery.UnaryServerInterceptor(recovered))...,
		),
		grpc.ChainStreamInterceptor(append(traceStream,
			open.Stream, requestlog.IDStream, metrics.StreamServerInterceptor(exemplar...),
			requests.Stream, outcomes.Stream, recovery.StreamServerInterceptor(recovered))...,
		),
	}
	opts = append(opts, grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge: max(0, conf.maxConnectionAge), MaxConnectionAgeGrace: maxConnectionGrace,
		MaxConnectionIdle: maxConnectionIdle, Time: deadPeerPing, Timeout: deadPeerTimeout,
	}))
	if conf.maxStreams > 0 {
		// This also bounds the handlers of a client that begins requests and drops them at once.
		opts = append(opts, grpc.MaxConcurrentStreams(uint32(conf.maxStreams)))
	}
	certs, err := newCertificates(&conf.tls)
	if err != nil {
		return nil, err
	}
	if certs != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(certs.server())))
	}

	srv := &rpcServer{
		Server: grpc.NewServer(opts...), health: health.NewServer(), open: open, certs: certs,
	}
	api := intake.Registrar{
		Server: srv, Account: s.messages, MaxAnswerBytes: maxAnswerBytes, Requests: open,
	}
	storepb.RegisterStoreServer(api, s.store)
	small := api
	small.MaxMessageBytes = maxSmallMessage
	storepb.RegisterInfoServer(small, s.info)
	small.Around = (&inbound.Pool{Lifetime: watchLifetime}).Around
	healthpb.RegisterHealthServer(small, srv.health)
	if conf.reflection {
		small.Around = (&inbound.Pool{Lifetime: reflectionLifetime}).Around
		reflection.Register(small)
	}
	metrics.InitializeMetrics(countedFromStart{srv})
	srv.setReady(false)
	return srv, nil
}

// countedFromStart has the service whose counters exist before its first request. An alert then
// sees its first failure. The counters of Info, health checks and reflection, 17 codes for each
// method, appear with their first request.
type countedFromStart struct{ *rpcServer }

// GetServiceInfo returns these services.
func (s countedFromStart) GetServiceInfo() map[string]grpc.ServiceInfo {
	services := s.rpcServer.GetServiceInfo()
	maps.DeleteFunc(services, func(name string, _ grpc.ServiceInfo) bool {
		return name != storepb.Store_ServiceDesc.ServiceName
	})
	return services
}

// setReady sets the state of the health service, for the process and for each service.
func (s *rpcServer) setReady(ready bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if ready {
		state = healthpb.HealthCheckResponse_SERVING
	}
	for _, name := range []string{
		"", storepb.Store_ServiceDesc.ServiceName, storepb.Info_ServiceDesc.ServiceName,
	} {
		s.health.SetServingStatus(name, state)
	}
}

// stop rejects new requests and waits for running ones. It cancels those that still run after the
// grace period. It returns when no handler runs any more.
func (s *rpcServer) stop(grace time.Duration, logger *slog.Logger) {
	hard := time.AfterFunc(grace, func() {
		logger.Warn("grace period ended, running gRPC requests are cancelled", "grace_period",
			grace)
		s.Stop()
	})
	defer hard.Stop()
	s.GracefulStop()
}

func traceIDs(ctx context.Context) prometheus.Labels {
	if sc := trace.SpanContextFromContext(ctx); sc.IsSampled() {
		return prometheus.Labels{"trace_id": sc.TraceID().String()}
	}
	return nil
}

// infoWhenReady wraps an Info server. While the process is not ready, Info fails, so that queriers
// do not use this store.
type infoWhenReady struct {
	storepb.InfoServer
	ready func() bool
}

func (i infoWhenReady) Info(
	ctx context.Context, req *storepb.InfoRequest,
) (*storepb.InfoResponse, error) {
	if !i.ready() {
		return nil, status.Error(codes.Unavailable, "Not ready: starting up or shutting down")
	}
	return i.InfoServer.Info(ctx, req)
}

// stalled reports to the connection of a Series request that its client did not read the answer.
func stalled(ctx context.Context) {
	if p, ok := peer.FromContext(ctx); ok {
		if c := inbound.From(p.Addr); c != nil {
			c.Stalled()
		}
	}
}
