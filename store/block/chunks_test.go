package block

import (
	"context"
	"errors"
	"testing"

	"github.com/oklog/ulid/v2"

	"larder/internal/pagecache"
	"larder/store/catalog"
)

// listedFiles is a Lister over names and sizes.
type listedFiles struct {
	files map[string]int64
	err   error
}

func (l listedFiles) Iter(_ context.Context, _ string, f func(string) error) error {
	for name := range l.files {
		if err := f(name); err != nil {
			return err
		}
	}
	return l.err
}

func (l listedFiles) Size(_ context.Context, name string) (int64, error) { return l.files[name], l.err }

func (l listedFiles) Exists(_ context.Context, name string) (bool, error) {
	_, ok := l.files[name]
	return ok, l.err
}

// noChunks are chunk pages of which only the objects are asked for.
type noChunks struct{ Pages }

func (noChunks) Object(_ uint32, _ ulid.ULID, _ uint64, file int, name string, size int64) pagecache.Object {
	return pagecache.Object{Name: name, Size: size, ID: uint64(file)}
}

// TestChunkFiles: a reference names the file by its place, counted from 0. Where a file is missing, the ones behind it are not taken for
// it: the first record of each lies at the same offset.
func TestChunkFiles(t *testing.T) {
	id := ulid.ULID{1}
	dir := id.String() + "/chunks/"
	away := errors.New("the bucket is away")
	for _, tc := range []struct {
		name   string
		meta   []catalog.ChunkFile
		listed listedFiles
		file   int
		want   pagecache.Object
		err    error
	}{
		{name: "from meta.json", meta: []catalog.ChunkFile{{Name: "000001", Size: 9}, {Name: "000002", Size: 10}}, file: 1,
			want: pagecache.Object{Name: dir + "000002", Size: 10, ID: 2}},
		{name: "size from the bucket", meta: []catalog.ChunkFile{{Name: "000001"}}, listed: listedFiles{files: map[string]int64{dir + "000001": 7}},
			want: pagecache.Object{Name: dir + "000001", Size: 7, ID: 1}},
		{name: "listed", listed: listedFiles{files: map[string]int64{dir + "000002": 2, dir + "000001": 1, dir + "000001.tmp": 5, dir + "x": 1}}, file: 1,
			want: pagecache.Object{Name: dir + "000002", Size: 2, ID: 2}},
		{name: "the first is missing", listed: listedFiles{files: map[string]int64{dir + "000002": 2}}, err: errNoChunkFile},
		{name: "the first is missing in meta.json", meta: []catalog.ChunkFile{{Name: "000002", Size: 9}}, err: errNoChunkFile},
		{name: "one is missing", listed: listedFiles{files: map[string]int64{dir + "000001": 1, dir + "000003": 2}}, file: 1, err: errNoChunkFile},
		{name: "beyond the last", meta: []catalog.ChunkFile{{Name: "000001", Size: 9}}, file: 1, err: errNoChunkFile},
		{name: "none", err: pagecache.ErrNotFound},
		{name: "bucket away", listed: listedFiles{err: away}, err: away},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := New(&catalog.Block{ID: id, ChunkFiles: tc.meta}, &Deps{Lister: tc.listed, Chunks: noChunks{}})
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

// TestRecordBound: what a neighbour says of a record's length steers a read only within reason.
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
	full := catalog.Block{MinTime: 0, MaxTime: 1000, NumSeries: 10, NumChunks: 100, ChunkFiles: []catalog.ChunkFile{{Size: 20_000}}}
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
		{"mad counts", catalog.Block{MaxTime: 1000, NumSeries: 1, NumChunks: 1 << 63}, 0, 1000, 1 << 20, 1 << 29},
	} {
		b := New(&tc.meta, &Deps{})
		if n, bytes := b.ChunksPerSeries(tc.minT, tc.maxT); n != tc.n || bytes != tc.bytes {
			t.Errorf("%s: %d chunks of %d bytes, want %d of %d", tc.name, n, bytes, tc.n, tc.bytes)
		}
	}
}
