package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"

	"larder/internal/localfs"
)

// largeBucket serves one text as the meta.json of many blocks, and records the memory of the
// process while they are read.
type largeBucket struct {
	*testBucket
	text  string
	large map[string]bool // folders of these blocks
	sized bool            // bodies tell their size
	look  func()
}

func newLargeBucket(text string, sized bool, blocks int) *largeBucket {
	b := &largeBucket{testBucket: newTestBucket(), text: text, large: map[string]bool{},
		sized: sized, look: func() {}}
	for i := range blocks {
		id := testID(uint64(1000 + i))
		b.large[id.String()] = true
		b.put(id.String()+"/index", "")
	}
	return b
}

func (b *largeBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	dir, file, _ := strings.Cut(name, "/")
	if !b.large[dir] || file != metaFile {
		return b.testBucket.Get(ctx, name)
	}
	b.count(metaFile)
	body := &largeBody{Reader: strings.NewReader(b.text), b: b}
	if !b.sized {
		return body, nil
	}
	return objstore.ObjectSizerReadCloser{ReadCloser: body,
		Size: func() (int64, error) { return int64(len(b.text)), nil }}, nil
}

type largeBody struct {
	*strings.Reader
	b    *largeBucket
	read int
}

func (b *largeBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p[:min(len(p), 1<<20)])
	b.read += n
	b.b.look()
	return n, err
}

// WriteTo hides the method of strings.Reader, which bodies of buckets do not have.
func (b *largeBody) WriteTo(io.Writer) (int64, error) { return 0, errors.ErrUnsupported }

func (b *largeBody) Close() error { b.b.look(); return nil }

// manyLabels returns the meta.json of a block with so many bytes of external labels.
func manyLabels(id ulid.ULID, n int) string {
	var s strings.Builder
	fmt.Fprintf(&s,
		`{"ulid": %q, "version": 1, "minTime": 0, "maxTime": 10, "thanos": {"labels": {"a": ""`, id)
	for i := 0; s.Len() < n; i++ {
		fmt.Fprintf(&s, `,"l%d":"v"`, i)
	}
	s.WriteString("}}}")
	return s.String()
}

// TestLargeDocumentsAreReadWithinTheirAccount: many blocks whose meta.json has megabytes of labels
// need no more memory than the account has. Each is refused by name, once, and affects no other
// block.
func TestLargeDocumentsAreReadWithinTheirAccount(t *testing.T) {
	const blocks, account = 32, 10 << 20
	for _, sized := range []bool{true, false} {
		t.Run(fmt.Sprintf("sized=%v", sized), func(t *testing.T) {
			b := newLargeBucket(manyLabels(testID(1000), 2<<20), sized, blocks)
			var good []ulid.ULID
			for i := range uint64(20) {
				good = append(good, putBlock(b.testBucket, i+1))
			}
			var log bytes.Buffer
			reg := prometheus.NewRegistry()
			c := newCatalog(t, Options{Bucket: b, DocumentBytes: account, Registerer: reg,
				Logger: slog.New(slog.NewTextHandler(&log, nil))})

			defer debug.SetGCPercent(debug.SetGCPercent(25)) // so that the heap is what is in use
			var mu sync.Mutex
			var heap, used int64
			var before runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			b.look = func() {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				mu.Lock()
				defer mu.Unlock()
				heap, used = max(heap, int64(m.HeapAlloc)-int64(before.HeapAlloc)),
					max(used, c.documents.used.Load())
			}
			for range 2 {
				mustSync(t, c)
			}
			t.Logf("heap %d MiB, account %d MiB of %d", heap>>20, used>>20, account>>20)
			if heap > account+8<<20 {
				t.Errorf("%d MiB of heap, the account has %d", heap>>20, account>>20)
			}
			if used < documentCost(2<<20) || used > account || c.documents.used.Load() != 0 {
				t.Errorf("%d bytes of the account were used at most, %d are used at the end", used,
					c.documents.used.Load())
			}
			if got := len(c.View().Blocks); got != len(good) {
				t.Errorf("serving %d blocks", got)
			}
			broken := c.Status().Broken
			if len(broken) != blocks {
				t.Fatalf("got %d broken blocks", len(broken))
			}
			for _, bad := range broken {
				if bad.State != stateCorrupted || !errors.Is(bad.Err, errRefused) ||
					!strings.Contains(bad.Err.Error(),
						bad.ID.String()+": refused: thanos.labels has") {
					t.Errorf("%+v", bad)
				}
				if n := strings.Count(log.String(),
					`"skipping a block" component=catalog block=`+bad.ID.String()); n != 1 {
					t.Errorf("%s was logged %d times, want once", bad.ID, n)
				}
			}
			if strings.Contains(log.String(), "read once more") {
				t.Error("a refused document was read again at once")
			}
			if n := testutil.ToFloat64(
				c.metrics.synced.WithLabelValues(stateCorrupted)); n != blocks {
				t.Errorf("the metric counts %v blocks", n)
			}
		})
	}
}

