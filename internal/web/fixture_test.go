package web

import (
	"context"
	"io/fs"
	"net/http"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
)

// fakeBlocks are the blocks of a test and their meta.json.
type fakeBlocks struct {
	snap Snapshot
	docs map[ulid.ULID]string
}

func (f fakeBlocks) Snapshot() Snapshot { return f.snap }

func (f fakeBlocks) Document(id ulid.ULID) ([]byte, error) {
	if d, ok := f.docs[id]; ok {
		return []byte(d), nil
	}
	return nil, fs.ErrNotExist
}

// fakeMarker records the marks.
type fakeMarker struct {
	err   error
	marks []string
}

func (f *fakeMarker) Mark(
	_ context.Context, id ulid.ULID, kind Mark, details string,
) (bool, error) {
	f.marks = append(f.marks, id.String()+" "+string(kind)+" "+details)
	return true, f.err
}

// site returns Handler(o), with defaults for the probe, metrics and blocks.
func site(o Options) http.Handler {
	if o.Probe == nil {
		o.Probe = NewProbe(nil, nil)
	}
	if o.Gatherer == nil {
		o.Gatherer = prometheus.NewRegistry()
	}
	if o.Blocks == nil {
		o.Blocks = fakeBlocks{}
	}
	if o.OwnHosts == nil {
		o.OwnHosts = []string{"example.com"} // httptest's
	}
	return Handler(o)
}

var (
	idA = ulid.MustParseStrict("01ARZ3NDEKTSV4RRFFQ69G5FAV")
	idB = ulid.MustParseStrict("01ARZ3NDEKTSV4RRFFQ69G5FAW")
)

// two returns two blocks. A has a meta.json with every field. The meta.json of B cannot be read.
func two() fakeBlocks {
	return fakeBlocks{
		snap: Snapshot{
			SyncedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
			Blocks: []Block{
				{
					ID:         idA,
					MinTime:    1000,
					MaxTime:    7200000,
					Resolution: 300000,
					Labels:     labels.FromStrings("cluster", "eu", "replica", "<b>"),
					Level:      3,
					Series:     34,
					Chunks:     56,
					Size:       104,
				},
				{
					ID:      idB,
					MinTime: 7200000,
					MaxTime: 14400000,
					Labels:  labels.FromStrings("cluster", "us"),
					Level:   1,
					Series:  1,
					Chunks:  2,
					Sources: []ulid.ULID{idB},
				},
			},
		},
		docs: map[ulid.ULID]string{idA: fullMeta},
	}
}

// fullMeta has every field of Thanos, and an unknown one.
const fullMeta = `{
	"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "minTime": 1000, "maxTime": 7200000, "version": 1,
	"stats": {"numSamples": 12, "numSeries": 34, "numChunks": 56, "numFloatSamples": 10, "numHistogramSamples": 2, "numTombstones": 1},
	"compaction": {"level": 3, "sources": ["01ARZ3NDEKTSV4RRFFQ69G5FAX", "01ARZ3NDEKTSV4RRFFQ69G5FAW", "01ARZ3NDEKTSV4RRFFQ69G5FAX"],
		"parents": [{"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAW", "minTime": 1, "maxTime": 2}], "deletable": true, "failed": true, "hints": ["from-out-of-order"]},
	"thanos": {
		"version": 1, "labels": {"replica": "<b>", "cluster": "eu", "gone": ""}, "downsample": {"resolution": 300000}, "source": "compactor",
		"segment_files": ["000001"],
		"files": [{"rel_path": "chunks/000001", "size_bytes": 5}, {"rel_path": "index", "size_bytes": 99, "hash": {"hashFunc": "SHA256", "value": "ab"}}, {"rel_path": "meta.json"}],
		"rewrites": [{"sources": ["01ARZ3NDEKTSV4RRFFQ69G5FAW"], "deletions_applied": [{"matchers": [{"Type": 0, "Name": "a", "Value": "b"}], "intervals": [{"Mint": 1, "Maxt": 2}]}],
			"relabels_applied": [{"regex": "x", "action": "labeldrop"}]}],
		"index_stats": {"series_max_size": 77, "chunk_max_size": 88}, "extensions": {"anything": [1], "a": "b"},
		"upload_time": "2026-01-02T03:04:05Z"
	},
	"added_by_a_later_writer": {}
}`
