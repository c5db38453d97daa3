package store

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/otel/attribute"

	"larder/internal/bucket/cost"
)

// maxMatchersText bounds the text of a request's matchers in log lines and spans, in bytes.
const maxMatchersText = 1 << 10

// asked is what a request asks for, as log lines and spans show it.
type asked struct {
	matchers   []*labels.Matcher
	minT, maxT int64
	label      string // of a LabelValues request
	resolution int64  // maximum resolution in milliseconds
	skipChunks bool
	limit      int64
}

// fact is a named fact about a request. Its value is a string, an int, an int64, a float64 or a
// time.Duration.
type fact struct {
	name  string
	value any
}

// identity returns what the request asks for. Zeros are left out.
func (a *asked) identity() []fact {
	facts := []fact{
		{"matchers", matchersText(a.matchers)},
		{"min_time", timeText(a.minT)},
		{"max_time", timeText(a.maxT)},
	}
	if a.label != "" {
		facts = append(facts, fact{"label", clipText(a.label)})
	}
	if a.resolution > 0 {
		facts = append(facts, fact{"max_resolution",
			time.Duration(a.resolution) * time.Millisecond})
	}
	if a.skipChunks {
		facts = append(facts, fact{"skip_chunks", "true"})
	}
	if a.limit > 0 {
		facts = append(facts, fact{"limit", a.limit})
	}
	return facts
}

// work returns what the request took: blocks, results, stages, bytes, requests.
func (r *request) work() []fact {
	facts := []fact{
		{"blocks", r.blocksQueried},
		{"blocks_series_sets", r.setBlocks},
		{"blocks_lazy", r.lazyBlocks},
		{"attempts", 1 + r.replans + r.reshapes + r.requeues},
		{"postings", r.postingsCount},
		{"series_sent", r.sent.Series},
		{"series_sorted", r.decoded.SortedSeries},
		{"chunks_sent", r.sent.Chunks},
		{"bytes_sent", r.sent.Bytes},
		{"first_frame", r.firstFrame},
	}
	for i, name := range stageNames {
		facts = append(facts, fact{"stage_" + name, time.Duration(r.stages[i].Load())})
	}
	if over := r.exceededText(); over != "" {
		facts = append(facts, fact{"over_budget", over})
	}
	var memory, disk, memcached, coalesced, fetched, requests int64
	for _, k := range r.kinds() {
		facts = append(facts,
			fact{k.name + "_bytes_touched", k.acct.TouchedBytes.Load()},
			fact{k.name + "_bytes_fetched", k.acct.FetchedBytes.Load()},
			fact{k.name + "_bucket_requests", k.acct.Requests.Load()},
			fact{k.name + "_page_wait", time.Duration(k.acct.Waited.Load())})
		memory += k.acct.Hits.Load()
		disk += k.acct.DiskHits.Load()
		memcached += k.acct.RemoteHits.Load() - k.acct.DiskHits.Load()
		coalesced += k.acct.Coalesced.Load()
		fetched += k.acct.Fetched.Load()
		requests += k.acct.Requests.Load()
	}
	return append(facts,
		fact{"pages_memory", memory},
		fact{"pages_disk", disk},
		fact{"pages_memcached", memcached},
		fact{"pages_coalesced", coalesced},
		fact{"pages_bucket", fetched},
		fact{"bucket_requests", requests},
		fact{"estimated_usd", float64(requests) * cost.USDPerRequest})
}

// describe returns the fields of the log line of a request that failed or was slow.
func (r *request) describe() []any {
	var fields []any
	for _, f := range append(r.asked.identity(), r.work()...) {
		fields = append(fields, f.name, f.value)
	}
	return fields
}

// attributes returns the attributes of the span of a request.
func (r *request) attributes() []attribute.KeyValue {
	attrs := []attribute.KeyValue{attribute.String("larder.tenant", r.tenant)}
	for _, f := range append(r.asked.identity(), r.work()...) {
		key := attribute.Key("larder." + f.name)
		switch v := f.value.(type) {
		case string:
			attrs = append(attrs, key.String(v))
		case int:
			attrs = append(attrs, key.Int(v))
		case int64:
			attrs = append(attrs, key.Int64(v))
		case float64:
			attrs = append(attrs, key.Float64(v))
		case time.Duration:
			attrs = append(attrs, attribute.Float64(string(key)+"_seconds", v.Seconds()))
		}
	}
	return attrs
}

// matchersText returns matchers as PromQL writes them. It truncates long values, and leaves out
// matchers once the text has maxMatchersText bytes.
func matchersText(ms []*labels.Matcher) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, m := range ms {
		if i > 0 {
			b.WriteString(", ")
		}
		if b.Len() >= maxMatchersText {
			b.WriteString("and " + strconv.Itoa(len(ms)-i) + " more")
			break
		}
		b.WriteString(clipText(m.Name) + m.Type.String() + strconv.Quote(clipText(m.Value)))
	}
	b.WriteByte('}')
	return b.String()
}

// clipText truncates a text to 128 bytes.
func clipText(s string) string {
	if len(s) > 128 {
		return strings.ToValidUTF8(s[:128], "") + "..."
	}
	return s
}

// timeText returns a time in milliseconds as RFC 3339. Times outside of the years 1 to 9999, which
// mean "no bound", are returned as numbers.
func timeText(ms int64) string {
	if t := time.UnixMilli(ms).UTC(); t.Year() >= 1 && t.Year() <= 9999 {
		return t.Format("2006-01-02T15:04:05.000Z07:00")
	}
	return strconv.FormatInt(ms, 10)
}