// TestADocumentLargerThanTheAccount: it is refused by name, from the bucket and from a local copy,
// and delays no other document.
func TestADocumentLargerThanTheAccount(t *testing.T) {
	padded := func(id ulid.ULID, n int) string {
		return strings.Replace(smallMeta(id), "{", `{"x": "`+strings.Repeat("a", n)+`", `, 1)
	}
	b := newTestBucket()
	for i := range uint64(10) {
		putBlock(b, i+1)
	}
	large, larger := testID(100), testID(101)
	b.put(large.String()+"/"+metaFile, padded(large, 1<<20))
	b.put(larger.String()+"/"+metaFile, padded(larger, maxMetaSize))
	for _, dir := range []localfs.Dir{{}, localfs.At(t.TempDir())} {
		c := newCatalog(t, Options{Bucket: b, Dir: dir})
		mustSync(t, c)
		if n := len(c.View().Blocks); n != 11 {
			t.Errorf("serving %d blocks with the usual account", n)
		}
		if broken := c.Status().Broken; len(broken) != 1 || broken[0].ID != larger ||
			!strings.Contains(broken[0].Err.Error(), "larger than 16777216 bytes") {
			t.Errorf("broken: %+v", broken)
		}
		if _, err := c.Document(large); err == nil {
			t.Error("Document returned 1 MiB")
		}
		c.Close()

		c = newCatalog(t, Options{Bucket: b, Dir: dir, DocumentBytes: 1})
		mustSync(t, c)
		if n := len(c.View().Blocks); n != 10 {
			t.Errorf("serving %d blocks with a small account", n)
		}
		if broken := c.Status().Broken; len(broken) != 2 || broken[0].ID != large ||
			!strings.Contains(broken[0].Err.Error(),
				large.String()+"/meta.json: refused: decoding needs") {
			t.Errorf("broken: %+v", broken)
		}
		if n := testutil.ToFloat64(c.metrics.damagedCopies); n != 0 {
			t.Errorf("%v copies count as damaged", n)
		}
		c.Close()
	}
}

// TestDocumentsWaitForTheirTurn: a document that does not fit the account now is read later. It has
// no reservation while it waits.
func TestDocumentsWaitForTheirTurn(t *testing.T) {
	for _, sized := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newLargeBucket("", sized, 1)
			id := testID(1000)
			b.text = strings.Replace(smallMeta(id), "{",
				`{"x": "`+strings.Repeat("a", 100<<10)+`", `, 1)
			c := newCatalog(t, Options{Bucket: b, DocumentBytes: 4 << 20})
			held, err := c.documents.reserve(t.Context(),
				c.documents.size-documentCost(usualDocument))
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan metaResult, 1)
			go func() { done <- c.fetchMeta(t.Context(), id) }()
			synctest.Wait()
			if c.documents.used.Load() != held.bytes {
				t.Errorf("%d bytes are reserved while it waits, want %d of others",
					c.documents.used.Load(), held.bytes)
			}
			held.release()
			if res := <-done; res.outcome != readOK || res.meta.block.ID != id {
				t.Errorf("got %+v", res)
			}
			if n := c.documents.used.Load(); n != 0 {
				t.Errorf("%d bytes are still reserved", n)
			}

			// The caller cancels while it waits.
			if held, err = c.documents.reserve(t.Context(), c.documents.size); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			go func() { done <- c.fetchMeta(ctx, id) }()
			synctest.Wait()
			cancel()
			if res := <-done; res.outcome != readFailed || !errors.Is(res.err, context.Canceled) {
				t.Errorf("cancelled: got %+v", res)
			}
			held.release()
		})
	}
}

