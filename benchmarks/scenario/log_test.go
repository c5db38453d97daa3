package scenario

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"larder/store/storepb"
)

// TestReadLog reads the same requests from a log in logfmt and one in JSON, in which lines are in
// the order of their ends.
func TestReadLog(t *testing.T) {
	long := strings.Repeat("x", 128) + "..."
	lines := []string{
		`ts=2026-11-30T10:00:05.000Z level=info msg="slow request" ` +
			`method=/thanos.Store/LabelValues ` +
			`duration=1s tenant=kitchen matchers={} min_time=2026-11-30T09:00:00.000Z ` +
			`max_time=2026-11-30T10:00:00.000Z label=pod limit=7 blocks=2`,
		`ts=2026-11-30T10:00:06.000Z level=info msg="slow request" method=/thanos.Store/Series ` +
			`duration=5.5s tenant=cellar peer=127.0.0.1:1 matchers="{__name__=\"up\", ` +
			`a=~\"b\\\\.c\"}" ` +
			`min_time=2026-11-30T09:00:00.000Z max_time=9223372036854775807 max_resolution=5m0s ` +
			`skip_chunks=true`,
		`ts=2026-11-30T10:00:07.000Z level=info msg="slow request" method=/thanos.Store/Series ` +
			`duration=1s matchers="{a=\"` + long + `\"}" min_time=1 max_time=2`,
		`ts=2026-11-30T10:00:08.000Z level=info msg=synced component=catalog`,
		`a line of another program`,
	}
	inJSON := []string{
		`{"ts":"2026-11-30T10:00:05.000Z","level":"info","msg":"slow request",` +
			`"method":"/thanos.Store/LabelValues","duration":1,"tenant":"kitchen",` +
			`"matchers":"{}",` +
			`"min_time":"2026-11-30T09:00:00.000Z","max_time":"2026-11-30T10:00:00.000Z",` +
			`"label":"pod","limit":7,"blocks":2}`,
		`{"ts":"2026-11-30T10:00:06.000Z","msg":"slow request","method":"/thanos.Store/Series",` +
			`"duration":5.5,"tenant":"cellar","matchers":"{__name__=\"up\", a=~\"b\\\\.c\"}",` +
			`"min_time":"2026-11-30T09:00:00.000Z","max_time":"9223372036854775807",` +
			`"max_resolution":300,"skip_chunks":"true"}`,
		`{"ts":"2026-11-30T10:00:07.000Z","msg":"slow request","method":"/thanos.Store/Series",` +
			`"duration":1,"matchers":"{a=\"` + long + `\"}","min_time":"1","max_time":"2"}`,
		`{"msg":"synced"}`, `{`,
	}
	nine := time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC).UnixMilli()
	for format, text := range map[string][]string{"logfmt": lines, "JSON": inJSON} {
		l, err := ReadLog(strings.NewReader(strings.Join(text, "\n")))
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		if len(l.Requests) != 2 || l.Reasons() !=
			"1 requests are left out: the line does not have all of the matchers" {
			t.Fatalf("%s: got %d requests, %q", format, len(l.Requests), l.Reasons())
		}
		first, second := l.Requests[0], l.Requests[1]
		if first.Tenant != "cellar" || second.Tenant != "kitchen" || first.At != 0 ||
			second.At != 3500*time.Millisecond {
			t.Errorf("%s: got %s at %s, %s at %s", format, first.Tenant, first.At, second.Tenant,
				second.At)
		}
		for i, want := range []proto.Message{
			&storepb.SeriesRequest{
				MinTime: nine, MaxTime: 9223372036854775807, MaxResolutionWindow: 300_000,
				SkipChunks: true, ResponseBatchSize: batch,
				Aggregates: []storepb.Aggr{storepb.Aggr_COUNT, storepb.Aggr_SUM},
				Matchers: []*storepb.LabelMatcher{
					{Name: "__name__", Value: "up"},
					{Type: storepb.LabelMatcher_RE, Name: "a", Value: `b\.c`},
				},
			},
			&storepb.LabelValuesRequest{
				Label: "pod", Start: nine, End: nine + 3_600_000, Limit: 7,
			},
		} {
			if got := l.Requests[i].Message; !proto.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", format, got, want)
			}
		}
	}
	if _, err := ReadLog(strings.NewReader("ts=1 msg=synced\n")); err == nil ||
		!strings.Contains(err.Error(), `no lines "slow request"`) {
		t.Errorf("a log without requests: %v", err)
	}
}
