package telemetry

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"
)

// Exposed returns a gatherer of what g gathers, without hundreds of series that say nothing yet:
//
//   - Histograms that have observed nothing, if they have labels, are larder's own or describe an
//     answer. A histogram has up to 20 series. Other histograms of Thanos stay, because its alerts
//     compute rates of them.
//   - Counters of gRPC codes that larder does not return, if they are zero.
//
// Other counters and gauges stay, because the first increment of a counter that appears with it is
// invisible to rate().
func Exposed(g prometheus.Gatherer) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		// The families belong to the caller of Gather, and may be changed.
		families, err := g.Gather()
		return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool {
			own := strings.HasPrefix(f.GetName(), "larder_") ||
				strings.HasPrefix(f.GetName(), "thanos_store_server_")
			f.Metric = slices.DeleteFunc(f.Metric, func(m *dto.Metric) bool {
				if m.Histogram != nil {
					return m.Histogram.GetSampleCount() == 0 && (own || len(m.Label) > 0)
				}
				return m.Counter != nil && m.Counter.GetValue() == 0 &&
					slices.ContainsFunc(m.Label, isRareCode)
			})
			return len(f.Metric) == 0
		}), err
	})
}

// isRareCode returns whether a label is a gRPC code that the StoreAPI does not return.
func isRareCode(l *dto.LabelPair) bool {
	if l.GetName() != "grpc_code" {
		return false
	}
	switch l.GetValue() {
	case codes.OK.String(), codes.Canceled.String(), codes.Unknown.String(),
		codes.InvalidArgument.String(), codes.DeadlineExceeded.String(),
		codes.ResourceExhausted.String(), codes.Aborted.String(), codes.Internal.String(),
		codes.Unavailable.String():
		return false
	}
	return true
}
