package storepb

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// TestRequestsOfManyFieldsAreNotDecoded checks that a request with too many fields is rejected
// before it is decoded, because two bytes on the wire can become a hundred in memory.
func TestRequestsOfManyFieldsAreNotDecoded(t *testing.T) {
	many := func(b string) []byte { return bytes.Repeat([]byte(b), 500_000) }
	// 1,000,000 bytes
	within := func(tag byte, b []byte) []byte { return append([]byte{tag, 0xc0, 0x84, 0x3d}, b...) }
	for name, tc := range map[string]struct {
		req  proto.Message
		wire []byte
	}{
		"matchers":       {&SeriesRequest{}, many("\x1a\x00")},
		"label names":    {&LabelNamesRequest{}, many("\x32\x00")},
		"values":         {&LabelValuesRequest{}, many("\x32\x00")},
		"aggregates":     {&SeriesRequest{}, many("\x28\x01")},
		"packed":         {&SeriesRequest{}, within(0x2a, many("\x01\x01"))},
		"within a field": {&SeriesRequest{}, within(0x6a, many("\x22\x00"))},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(tc.wire)}, tc.req)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "more than 45000 fields") {
			t.Errorf("%s: got %v, want an error about fields", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: rejecting it allocated %d bytes", name, n)
		}
	}
	if err := UnmarshalHints(&anypb.Any{TypeUrl: "type.googleapis.com/hintspb.SeriesRequestHints",
		Value: many("\x0a\x00")}, &SeriesRequestHints{}); err == nil ||
		!strings.Contains(err.Error(), "fields") {
		t.Errorf("hints: got %v, want an error about fields", err)
	}

	full := &SeriesRequest{}
	for range 10_000 {
		full.Matchers = append(full.Matchers,
			&LabelMatcher{Type: LabelMatcher_RE, Name: "pod", Value: "a|b"})
	}
	wire, err := proto.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	var got SeriesRequest
	if err := Codec().
		Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire[:1000]), mem.SliceBuffer(wire[1000:])},
			&got); err != nil ||
		!proto.Equal(full, &got) {
		t.Errorf("a request of 10,000 matchers: %v", err)
	}
}
