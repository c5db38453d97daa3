package bench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"testing"

	"google.golang.org/grpc"

	"larder/benchmarks/scenario"
	"larder/store/storepb"
)

// largeStore has one metric of 400 pods with 100 series each, twice as many as a survey reads.
type largeStore struct{ storepb.StoreClient }

const largePods = 400

func (largeStore) LabelValues(
	_ context.Context, r *storepb.LabelValuesRequest, _ ...grpc.CallOption,
) (*storepb.LabelValuesResponse, error) {
	if r.Label == "__name__" {
		return &storepb.LabelValuesResponse{Values: []string{"m"}}, nil
	}
	out := &storepb.LabelValuesResponse{}
	for i := range largePods {
		out.Values = append(out.Values, podOf(i))
	}
	return out, nil
}

func podOf(i int) string { return fmt.Sprintf("pod-%03d", i) }

func (largeStore) Series(
	_ context.Context, r *storepb.SeriesRequest, _ ...grpc.CallOption,
) (grpc.ServerStreamingClient[storepb.SeriesResponse], error) {
	pods := regexp.MustCompile(".*")
	for _, m := range r.Matchers {
		if m.Name == "pod" && m.Type == storepb.LabelMatcher_RE {
			pods = regexp.MustCompile("^(?:" + m.Value + ")$")
		}
	}
	out := &answers{}
	for i := range largePods {
		for j := 0; j < 100 && pods.MatchString(podOf(i)) && len(out.left) < int(r.Limit); j++ {
			out.left = append(out.left, &storepb.Series{Labels: []*storepb.Label{
				{Name: "__name__", Value: "m"}, {Name: "code", Value: fmt.Sprint(j)},
				{Name: "pod", Value: podOf(i)},
			}})
		}
	}
	return out, nil
}

// answers is the stream of an answer.
type answers struct {
	grpc.ServerStreamingClient[storepb.SeriesResponse]
	left []*storepb.Series
}

func (a *answers) Recv() (*storepb.SeriesResponse, error) {
	if len(a.left) == 0 {
		return nil, io.EOF
	}
	next := a.left[0]
	a.left = a.left[1:]
	return &storepb.SeriesResponse{
		Result: &storepb.SeriesResponse_Series{Series: next},
	}, nil
}

// TestSurveyOfALargeMetric: values and series come from all of a metric, also if it has more series
// than a survey reads.
func TestSurveyOfALargeMetric(t *testing.T) {
	s := &scenario.Subject{}
	err := chooseMetric(t.Context(), largeStore{}, s, rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if s.Label != "pod" || len(s.Values) != largePods || len(s.Series) != keptSeries {
		t.Fatalf("%s with %d values, %d series", s.Label, len(s.Values), len(s.Series))
	}
	pods := map[string]bool{}
	last := ""
	for _, ls := range s.Series {
		pods[ls.Get("pod")] = true
		last = max(last, ls.Get("pod"))
	}
	if len(pods) < sampledValues/2 || last < podOf(largePods*3/4) {
		t.Errorf("series of %d pods up to %s", len(pods), last)
	}
}
