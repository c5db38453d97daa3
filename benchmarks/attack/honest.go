package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"larder/benchmarks/dataset"
	"larder/benchmarks/process"
	"larder/store/storepb"
)

const (
	// honestEvery is the interval of the honest client's requests.
	honestEvery = 20 * time.Millisecond
	// honestDeadline is the deadline of each.
	honestDeadline = 10 * time.Second
	// blockEnd is the end of the honest block, in milliseconds. Hostile blocks lie elsewhere: a
	// request that needs one of them fails.
	blockEnd = dataset.Epoch + 2*3_600_000 - 1
	// honestSeries is the number of series in the honest answer: those of one status code and
	// method.
	honestSeries = blockSeries / 20
)

// figures are the results of the honest requests.
type figures struct {
	took   []time.Duration
	failed []string
}

func (f *figures) asked() int { return len(f.took) }

func (f *figures) quantile(q float64) time.Duration {
	if len(f.took) == 0 {
		return 0
	}
	slices.Sort(f.took)
	return f.took[min(int(math.Ceil(q*float64(len(f.took))))-1, len(f.took)-1)]
}

// honestEnv is the environment variable with the honestConfig of the honest client. The client is a
// process of its own because the attacker is busy.
const honestEnv = "LARDER_ATTACK_HONEST"

// honestConfig tells the honest client what to connect to.
type honestConfig struct {
	RPC           string
	CA, Cert, Key string // files; "" is plain text
}

// report is what the honest client prints: at the start whether it works, and at the end the
// results of its requests.
type report struct {
	Started bool
	Took    []time.Duration
	Failed  []string
}

// honest is the process of the honest client.
type honest struct {
	*process.Child
	mu      sync.Mutex // guards reports
	reports []report
}

// startHonest sends each request once, and then continues beside the attack.
func (t *target) startHonest(ctx context.Context) (*honest, error) {
	bin, err := os.Executable()
	if err != nil {
		return nil, err
	}
	conf, err := json.Marshal(honestConfig{RPC: t.larder.GRPC, CA: t.ca, Cert: t.cert, Key: t.key})
	if err != nil {
		return nil, err
	}
	h := &honest{}
	h.Child, err = process.Start(process.Options{
		Name: "the honest client", Env: []string{honestEnv + "=" + string(conf)}, OnLine: h.line,
	}, bin)
	if err != nil {
		return nil, err
	}
	err = h.Wait(ctx, func(context.Context) bool {
		first, ok := h.report(0)
		return ok && first.Started
	})
	if err != nil {
		h.Kill()
		return nil, err
	}
	return h, nil
}

func (h *honest) line(line string) {
	var r report
	if json.Unmarshal([]byte(line), &r) != nil {
		return // the end of the log contains the error
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reports = append(h.reports, r)
}

// report returns the n-th report of the process.
func (h *honest) report(n int) (report, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n >= len(h.reports) {
		return report{}, false
	}
	return h.reports[n], true
}

// end waits for the running requests and returns the results of all.
func (h *honest) end() (figures, error) {
	h.Signal(syscall.SIGTERM)
	<-h.Done()
	r, ok := h.report(1)
	if !ok {
		return figures{}, fmt.Errorf("the honest client: %w\n%s", h.Err(), h.Tail())
	}
	return figures{took: r.Took, failed: r.Failed}, nil
}

// runHonest is the process of the honest client, until SIGTERM.
func runHonest(conf string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var c honestConfig
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		return err
	}
	creds := insecure.NewCredentials()
	if c.CA != "" {
		conf, err := clientTLS(c)
		if err != nil {
			return err
		}
		creds = credentials.NewTLS(conf)
	}
	conn, err := dial(c.RPC, honestClient, grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, q := range questions() {
		if err := q.send(conn); err != nil {
			return err
		}
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(report{Started: true}); err != nil {
		return err
	}
	return out.Encode(askOn(ctx, conn))
}

// askOn sends requests at a fixed rate until ctx ends, whether or not earlier ones have been
// answered.
func askOn(ctx context.Context, conn *grpc.ClientConn) (r report) {
	var mu sync.Mutex // guards r
	var wg sync.WaitGroup
	tick := time.NewTicker(honestEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			wg.Wait()
			return r
		case <-tick.C:
		}
		q := questions()[n%len(questions())]
		wg.Go(func() {
			start := time.Now()
			err := q.send(conn)
			took := time.Since(start)
			mu.Lock()
			defer mu.Unlock()
			r.Took = append(r.Took, took)
			if err != nil {
				r.Failed = append(r.Failed, err.Error())
			}
		})
	}
}

// clientTLS returns the TLS configuration of the honest client.
func clientTLS(c honestConfig) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s has no certificate", c.CA)
	}
	certs := []tls.Certificate{pair}
	return &tls.Config{RootCAs: pool, ServerName: "larder", Certificates: certs}, nil
}

