package scenario

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
)

// Subject is what is known about a bucket.
type Subject struct {
	// MinTime and MaxTime are the range of its samples, in milliseconds.
	MinTime, MaxTime int64
	// Metric is a metric, Label a label of it with many values, Other one with few.
	Metric      string
	Label       string
	Values      []string
	Other       string
	OtherValues []string
	Series      []labels.Labels // some series of the metric
}

// oneSeries draws a series and returns its labels as matchers.
func (s *Subject) oneSeries(pick func(n int) int) string {
	if len(s.Series) == 0 {
		return ""
	}
	var ms []string
	s.Series[pick(len(s.Series))].Range(func(l labels.Label) {
		ms = append(ms, fmt.Sprintf(`%s="%s"`, l.Name, quoted(l.Value)))
	})
	return strings.Join(ms, ",")
}

// Request is a request of a scenario.
type Request struct {
	// Query is the name of its query.
	Query string
	// Message is a SeriesRequest, LabelValuesRequest or LabelNamesRequest.
	Message          proto.Message
	MinTime, MaxTime int64
}

// NeedsSurvey reports whether a scenario's queries have variables.
func (d *Document) NeedsSurvey(s *Scenario) bool {
	for name := range d.weights(s) {
		if d.query(name).needsSurvey() {
			return true
		}
	}
	return false
}

func (d *Document) weights(s *Scenario) map[string]int {
	if s.Mix != "" {
		return d.Mixes[s.Mix]
	}
	return map[string]int{s.Query: 1}
}

// Schedule draws the requests of a scenario, in the order in which they are sent.
func (d *Document) Schedule(s *Scenario, about *Subject, seed uint64) ([]Request, error) {
	h := fnv.New64a()
	// Scenarios of the same queries draw the same requests, so that their results compare.
	_, _ = h.Write([]byte(s.Query + "/" + s.Mix))
	r := rand.New(rand.NewPCG(seed, h.Sum64()))
	weights := d.weights(s)
	names := slices.Sorted(maps.Keys(weights))
	total := 0
	for _, w := range weights {
		total += w
	}
	var out []Request
	for range s.draws() {
		n := r.IntN(total)
		for _, name := range names {
			if n -= weights[name]; n >= 0 {
				continue
			}
			req, err := d.query(name).request(about, r.IntN)
			if err != nil {
				return nil, fmt.Errorf("query %s: %w", name, err)
			}
			out = append(out, req)
			break
		}
	}
	return out, nil
}
