package scenario

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"larder/store/storepb"
)

// Recorded is a request that a gateway has logged.
type Recorded struct {
	Request
	// At is when it began, after the first one.
	At     time.Duration
	Tenant string // "" if the line has none
}

// Log is what a gateway has logged about requests.
type Log struct {
	// Requests are in the order of their beginnings.
	Requests []Recorded
	// Skipped counts the lines about requests that cannot be sent again, by reason.
	Skipped map[string]int
}

// Reasons to skip a line.
const (
	shortened  = "the line does not have all of the matchers"
	unreadable = "the line has no time, duration or range"
)

// maxLine bounds a line of a log in bytes.
const maxLine = 1 << 20

// ReadLog reads the lines about slow and failed requests of a gateway's log, in logfmt or JSON.
// Other lines are ignored.
func ReadLog(r io.Reader) (*Log, error) {
	l := &Log{Skipped: map[string]int{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	begins := map[*Recorded]time.Time{}
	var all []*Recorded
	for lines.Scan() {
		fields := fieldsOf(lines.Bytes())
		if msg := fields["msg"]; msg != "slow request" && msg != "request failed" {
			continue
		}
		req, begin, err := fields.recorded()
		if err != nil {
			l.Skipped[err.Error()]++
			continue
		}
		begins[req] = begin
		all = append(all, req)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	// A line is written at the end of its request.
	slices.SortStableFunc(all, func(a, b *Recorded) int { return begins[a].Compare(begins[b]) })
	for _, req := range all {
		req.At = begins[req].Sub(begins[all[0]])
		l.Requests = append(l.Requests, *req)
	}
	if len(l.Requests) == 0 {
		return nil, errors.New(cmp.Or(l.Reasons(),
			"no lines \"slow request\" or \"request failed\" of larder store, in logfmt or JSON"))
	}
	return l, nil
}

// Reasons says how many lines were skipped, and why; "" if none.
func (l *Log) Reasons() string {
	var out []string
	for _, why := range []string{shortened, unreadable} {
		if n := l.Skipped[why]; n > 0 {
			out = append(out, fmt.Sprintf("%d requests are left out: %s", n, why))
		}
	}
	return strings.Join(out, "; ")
}

// logFields are the fields of a line as text.
type logFields map[string]string

// fieldsOf returns the fields of a line in JSON or logfmt.
func fieldsOf(line []byte) logFields {
	out := logFields{}
	if line = bytes.TrimSpace(line); bytes.HasPrefix(line, []byte("{")) {
		var values map[string]any
		d := json.NewDecoder(bytes.NewReader(line))
		d.UseNumber()
		if d.Decode(&values) != nil {
			return nil
		}
		for key, v := range values {
			out[key] = fmt.Sprint(v)
		}
		return out
	}
	for text := string(line); text != ""; text = strings.TrimLeft(text, " ") {
		key, rest, ok := strings.Cut(text, "=")
		if !ok {
			break
		}
		value := rest
		if quoted, err := strconv.QuotedPrefix(rest); err == nil {
			value, _ = strconv.Unquote(quoted) // valid, because it is a quoted prefix
			text = rest[len(quoted):]
		} else {
			value, text, _ = strings.Cut(rest, " ")
		}
		out[key] = value
	}
	return out
}

// recorded returns the request of a line, and when it began.
func (f logFields) recorded() (*Recorded, time.Time, error) {
	end, err := time.Parse(time.RFC3339Nano, f["ts"])
	took, ok := f.duration("duration")
	from, fromOK := f.millis("min_time")
	to, toOK := f.millis("max_time")
	if err != nil || !ok || !fromOK || !toOK {
		return nil, end, errors.New(unreadable)
	}
	r := &Recorded{Tenant: f["tenant"]}
	r.MinTime, r.MaxTime = from, to
	var ms []*storepb.LabelMatcher
	if text := f["matchers"]; text != "{}" {
		if ms, err = selector(text); err != nil || slices.ContainsFunc(ms, clipped) {
			return nil, end, errors.New(shortened)
		}
	}
	limit, _ := strconv.ParseInt(f["limit"], 10, 64) // 0 without
	switch method := f["method"]; method {
	case "/thanos.Store/LabelNames":
		r.Query = "label names"
		r.Message = &storepb.LabelNamesRequest{Start: from, End: to, Matchers: ms, Limit: limit}
	case "/thanos.Store/LabelValues":
		if f["label"] == "" || clippedText(f["label"]) {
			return nil, end, errors.New(shortened)
		}
		r.Query = "label values"
		r.Message = &storepb.LabelValuesRequest{
			Label: f["label"], Start: from, End: to, Matchers: ms, Limit: limit,
		}
	case "/thanos.Store/Series":
		resolution, _ := f.duration("max_resolution") // 0 without
		r.Query = "series"
		r.Message = &storepb.SeriesRequest{
			MinTime: from, MaxTime: to, Matchers: ms, Limit: limit,
			MaxResolutionWindow: resolution.Milliseconds(), SkipChunks: f["skip_chunks"] == "true",
			Aggregates:        []storepb.Aggr{storepb.Aggr_COUNT, storepb.Aggr_SUM},
			ResponseBatchSize: batch,
		}
	default:
		return nil, end, errors.New(unreadable)
	}
	return r, end.Add(-took), nil
}

// clippedText reports whether a text looks truncated: the log cuts after 128 bytes.
func clippedText(s string) bool { return len(s) > 128 && strings.HasSuffix(s, "...") }

func clipped(m *storepb.LabelMatcher) bool { return clippedText(m.Name) || clippedText(m.Value) }

// duration returns a duration, which is a number of seconds in JSON.
func (f logFields) duration(key string) (time.Duration, bool) {
	if seconds, err := strconv.ParseFloat(f[key], 64); err == nil {
		return time.Duration(seconds * float64(time.Second)), true
	}
	d, err := time.ParseDuration(f[key])
	return d, err == nil
}

// millis returns a time in milliseconds. A number means that there is no bound.
func (f logFields) millis(key string) (int64, bool) {
	if ms, err := strconv.ParseInt(f[key], 10, 64); err == nil {
		return ms, true
	}
	t, err := time.Parse(time.RFC3339Nano, f[key])
	return t.UnixMilli(), err == nil
}
