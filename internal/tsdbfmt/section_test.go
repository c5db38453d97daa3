package tsdbfmt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/index"
)

func frame(count int, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
	b = binary.BigEndian.AppendUint32(b, uint32(count))
	b = append(b, body...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[4:], castagnoli))
}

func symbolFrame(symbols ...string) []byte {
	var body []byte
	for _, s := range symbols {
		body = append(binary.AppendUvarint(body, uint64(len(s))), s...)
	}
	return frame(len(symbols), body)
}

type offset struct {
	Name, Value string
	List        int64
}

func offsetFrame(entries ...offset) []byte {
	var body []byte
	for _, e := range entries {
		body = append(body, 2)
		body = append(binary.AppendUvarint(body, uint64(len(e.Name))), e.Name...)
		body = append(binary.AppendUvarint(body, uint64(len(e.Value))), e.Value...)
		body = binary.AppendUvarint(body, uint64(e.List))
	}
	return frame(len(entries), body)
}

func readSymbols(r io.Reader, limit int64) (symbols []string, offs []int64, err error) {
	t := NewSymbolTable(r, limit)
	for t.Next() {
		symbols = append(symbols, string(t.Symbol()))
		offs = append(offs, t.Offset())
	}
	return symbols, offs, t.Err()
}

func readOffsets(r io.Reader, limit int64) (entries []offset, err error) {
	t := NewOffsetTable(r, limit)
	for t.Next() {
		entries = append(entries, offset{string(t.Name()), string(t.Value()), t.List()})
	}
	return entries, t.Err()
}

// manySymbols crosses the buffer's end many times, with empty symbols, symbols longer than the
// buffer and every length between.
func manySymbols() []string {
	var s []string
	for i := range 700 {
		s = append(s, strings.Repeat("x", i))
	}
	return append(s, strings.Repeat("y", sectionBuffer-1), strings.Repeat("z", 3*sectionBuffer),
		"end")
}

func TestSymbolTable(t *testing.T) {
	want := manySymbols()
	b := symbolFrame(want...)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole":         func(r io.Reader) io.Reader { return r },
		"halves":        iotest.HalfReader,
		"data with EOF": iotest.DataErrReader,
	} {
		r := bytes.NewReader(append(b[:len(b):len(b)], "what follows"...))
		got, offs, err := readSymbols(wrap(r), int64(len(b)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s: %s", name, diff)
		}
		for i, o := range offs {
			s, _, err := cutString(b[o:])
			if err != nil || string(s) != want[i] {
				t.Fatalf("%s: symbol %d is not at byte %d", name, i, o)
			}
		}
		if name == "whole" && r.Len() != len("what follows") {
			t.Errorf("%d bytes are left of what follows", r.Len())
		}
	}
}

