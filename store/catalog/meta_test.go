package catalog

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// fullMeta is a meta.json as Thanos's components write it, with every field that larder reads and
// some that it does not.
const fullMeta = `{
	"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "minTime": 1000, "maxTime": 7200000, "version": 1,
	"stats": {"numSamples": 12, "numSeries": 34, "numChunks": 56, "numFloatSamples": 12},
	"compaction": {"level": 3, "sources": ["01ARZ3NDEKTSV4RRFFQ69G5FAX", "01ARZ3NDEKTSV4RRFFQ69G5FAW", "01ARZ3NDEKTSV4RRFFQ69G5FAX"],
		"parents": [{"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAW", "minTime": 1, "maxTime": 2}], "hints": ["from-out-of-order"]},
	"thanos": {
		"version": 1, "labels": {"replica": "b", "cluster": "eu", "gone": ""}, "downsample": {"resolution": 300000}, "source": "compactor",
		"segment_files": ["000001"],
		"files": [{"rel_path": "chunks/000002", "size_bytes": 5}, {"rel_path": "chunks/000010", "size_bytes": 6}, {"rel_path": "chunks/000001", "size_bytes": 4},
			{"rel_path": "chunks/000003.tmp", "size_bytes": 9}, {"rel_path": "index", "size_bytes": 99, "hash": {"hashFunc": "SHA256"}}, {"rel_path": "meta.json"}],
		"index_stats": {"series_max_size": 77, "chunk_max_size": 88}, "rewrites": [], "extensions": {"anything": [1]},
		"upload_time": "2026-01-02T03:04:05Z"
	},
	"added_by_a_later_writer": {}
}`

var fullID = ulid.MustParseStrict("01ARZ3NDEKTSV4RRFFQ69G5FAV")

func compareLabels(a, b labels.Labels) bool { return labels.Equal(a, b) }

func TestParseMeta(t *testing.T) {
	m, err := parseMeta(fullID, []byte(fullMeta))
	if err != nil {
		t.Fatal(err)
	}
	want := Block{
		ID: fullID, Meta: xxhash.Sum64String(fullMeta), Content: xxhash.Sum64String(fullMeta),
		MinTime: 1000, MaxTime: 7200000, Resolution: Resolution5m,
		Labels: labels.FromStrings("cluster", "eu", "replica", "b"), IndexSize: 99,
		ChunkFiles:    []ChunkFile{{"000001", 4}, {"000002", 5}, {"000010", 6}},
		SeriesMaxSize: 77, ChunkMaxSize: 88, NumSeries: 34, NumChunks: 56, Level: 3,
		Sources: []ulid.ULID{
			ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAW"),
			ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAX"),
		},
	}
	if diff := cmp.Diff(want, m.block, cmp.Comparer(compareLabels)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if m.source != "compactor" || !m.uploadTime.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("got source %q, upload time %v", m.source, m.uploadTime)
	}
}

func TestParseMetaLeastOne(t *testing.T) {
	const least = `{"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "minTime": 0, "maxTime": 1, "version": 1, "thanos": {"segment_files": ["000002", "000001"]}}`
	m, err := parseMeta(fullID, []byte(least))
	if err != nil {
		t.Fatal(err)
	}
	want := Block{
		ID:         fullID,
		Meta:       xxhash.Sum64String(least),
		Content:    xxhash.Sum64String(least),
		MaxTime:    1,
		Sources:    []ulid.ULID{fullID},
		ChunkFiles: []ChunkFile{{Name: "000001"}, {Name: "000002"}},
	}
	if diff := cmp.Diff(want, m.block, cmp.Comparer(compareLabels)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParseMetaRefuses(t *testing.T) {
	f := func(old, new, want string) {
		t.Helper()
		data := strings.Replace(fullMeta, old, new, 1)
		if data == fullMeta {
			t.Fatalf("%q is not in the meta.json", old)
		}
		_, err := parseMeta(fullID, []byte(data))
		if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), fullID.String()) {
			t.Errorf(
				"%s -> %s: got error %v, want errBroken with %q and the block", old, new, err, want,
			)
		}
	}
	f(`"version": 1,`, `"version": 2,`, "version 2, want 1")
	f(`"version": 1,`, ``, "version 0, want 1")
	f(`"version": 1, "labels"`, `"version": 2, "labels"`, "thanos.version 2")
	f(`"01ARZ3NDEKTSV4RRFFQ69G5FAV"`, `"01ARZ3NDEKTSV4RRFFQ69G5FAW"`, "another block")
	f(`"minTime": 1000, `, ``, "minTime or maxTime is missing")
	f(`"maxTime": 7200000`, `"maxTime": 999`, "is after")
	f(`"maxTime": 7200000`, `"maxTime": 1e30`, "cannot unmarshal")
	f(`"resolution": 300000`, `"resolution": 300001`, "resolution 300001")
	f(`"replica": "b"`, `"": "b"`, "has no name")
	f(`"added_by_a_later_writer": {}`, `"added_by_a_later_writer": `, "invalid character")
	f(`"01ARZ3NDEKTSV4RRFFQ69G5FAX", `, `"short", `, "bad data size")
	if _, err := parseMeta(fullID, make([]byte, maxMetaSize+1)); err == nil ||
		!strings.Contains(err.Error(), "larger than") {
		t.Errorf("too large: got %v", err)
	}
}

