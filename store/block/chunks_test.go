package block

import (
	"context"
	"errors"
	"testing"

	"github.com/oklog/ulid/v2"

	"larder/internal/pagecache"
	"larder/store/catalog"
	"larder/store/indexheader"
)

// measurer answers a measurement.
type measurer struct {
	verdict catalog.Verdict
	err     error
}

func (m measurer) Measure(
	context.Context, ulid.ULID, uint64, catalog.Doubt,
) (catalog.Verdict, error) {
	return m.verdict, m.err
}

// noChunks names objects of chunk files, and reads nothing.
type noChunks struct{ Pages }

func (noChunks) Object(
	_ uint32, _ ulid.ULID, _ uint64, file int, name string, size int64,
) pagecache.Object {
	return pagecache.Object{Name: name, Size: size, ID: uint64(file)}
}

func (noChunks) InMemory(pagecache.Object, int64) bool { return false }

// TestChunkFiles checks that a reference names a file by its place, counted from 0. If the bucket
// must be asked, its answer replaces the block by another version. TestChunkFilesWithGaps in
// package store has blocks whose files are not numbered from 1.
func TestChunkFiles(t *testing.T) {
	id := ulid.ULID{1}
	dir := id.String() + "/chunks/"
	away := errors.New("bucket is away")
	files := func(namesAndSizes ...any) (out []catalog.ChunkFile) {
		for i := 0; i < len(namesAndSizes); i += 2 {
			size := int64(namesAndSizes[i+1].(int))
			out = append(out, catalog.ChunkFile{Name: namesAndSizes[i].(string), Size: size})
		}
		return out
	}
	for _, tc := range []struct {
		name     string
		meta     []catalog.ChunkFile
		measured measurer
		file     int
		want     pagecache.Object
		err      error
	}{
		{name: "known", meta: files("000001", 9, "000002", 10), file: 1,
			want: pagecache.Object{Name: dir + "000002", Size: 10, ID: 2}},
		{name: "unknown size", meta: files("000001", 0),
			measured: measurer{verdict: catalog.Changed}, err: indexheader.ErrReplaced},
		{name: "empty", meta: files("000001", 0), measured: measurer{verdict: catalog.Confirmed},
			want: pagecache.Object{Name: dir + "000001", ID: 1}},
		{name: "unknown names", measured: measurer{verdict: catalog.Changed},
			err: indexheader.ErrReplaced},
		{name: "beyond the last, but the bucket has more", meta: files("000001", 9), file: 1,
			measured: measurer{verdict: catalog.Changed}, err: indexheader.ErrReplaced},
		{name: "beyond the last", meta: files("000001", 9), file: 1,
			measured: measurer{verdict: catalog.Confirmed}, err: errNoChunkFile},
		{name: "none", measured: measurer{verdict: catalog.Confirmed}, err: pagecache.ErrNotFound},
		{name: "bucket away", measured: measurer{err: away}, err: away},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := New(
				&catalog.Block{ID: id, ChunkFiles: tc.meta},
				&Deps{Sizes: tc.measured, Chunks: noChunks{}},
			)
			got, err := b.chunkObject(context.Background(), tc.file)
			if !errors.Is(err, tc.err) || got != tc.want {
				t.Errorf("got %+v, %v; want %+v, %v", got, err, tc.want, tc.err)
			}
			var f *Fault
			if errors.Is(tc.err, away) != errors.As(err, &f) {
				t.Errorf("error of the bucket marked as such: %v", !errors.Is(tc.err, away))
			}
		})
	}
}

func TestRecordBound(t *testing.T) {
	for _, tc := range []struct {
		bound uint32
		max   int64
		want  int64
	}{
		{0, 0, guessedRecord},
		{0, 300, 300},
		{0, 1 << 20, 4 * guessedRecord},
		{200, 0, 200},
		{200, 300, 200},
		{400, 300, 300},
		{1 << 31, 0, maxGuess},
		{1 << 31, 1 << 20, 1 << 20},
		{2, 0, maxRecordHead},
	} {
		b := New(&catalog.Block{ChunkMaxSize: tc.max}, &Deps{})
		if got := b.RecordBytes(tc.bound); got != tc.want {
			t.Errorf("bound %d, largest %d: read %d bytes, want %d", tc.bound, tc.max, got, tc.want)
		}
	}
}

func TestChunksPerSeries(t *testing.T) {
	full := catalog.Block{
		MinTime:    0,
		MaxTime:    1000,
		NumSeries:  10,
		NumChunks:  100,
		ChunkFiles: []catalog.ChunkFile{{Size: 20_000}},
	}
	for _, tc := range []struct {
		name       string
		meta       catalog.Block
		minT, maxT int64
		n, bytes   int64
	}{
		{"all", full, 0, 1000, 10, 2000},
		{"extremes", full, -1 << 63, 1<<63 - 1, 10, 2000},
		{"a tenth", full, 100, 200, 2, 400},
		{"outside", full, 5000, 6000, 1, 200},
		{"no counts", catalog.Block{MaxTime: 1000}, 0, 1000, 2, 1024},
		{"absurd counts", catalog.Block{MaxTime: 1000, NumSeries: 1, NumChunks: 1 << 63},
			0, 1000, 1 << 20, 1 << 29},
	} {
		b := New(&tc.meta, &Deps{})
		if n, bytes := b.ChunksPerSeries(tc.minT, tc.maxT); n != tc.n || bytes != tc.bytes {
			t.Errorf("%s: %d chunks of %d bytes, want %d of %d", tc.name, n, bytes, tc.n, tc.bytes)
		}
	}
}