func TestOffsetTable(t *testing.T) {
	want := []offset{{"", "", 1000}, {"a", "", 1012}, {"a", "b", 1 << 40},
		{"z", strings.Repeat("v", 2*sectionBuffer), 5}}
	for i := range 10000 {
		want = append(want, offset{"name", strings.Repeat("w", i%50), int64(i)})
	}
	b := offsetFrame(want...)
	got, err := readOffsets(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// TestSectionWithRest: bytes after the last entry, within the section's length, only count for the
// checksum.
func TestSectionWithRest(t *testing.T) {
	b := frame(1, []byte("\x01sand then some"))
	if got, _, err := readSymbols(bytes.NewReader(b), int64(len(b))); err != nil || len(got) != 1 ||
		got[0] != "s" {
		t.Fatalf("%q, %v", got, err)
	}
	b[len(b)-6] ^= 1
	if _, _, err := readSymbols(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrChecksum) {
		t.Fatal(err)
	}
}

func TestSectionDamage(t *testing.T) {
	sym := symbolFrame("", "a", "bb", strings.Repeat("c", 300))
	off := offsetFrame(offset{"", "", 20}, offset{"job", "x", 300},
		offset{"job", strings.Repeat("y", 200), 70000})
	for i := range sym {
		b := bytes.Clone(sym)
		b[i] ^= 0x41
		_, _, err := readSymbols(bytes.NewReader(b), int64(len(b)))
		if !errors.Is(err, ErrChecksum) && !errors.Is(err, ErrCorrupt) {
			t.Errorf("symbol table with byte %d changed: %v", i, err)
		}
		_, _, err = readSymbols(bytes.NewReader(sym[:i]), int64(len(sym)))
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("symbol table cut at byte %d: %v", i, err)
		}
		if _, _, err := readSymbols(bytes.NewReader(sym), int64(i)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("symbol table in a space of %d bytes: %v", i, err)
		}
	}
	for i := range off {
		b := bytes.Clone(off)
		b[i] ^= 0x41
		if _, err := readOffsets(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrChecksum) &&
			!errors.Is(err, ErrCorrupt) {
			t.Errorf("offset table with byte %d changed: %v", i, err)
		}
	}
	// An error of the stream is not corruption.
	broken := errors.New("connection reset")
	r := io.MultiReader(bytes.NewReader(sym[:20]), iotest.ErrReader(broken))
	if _, _, err := readSymbols(r, int64(len(sym))); !errors.Is(err, broken) ||
		errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	// A length that the section cannot contain is refused before memory is allocated for it.
	huge := frame(1, binary.AppendUvarint(nil, maxTableString+1))
	_, _, err := readSymbols(bytes.NewReader(huge), int64(len(huge)))
	if !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}

// TestTablesOfPrometheus reads tables that Prometheus wrote.
func TestTablesOfPrometheus(t *testing.T) {
	file := filepath.Join(t.TempDir(), "index")
	w, err := index.NewWriter(context.Background(), file)
	if err != nil {
		t.Fatal(err)
	}
	symbols := []string{"", "__name__", "a", "b", "job", "up", "ÿ"}
	for _, s := range symbols {
		if err := w.AddSymbol(s); err != nil {
			t.Fatal(err)
		}
	}
	for i, l := range []labels.Labels{
		labels.FromStrings("__name__", "up", "job", "a"),
		labels.FromStrings("__name__", "up", "job", "b"),
		labels.FromStrings("__name__", "up", "job", "ÿ"),
	} {
		if err := w.AddSeries(storage.SeriesRef(i), l); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(b))
	toc, err := ParseTOC(b, b, size)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := readSymbols(bytes.NewReader(b[toc.Symbols:]),
		toc.SectionEnd(toc.Symbols, size)-toc.Symbols)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(symbols, got); diff != "" {
		t.Error(diff)
	}
	entries, err := readOffsets(bytes.NewReader(b[toc.PostingsTable:]),
		toc.SectionEnd(toc.PostingsTable, size)-toc.PostingsTable)
	if err != nil {
		t.Fatal(err)
	}
	var want []offset
	add := func(name, value []byte, off uint64, _ int) error {
		want = append(want, offset{string(name), string(value), int64(off)})
		return nil
	}
	err = index.ReadPostingsOffsetTable(byteSlice(b), uint64(toc.PostingsTable), add)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, entries); diff != "" || len(entries) != 5 {
		t.Errorf("%d entries: %s", len(entries), diff)
	}
}

type byteSlice []byte

func (b byteSlice) Len() int                    { return len(b) }
func (b byteSlice) Range(start, end int) []byte { return b[start:end] }

// fixSum gives a mutated section a valid checksum, so that the decoders after it are reached.
func fixSum(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) >= 12 {
		binary.BigEndian.PutUint32(b, uint32(len(b)-8))
		binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[4:len(b)-4], castagnoli))
	}
	return b
}

func FuzzSymbolTable(f *testing.F) {
	f.Add(symbolFrame("", "a", "bb"))
	f.Add(symbolFrame(strings.Repeat("c", 300)))
	f.Fuzz(func(t *testing.T, b []byte) {
		readSymbols(bytes.NewReader(b), int64(len(b)))
		b = fixSum(b)
		symbols, _, err := readSymbols(iotest.HalfReader(bytes.NewReader(b)), int64(len(b)))
		if err != nil {
			return
		}
		if len(symbols) != int(binary.BigEndian.Uint32(b[4:])) {
			t.Fatalf("%d symbols", len(symbols))
		}
		// Prometheus's reader on the same bytes. It reads bytes after the last symbol as more
		// symbols.
		table, err := index.NewSymbols(byteSlice(b), index.FormatV2, 0)
		if err != nil {
			return
		}
		for i, s := range symbols {
			if theirs, err := table.Lookup(uint32(i)); err != nil || theirs != s {
				t.Fatalf("symbol %d is %q, Prometheus has %q, %v", i, s, theirs, err)
			}
		}
	})
}

func FuzzOffsetTable(f *testing.F) {
	f.Add(offsetFrame(offset{"", "", 20}, offset{"job", "x", 300}))
	f.Fuzz(func(t *testing.T, b []byte) {
		readOffsets(bytes.NewReader(b), int64(len(b)))
		b = fixSum(b)
		entries, err := readOffsets(iotest.HalfReader(bytes.NewReader(b)), int64(len(b)))
		if err != nil {
			return
		}
		for _, e := range entries {
			if e.List < 0 {
				t.Fatalf("%+v", e)
			}
		}
		var theirs []offset
		err = index.ReadPostingsOffsetTable(byteSlice(b), 0, func(name, value []byte, off uint64,
			_ int) error {
			theirs = append(theirs, offset{string(name), string(value), int64(off)})
			return nil
		})
		if diff := cmp.Diff(theirs, entries); err != nil || diff != "" {
			t.Fatalf("Prometheus says %v (-Prometheus +got):\n%s", err, diff)
		}
	})
}