// TestParseMetaAccepts lists odd documents that larder reads the same way as Thanos.
func TestParseMetaAccepts(t *testing.T) {
	f := func(old, new string, change func(b *Block)) {
		t.Helper()
		data := strings.Replace(fullMeta, old, new, 1)
		if data == fullMeta {
			t.Fatalf("%q is not in the meta.json", old)
		}
		was, err := parseMeta(fullID, []byte(fullMeta))
		if err != nil {
			t.Fatal(err)
		}
		m, err := parseMeta(fullID, []byte(data))
		if err != nil {
			t.Errorf("%s -> %s: %v", old, new, err)
			return
		}
		want := was.block
		want.Meta, want.Content = xxhash.Sum64String(data), xxhash.Sum64String(data)
		if change != nil {
			change(&want)
		}
		if diff := cmp.Diff(want, m.block, cmp.Comparer(compareLabels)); diff != "" {
			t.Errorf("%s -> %s: (-want +got)\n%s", old, new, diff)
		}
	}
	f(`"01ARZ3NDEKTSV4RRFFQ69G5FAV"`, `"01arz3ndektsv4rrffq69g5fav"`, nil)
	f(`"maxTime": 7200000`, `"maxTime": 1000`, func(b *Block) { b.MaxTime = 1000 })
	f(`"series_max_size": 77`, `"series_max_size": -1`, func(b *Block) { b.SeriesMaxSize = 0 })
	f(`"chunk_max_size": 88`, `"chunk_max_size": -1`, func(b *Block) { b.ChunkMaxSize = 0 })
	f(`"level": 3`, `"level": -3`, func(b *Block) { b.Level = -3 })
	f(`"size_bytes": 99`, `"size_bytes": -99`, func(b *Block) { b.IndexSize = 0 })
	f(
		`"size_bytes": 5`, `"size_bytes": -5`,
		func(b *Block) { b.ChunkFiles = []ChunkFile{{"000001", 4}, {"000002", 0}, {"000010", 6}} },
	)
	f(
		`"chunks/000002"`, `"chunks/1"`,
		func(b *Block) { b.ChunkFiles = []ChunkFile{{"000001", 4}, {"000010", 6}} },
	)
	f(`"added_by_a_later_writer": {}
}`, `"added_by_a_later_writer": {}} and more`, nil)
	f(
		`"level": 3, "sources"`,
		`"level": 3, "failed": true, "deletable": true, "more": [{}], "sources"`, nil,
	)
}

func TestParseMark(t *testing.T) {
	got, err := parseMark(fullID, []byte(`{"id": "01ARZ3NDEKTSV4RRFFQ69G5FAW", "version": 1,
		"details": "why", "deletion_time": 1700000000}`))
	if err != nil || got != 1700000000 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{``, `{`, `{"version": 2}`, `{"version": 1, "deletion_time": -1}`,
		fmt.Sprintf(`{"version": 1, "deletion_time": %d}`, int64(1)<<62)} {
		if _, err := parseMark(fullID, []byte(bad)); !errors.Is(err, errBroken) {
			t.Errorf("%s: got %v, want errBroken", bad, err)
		}
	}
}

func FuzzParseMeta(f *testing.F) {
	f.Add([]byte(fullMeta))
	f.Add(
		[]byte(
			`{"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "minTime": -9223372036854775808, "maxTime": 9223372036854775807, "version": 1}`,
		),
	)
	f.Add([]byte(`{"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "minTime": 0, "maxTime": 1, "version": 1,
		"thanos": {"labels": {"a": "\\\""},
		"files": [{"rel_path": "chunks/000001", "x": ["],{", {}]}, null],
			"segment_files": null}} and more`))
	f.Add([]byte(`{"version":1,"thanos":{"files":[{"rel_path":"chunks/4294967295"}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = parseMark(fullID, data) // must not panic
		m, err := parseMeta(fullID, data)
		if err != nil {
			if !errors.Is(err, errBroken) || m != nil {
				t.Fatalf("got %v, %v", m, err)
			}
			return
		}
		b := &m.block
		if b.ID != fullID || b.MinTime > b.MaxTime || resolutionLevel(b.Resolution) < 0 ||
			len(b.Sources) == 0 {
			t.Fatalf("accepted %+v", b)
		}
		if b.Labels.Len() > maxLabels || len(b.Sources) > maxListed ||
			len(b.ChunkFiles) > maxChunkFiles {
			t.Fatalf("accepted %d labels, %d sources, %d chunk files", b.Labels.Len(),
				len(b.Sources), len(b.ChunkFiles))
		}
		for i, c := range b.ChunkFiles {
			if c.Size < 0 || c.Name == "" || strings.ContainsAny(c.Name, "/.\\") {
				t.Fatalf("chunk file %d: %+v", i, c)
			}
		}
		b.Labels.Range(func(l labels.Label) {
			if l.Name == "" || l.Value == "" {
				t.Fatalf("label %+v", l)
			}
		})
		NewView([]*Block{b}, true)
	})
}
