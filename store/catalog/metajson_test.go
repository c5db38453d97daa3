package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
)

// repeated returns a JSON list of n equal elements.
func repeated(n int, text string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(text+",", n), ",") + "]"
}

// listOf returns a JSON list of n different strings.
func listOf(n int, format string) string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf(format, i)
	}
	return "[" + strings.Join(texts, ",") + "]"
}

// TestMetaIsBounded: a document that exceeds a bound is refused, with an error that names the
// bound. Documents within the bounds are accepted.
func TestMetaIsBounded(t *testing.T) {
	labelsOf := func(n int, value string) string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprintf("l%d", i)] = value
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const source = `"01ARZ3NDEKTSV4RRFFQ69G5FAX"`
	for _, c := range []struct{ key, value, want string }{
		{"labels", labelsOf(maxLabels, "v"), ""},
		{"labels", labelsOf(maxLabels+1, "v"), "thanos.labels has 1001 labels, the limit is 1000"},
		{"labels", labelsOf(1, strings.Repeat("v", maxLabelText-10)), ""},
		{"labels", labelsOf(1, strings.Repeat("v", maxLabelText)), "bytes, the limit is 65536"},
		{"sources", repeated(maxListed, source), ""},
		{"sources", repeated(maxListed+1, source),
			"compaction.sources has more than 131072 entries"},
		{"files", listOf(maxChunkFiles, `{"rel_path":"chunks/%06d"}`), ""},
		{"files", listOf(maxChunkFiles+1, `{"rel_path":"chunks/%06d"}`),
			"thanos.files has more than 16384 chunk files"},
		{"files", repeated(maxListed+1, `{}`), "thanos.files has more than 131072 entries"},
		{"files", repeated(5<<20, `0`), "cannot unmarshal number"},
		{"segment_files", listOf(maxChunkFiles, `"%06d"`), ""},
		{"segment_files", listOf(maxChunkFiles+1, `"%06d"`),
			"thanos.segment_files has more than 16384 chunk files"},
		{"segment_files", repeated(5<<20, `""`),
			"thanos.segment_files has more than 131072 entries"},
		{"source", `"` + strings.Repeat("s", 8<<20) + `"`, ""},
		{"files", `[{"rel_path":"chunks/` + strings.Repeat("0", 8<<20) + `1"}]`, ""},
		{"upload_time", `"` + strings.Repeat("9", 8<<20) + `"`, "parsing time"},
		{"version", strings.Repeat("9", 8<<20), "cannot unmarshal number"},
		{"index_stats", `{"series_max_size":` + strings.Repeat("9", 8<<20) + `}`,
			"cannot unmarshal number"},
	} {
		where := `"thanos": {"` + c.key + `": ` + c.value + `}`
		if c.key == "sources" {
			where = `"compaction": {"sources": ` + c.value + `}`
		}
		data := []byte(fmt.Sprintf(`{"ulid": %q, "minTime": 0, "maxTime": 1, "version": 1, %s}`,
			fullID, where))
		name := fmt.Sprintf("%s of %d bytes", c.key, len(c.value))
		before := heapInUse()
		m, err := parseMeta(fullID, data)
		grown := heapInUse() - before
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if grown > m.bytes+64<<10 || grown < -64<<10 ||
				m.bytes > documentCost(int64(len(data))) {
				t.Errorf("%s: retains %d bytes, counts %d", name, grown, m.bytes)
			}
			runtime.KeepAlive(m)
			continue
		}
		if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), c.want) ||
			!strings.Contains(err.Error(), fullID.String()) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		} else if errors.Is(err, errRefused) == strings.Contains(c.want, "unmarshal") &&
			!strings.Contains(c.want, "parsing") {
			t.Errorf("%s: got refused %v", name, errors.Is(err, errRefused))
		} else if n := len(err.Error()); n > maxErrorText+200 {
			t.Errorf("%s: the error has %d bytes", name, n)
		}
		runtime.KeepAlive(data)
	}
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestEachElement: lists are split like encoding/json splits them.
func TestEachElement(t *testing.T) {
	for _, text := range []string{
		`[]`, ` [ ] `, `[1]`, `["a,b", "]", "\"],[", "\\"]`,
		`[{"a": [1, {"b": "}"}]}, [2, [3]], null , 4 ]`, `["é\u00e9\\\"", ""]`, `null`,
	} {
		var want []json.RawMessage
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		var got []string
		err := eachElement("k", []byte(text), func(e []byte) error {
			got = append(got, strings.TrimSpace(string(e)))
			return nil
		})
		same := err == nil && len(got) == len(want)
		for i := 0; same && i < len(want); i++ {
			same = got[i] == string(want[i])
		}
		if !same {
			t.Errorf("%s: got %q, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{`{}`, `"[1]"`, `12`, `true`} {
		if err := eachElement("k", []byte(text), func([]byte) error { return nil }); err == nil {
			t.Errorf("%s was accepted as a list", text)
		}
	}
}

// TestRepeatedKeys: of two lists under one key the last one counts, and labels are merged, same as
// encoding/json.
func TestRepeatedKeys(t *testing.T) {
	id := ulid.MustParseStrict("01ARZ3NDEKTSV4RRFFQ69G5FAX")
	data := fmt.Sprintf(`{"ulid": %q, "minTime": 0, "maxTime": 1, "version": 1,
		"compaction": {"sources": [%q, %q], "sources": [%q]},
		"thanos": {"labels": {"a": "1", "b": "1"}, "labels": {"b": "2"},
			"files": [{"rel_path": "chunks/000007"}], "files": null,
		"segment_files": ["000001"], "segment_files": ["000002"]}}`, fullID, fullID, id, id)
	m, err := parseMeta(fullID, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	if b := m.block; len(b.Sources) != 1 || b.Sources[0] != id ||
		b.Labels.String() != `{a="1", b="2"}` ||
		len(b.ChunkFiles) != 1 || b.ChunkFiles[0].Name != "000002" {
		t.Errorf("got %+v", b)
	}
}
