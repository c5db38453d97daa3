// Package scrape reads the metrics of a process as Prometheus does: over HTTP, in the protobuf
// format, the only one with native histograms.
package scrape

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// accept is the header that Prometheus sends if it collects native histograms.
const accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

// Raw is one scrape as it came over the wire.
type Raw struct {
	ContentType string
	Body        []byte
}

// Get scrapes a URL.
func Get(ctx context.Context, url string) (*Raw, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return &Raw{ContentType: resp.Header.Get("Content-Type"), Body: body}, nil
}

// Families decodes the scrape.
func (r *Raw) Families() (map[string]*dto.MetricFamily, error) {
	h := http.Header{}
	h.Set("Content-Type", r.ContentType)
	dec := expfmt.NewDecoder(strings.NewReader(string(r.Body)), expfmt.ResponseFormat(h))
	out := map[string]*dto.MetricFamily{}
	for {
		f := &dto.MetricFamily{}
		switch err := dec.Decode(f); err {
		case nil:
			out[f.GetName()] = f
		case io.EOF:
			return out, nil
		default:
			return nil, fmt.Errorf("decode a scrape of type %q: %w", r.ContentType, err)
		}
	}
}

// Shape is what a query depends on: a family's type, its label names, the bounds of its classic
// buckets.
type Shape struct {
	Type   dto.MetricType
	Labels string
	// Buckets are the bounds of a histogram's classic buckets, without +Inf.
	Buckets []float64
	// Native is set for a histogram that has native buckets.
	Native bool
}

// ShapeOf returns the shape of a family. Labels of only some of its series count.
func ShapeOf(f *dto.MetricFamily) Shape {
	s := Shape{Type: f.GetType()}
	names := map[string]struct{}{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			names[l.GetName()] = struct{}{}
		}
		h := m.GetHistogram()
		if h == nil {
			continue
		}
		s.Native = s.Native || h.Schema != nil
		var bounds []float64
		for _, b := range h.GetBucket() {
			if b.GetUpperBound() < 1e300 {
				bounds = append(bounds, b.GetUpperBound())
			}
		}
		s.Buckets = bounds
	}
	s.Labels = strings.Join(slices.Sorted(maps.Keys(names)), ",")
	return s
}
