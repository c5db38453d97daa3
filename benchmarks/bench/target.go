package bench

import (
	"context"
	"fmt"
	"net"
	"net/http"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"larder/benchmarks/objectstore"
)

// families are the metrics of a process by name.
type families map[string]*dto.MetricFamily

// Target is a running gateway.
type Target struct {
	// Address is its gRPC address. The connection is not encrypted.
	Address string
	// Dial connects to Address. nil: over TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Gather returns its metrics; nil: not known.
	Gather func(ctx context.Context) (map[string]*dto.MetricFamily, error)
	// Bucket is what the gateway reads from if it runs in this process, nil otherwise.
	Bucket *objectstore.Bucket
	// Close stops it. nil: it goes on.
	Close func() error
}

// MetricsFrom returns a function that reads the metrics of a process from a URL.
func MetricsFrom(url string) func(context.Context) (map[string]*dto.MetricFamily, error) {
	return func(ctx context.Context) (fs map[string]*dto.MetricFamily, err error) {
		defer func() {
			if err != nil {
				err = fmt.Errorf("metrics of %s: %w", url, err)
			}
		}()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("HTTP status %s", resp.Status)
		}
		p := expfmt.NewTextParser(model.UTF8Validation)
		return p.TextToMetricFamilies(resp.Body)
	}
}

// dial connects to the target. The connection transfers encoded messages: see raw.
func (t *Target) dial() (*grpc.ClientConn, error) { return t.connect(grpc.ForceCodecV2(raw{})) }

// connect connects to the target, with options of all calls.
func (t *Target) connect(opts ...grpc.CallOption) (*grpc.ClientConn, error) {
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(append(opts, grpc.MaxCallRecvMsgSize(maxMessage))...),
	}
	if t.Dial != nil {
		dial = append(dial, grpc.WithContextDialer(t.Dial))
	}
	return grpc.NewClient(t.Address, dial...)
}

// maxMessage is the largest message of an answer.
const maxMessage = 1 << 30

// sum adds the samples of a counter or gauge whose labels contain want.
func (f families) sum(name string, want map[string]string) (total float64, found bool) {
	for _, m := range f[name].GetMetric() {
		if matches(m, want) {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
			found = true
		}
	}
	return total, found
}

func matches(m *dto.Metric, want map[string]string) bool {
	n := 0
	for _, l := range m.GetLabel() {
		if v, ok := want[l.GetName()]; ok {
			if v != l.GetValue() {
				return false
			}
			n++
		}
	}
	return n == len(want)
}