// TestListingsReserve: listings of blocks, of chunk files and of the Parquet bucket reserve memory
// too.
func TestListingsReserve(t *testing.T) {
	b, parquet := newTestBucket(), newTestBucket()
	id := putBlock(b, 1)
	b.put(id.String()+"/chunks/000001", "x")
	c := newCatalog(t, Options{Bucket: b, Parquet: parquet})
	lists := 0
	look := func(context.Context) {
		if lists++; c.documents.used.Load() < listingBytes {
			t.Errorf("%d bytes are reserved during a listing", c.documents.used.Load())
		}
	}
	b.onList, parquet.onList = look, look
	mustSync(t, c)
	if _, err := c.Measure(t.Context(), id, c.View().ByID(id).Content, NameDoubt); err != nil {
		t.Error(err)
	}
	if lists != 3 || c.documents.used.Load() != 0 {
		t.Errorf("%d listings, %d bytes are still reserved", lists, c.documents.used.Load())
	}
}

// TestDocumentsOfTheParquetBucketAreBounded: the bytes of a document are released before all are
// read. A document that names too many blocks does not count.
func TestDocumentsOfTheParquetBucketAreBounded(t *testing.T) {
	const account, files = 16 << 20, 32
	b, parquet := newTestBucket(), newTestBucket()
	id := putBlock(b, 1)
	pad := append([]byte{0x7a}, 0x80, 0x80, 0x80, 0x01) // field 15, 2 MiB
	day := string(encodeParquetMeta(parquetMeta{-1 << 40, 1 << 40, []ulid.ULID{testID(2)}}))
	text := day + string(pad) + strings.Repeat("x", 2<<20)
	for i := range files {
		parquet.put(fmt.Sprintf("%02d/%s", i, parquetMetaFile), text)
	}
	many := make([]ulid.ULID, maxListed+1)
	for i := range many {
		many[i] = id
	}
	tooMany := encodeParquetMeta(parquetMeta{-1 << 40, 1 << 40, many})
	parquet.put("many/"+parquetMetaFile, string(tooMany))
	c := newCatalog(t, Options{Bucket: b, Parquet: parquet, DocumentBytes: account})
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	var mu sync.Mutex
	var heap int64
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	parquet.onGet = func(context.Context, string) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		mu.Lock()
		defer mu.Unlock()
		heap = max(heap, int64(m.HeapAlloc)-int64(before.HeapAlloc))
	}
	if err := c.Sync(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "many/meta.pb: broken meta.pb: refused") {
		t.Errorf("got %v", err)
	}
	if heap > account+8<<20 {
		t.Errorf("%d MiB of heap", heap>>20)
	}
	if got := c.parquet.Load().files; len(got) != files+1 ||
		len(got["00/"+parquetMetaFile].meta.blocks) != 1 {
		t.Errorf("got %d known files", len(got))
	}
	if len(c.View().Blocks) != 1 {
		t.Error("a block is not served although its file names too many blocks")
	}
}

// TestPackedMetasAreBounded: the largest documents are dropped first.
func TestPackedMetasAreBounded(t *testing.T) {
	p := newPackedMetas(100 << 10)
	random := bytes.NewBuffer(nil)
	for i := range 1 << 17 {
		fmt.Fprintf(random, "%x", uint32(i)*2654435761)
	}
	for i := range 50 {
		p.put(testID(uint64(i)), []byte(fullMeta))
		p.put(testID(uint64(1000+i)), random.Bytes()[i*1000:i*1000+20_000+i])
	}
	p.put(testID(2000), bytes.Repeat([]byte("x"), maxShown+1))
	small, large := 0, int64(0)
	for _, packed := range p.m {
		if counted(packed) == 0 {
			small++
		}
		large += counted(packed)
	}
	if small != 50 || large > p.limit || large == 0 || large != p.large ||
		p.m[testID(2000)] != nil {
		t.Errorf("kept %d small documents and %d bytes of large ones (%d counted)", small, large, p.large)
	}
	p.retain(func(ulid.ULID) bool { return false })
	if p.large != 0 {
		t.Errorf("%d bytes are counted after all were removed", p.large)
	}
}

// TestLocalCopiesOfAnyLength: a file in place of a copy is not read beyond the bound.
func TestLocalCopiesOfAnyLength(t *testing.T) {
	b := newTestBucket()
	id := putBlock(b, 1)
	dir := t.TempDir()
	c := newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)})
	mustSync(t, c)
	c.Close()
	names, err := filepath.Glob(filepath.Join(dir, "meta", "*"))
	want := []string{filepath.Join(dir, "meta", id.String()+".json")}
	if err != nil || !slices.Equal(names, want) {
		t.Fatalf("%v, %v", names, err)
	}
	if err := os.Truncate(names[0], 1<<30); err != nil { // a sparse file
		t.Fatal(err)
	}
	c = newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir), DocumentBytes: 2 << 20})
	mustSync(t, c)
	if len(c.View().Blocks) != 1 {
		t.Error("the block is not served")
	}
}
