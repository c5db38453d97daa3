package scenario

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"larder/internal/yamldoc"
	"larder/store/storepb"
)

// The variables of selectors.
const (
	varMetric     = "metric"
	varLabel      = "label"
	varValue      = "value"
	varPrefix     = "prefix"
	varOther      = "other"
	varOtherValue = "other_value"
	varSeries     = "series"
)

func variables() []string {
	return []string{
		varMetric, varLabel, varValue, varPrefix, varOther, varOtherValue, varSeries,
	}
}

// variable finds ${name}.
func variable() *regexp.Regexp { return regexp.MustCompile(`\$\{(\w+)\}`) }

// expand replaces the variables of a text.
func expand(text string, value func(name string) string) string {
	return variable().ReplaceAllStringFunc(text, func(ref string) string {
		return value(ref[2 : len(ref)-1])
	})
}

// texts are the texts of a query that may have variables.
func (q *Query) texts() []string { return []string{q.Series, q.LabelValues, q.Matchers} }

// needsSurvey reports whether the query has variables.
func (q *Query) needsSurvey() bool {
	return slices.ContainsFunc(q.texts(), variable().MatchString)
}

func (q *Query) check() error {
	asked := 0
	for _, set := range []bool{q.Series != "", q.LabelValues != "", q.LabelNames} {
		if set {
			asked++
		}
	}
	switch {
	case asked != 1:
		return errors.New("exactly one of series, label_values and label_names is required")
	case q.Series != "" && q.Matchers != "":
		return errors.New("matchers is for label requests: the selector is in series")
	case q.Series == "" && (q.SkipChunks || q.Resolution != 0 || len(q.Aggregates) > 0):
		return errors.New("skip_chunks, resolution and aggregates are for series")
	case q.Range < 0 || q.Within < 0 || q.Resolution < 0 || q.Limit < 0:
		return errors.New("range, within, resolution and limit must not be below zero")
	case q.Within > 0 && q.Within < q.length():
		return fmt.Errorf("within: %s is shorter than range, %s", q.Within, q.length())
	}
	for _, text := range q.texts() {
		for _, m := range variable().FindAllStringSubmatch(text, -1) {
			if slices.Contains(variables(), m[1]) {
				continue
			}
			meant := ""
			if n := yamldoc.Nearest(m[1], variables()); n != "" {
				meant = " did you mean ${" + n + "}?"
			}
			return fmt.Errorf("there is no variable ${%s},%s known ones are %s",
				m[1], meant, strings.Join(variables(), ", "))
		}
	}
	if _, err := q.aggregates(); err != nil {
		return err
	}
	example := &Subject{
		MaxTime: 1, Metric: "m", Label: "l", Values: []string{"v"}, Other: "o",
		OtherValues: []string{"w"}, Series: []labels.Labels{labels.FromStrings("a", "b")},
	}
	_, err := q.request(example, func(int) int { return 0 })
	return err
}

func (q *Query) length() time.Duration {
	if q.Range == 0 {
		return time.Hour
	}
	return q.Range
}

func (q *Query) aggregates() (out []storepb.Aggr, err error) {
	if len(q.Aggregates) == 0 {
		return []storepb.Aggr{storepb.Aggr_COUNT, storepb.Aggr_SUM}, nil
	}
	for _, name := range q.Aggregates {
		a, ok := storepb.Aggr_value[strings.ToUpper(name)]
		if !ok {
			return nil, fmt.Errorf(
				"aggregates: got %q, want raw, count, sum, min, max or counter", name)
		}
		out = append(out, storepb.Aggr(a))
	}
	return out, nil
}

// selector parses a selector; none for "".
func selector(text string) ([]*storepb.LabelMatcher, error) {
	if text == "" {
		return nil, nil
	}
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
	if err != nil {
		return nil, fmt.Errorf("selector %s: %w", text, err)
	}
	types := map[labels.MatchType]storepb.LabelMatcher_Type{
		labels.MatchEqual:     storepb.LabelMatcher_EQ,
		labels.MatchNotEqual:  storepb.LabelMatcher_NEQ,
		labels.MatchRegexp:    storepb.LabelMatcher_RE,
		labels.MatchNotRegexp: storepb.LabelMatcher_NRE,
	}
	var out []*storepb.LabelMatcher
	for _, m := range ms {
		out = append(out,
			&storepb.LabelMatcher{Type: types[m.Type], Name: m.Name, Value: m.Value})
	}
	return out, nil
}

// batch is the number of series that a Querier requests per message.
const batch = 64

// quoted escapes a text for the inside of a quoted string.
func quoted(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// request draws a request. pick draws a number below n.
func (q *Query) request(s *Subject, pick func(n int) int) (Request, error) {
	one := func(values []string) string {
		if len(values) == 0 {
			return ""
		}
		return values[pick(len(values))]
	}
	text := func(t string) string {
		return expand(t, func(name string) string {
			switch name {
			case varMetric:
				return quoted(s.Metric)
			case varLabel:
				return s.Label
			case varValue:
				return quoted(one(s.Values))
			case varPrefix:
				v := []rune(one(s.Values))
				return quoted(regexp.QuoteMeta(string(v[:(len(v)+1)/2])))
			case varOther:
				return s.Other
			case varOtherValue:
				return quoted(one(s.OtherValues))
			}
			return s.oneSeries(pick)
		})
	}
	r := Request{Query: q.Name}
	r.MinTime, r.MaxTime = q.span(s, pick)
	if q.Series == "" {
		ms, err := selector(text(q.Matchers))
		if err != nil {
			return r, err
		}
		if q.LabelNames {
			r.Message = &storepb.LabelNamesRequest{
				Start: r.MinTime, End: r.MaxTime, Matchers: ms, Limit: q.Limit,
			}
			return r, nil
		}
		r.Message = &storepb.LabelValuesRequest{
			Label: text(q.LabelValues), Start: r.MinTime, End: r.MaxTime, Matchers: ms,
			Limit: q.Limit,
		}
		return r, nil
	}
	ms, err := selector(text(q.Series))
	if err != nil {
		return r, err
	}
	aggregates, err := q.aggregates()
	if err != nil {
		return r, err
	}
	r.Message = &storepb.SeriesRequest{
		MinTime: r.MinTime, MaxTime: r.MaxTime, Matchers: ms, Aggregates: aggregates,
		MaxResolutionWindow: q.Resolution.Milliseconds(), SkipChunks: q.SkipChunks,
		Limit: q.Limit, ResponseBatchSize: batch,
	}
	return r, nil
}

// span draws a time range: it has the query's length and ends at a full minute.
func (q *Query) span(s *Subject, pick func(n int) int) (from, to int64) {
	const minute = 60_000
	length := q.length().Milliseconds()
	to = s.MaxTime
	oldest := max(s.MinTime, s.MaxTime-q.Within.Milliseconds())
	if spare := (s.MaxTime - oldest - length) / minute; q.Within > 0 && spare > 0 {
		to -= int64(pick(int(spare)+1)) * minute
	}
	return to - length, to
}
