package trips_test

import (
	"testing"

	"larder/interop/internal/compare/trips"
)

func get(key string, start, end int64) trips.Request {
	return trips.Request{Op: "GET", Key: key, Bytes: 10, Start: start, End: end}
}

func TestCount(t *testing.T) {
	for _, c := range []struct {
		name     string
		requests []trips.Request
		want     trips.Count
	}{
		{name: "nothing", want: trips.Count{}},
		{
			name: "reads side by side are one trip",
			requests: []trips.Request{
				get("a/index", 0, 20), get("a/index", 1, 25), get("a/chunks/000001", 2, 22),
			},
			want: trips.Count{
				Index:  trips.Volume{Requests: 2, Bytes: 20},
				Chunks: trips.Volume{Requests: 1, Bytes: 10}, Trips: 1,
			},
		},
		{
			name: "postings, series and chunks of one block are three trips",
			requests: []trips.Request{
				get("a/chunks/000001", 43, 63), get("a/index", 0, 20), get("a/index", 21, 41),
			},
			want: trips.Count{
				Index:  trips.Volume{Requests: 2, Bytes: 20},
				Chunks: trips.Volume{Requests: 1, Bytes: 10}, Trips: 3,
			},
		},
		{
			name: "a block that waits for another is queued",
			requests: []trips.Request{
				get("a/index", 0, 20), get("a/index", 21, 41),
				get("b/index", 42, 62), get("b/index", 63, 83),
			},
			want: trips.Count{Index: trips.Volume{Requests: 4, Bytes: 40}, Trips: 2, Queued: 2},
		},
		{
			name: "meta data and listings are no reads of a query",
			requests: []trips.Request{
				get("a/meta.json", 0, 20), {Op: "LIST", Key: "", Start: 21, End: 41},
				{Op: "LIST", Key: "a/", Start: 21, End: 41},
			},
			want: trips.Count{Meta: trips.Volume{Requests: 3, Bytes: 10}, Lists: 2},
		},
	} {
		if got := trips.Of(c.requests); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}