// dial makes a gRPC client at an address of its own, in plain text unless opts configure TLS.
func dial(to, from string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+to, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return dialer(from).DialContext(ctx, "tcp", addr)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: 500 * time.Millisecond,
			},
			MinConnectTimeout: time.Second,
		}),
	}, opts...)...)
}

// question is a request of the honest client. A wrong answer is an error too.
type question struct {
	name string
	ask  func(ctx context.Context, conn *grpc.ClientConn) error
}

// send sends the request. An error names it.
func (q question) send(conn *grpc.ClientConn) error {
	ctx := metadata.AppendToOutgoingContext(context.Background(), "thanos-tenant", "honest")
	ctx, cancel := context.WithTimeout(ctx, honestDeadline)
	defer cancel()
	if err := q.ask(ctx, conn); err != nil {
		return fmt.Errorf("%s: %w", q.name, err)
	}
	return nil
}

func questions() []question {
	return []question{
		{"Series", askSeries},
		{"LabelValues", func(ctx context.Context, conn *grpc.ClientConn) error {
			resp, err := storepb.NewStoreClient(conn).LabelValues(ctx, &storepb.LabelValuesRequest{
				Label: "code", Start: dataset.Epoch, End: blockEnd,
			})
			if err == nil && len(resp.Values) != 5 {
				err = fmt.Errorf("got %d values, want 5", len(resp.Values))
			}
			return err
		}},
		{"Info", func(ctx context.Context, conn *grpc.ClientConn) error {
			resp, err := storepb.NewInfoClient(conn).Info(ctx, &storepb.InfoRequest{})
			if err == nil && len(resp.LabelSets) == 0 {
				err = errors.New("got no label sets")
			}
			return err
		}},
		{"Health", func(ctx context.Context, conn *grpc.ClientConn) error {
			resp, err := grpc_health_v1.NewHealthClient(conn).Check(ctx,
				&grpc_health_v1.HealthCheckRequest{})
			if err == nil && resp.Status != grpc_health_v1.HealthCheckResponse_SERVING {
				err = fmt.Errorf("got %s", resp.Status)
			}
			return err
		}},
	}
}

// seriesOf returns a request for some series of the honest block.
func seriesOf(ms ...*storepb.LabelMatcher) *storepb.SeriesRequest {
	return &storepb.SeriesRequest{
		MinTime: dataset.Epoch, MaxTime: blockEnd, Aggregates: []storepb.Aggr{storepb.Aggr_RAW},
		Matchers: append(ms, &storepb.LabelMatcher{Name: "__name__",
			Value: dataset.WholeMetricName}),
	}
}

func askSeries(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := storepb.NewStoreClient(conn).Series(ctx, seriesOf(
		&storepb.LabelMatcher{Name: "code", Value: "200"}, &storepb.LabelMatcher{Name: "method",
			Value: "GET"}))
	if err != nil {
		return err
	}
	n := 0
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if resp.GetSeries() != nil {
			n++
		}
		if w := resp.GetWarning(); w != "" {
			return fmt.Errorf("got the warning %q", w)
		}
	}
	if n != honestSeries {
		return fmt.Errorf("got %d series, want %d", n, honestSeries)
	}
	return nil
}
