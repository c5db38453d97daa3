package catalog

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/localfs"
)

// TestDocument: Document returns the meta.json as it is in the bucket, with and without a data
// directory, without a request. The copy is removed with its block.
func TestDocument(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		b := newTestBucket()
		id, gone := testID(1), testID(2)
		doc := strings.Replace(smallMeta(id), "{", `{"x": "`+strings.Repeat("a", 5000)+`", `, 1)
		b.put(id.String()+"/"+metaFile, doc)
		b.put(gone.String()+"/"+metaFile, smallMeta(gone))
		c := newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)})
		mustSync(t, c)
		b.requests()
		f := func(id ulid.ULID, want string, wantErr error) {
			t.Helper()
			got, err := c.Document(id)
			if string(got) != want || !errors.Is(err, wantErr) {
				t.Errorf("dir %q: got %q, %v, want %q, %v", dir, got, err, want, wantErr)
			}
		}
		f(id, doc, nil)
		f(gone, smallMeta(gone), nil)
		f(testID(3), "", fs.ErrNotExist)
		if got, want := b.requests(), "list=0 meta=0 mark=0 other=0"; got != want {
			t.Errorf("dir %q: %s requests for documents", dir, got)
		}

		b.deleteBlock(gone.String())
		changed := strings.Replace(doc, "aaa", "bbb", 1)
		b.put(id.String()+"/"+metaFile, changed)
		c.Tombstone(id) // so that it is read again
		mustSync(t, c)
		f(id, changed, nil)
		f(gone, "", fs.ErrNotExist)
	}
}

func TestPackedMetasAreSmall(t *testing.T) {
	p := newPackedMetas(1 << 20)
	p.put(testID(1), []byte(fullMeta))
	if n := cap(p.m[testID(1)]); n > len(fullMeta)*3/4 {
		t.Errorf("%d bytes need %d bytes packed", len(fullMeta), n)
	}
}

func TestWriteMark(t *testing.T) {
	ctx, now := t.Context(), time.Unix(1800000000, 5)
	id := testID(1)
	b := newTestBucket()
	mark := func(kind MarkKind, details string) (bool, error) {
		return WriteMark(ctx, b, id, kind, details, now)
	}

	for _, kind := range []MarkKind{MarkDeletion, MarkNoCompaction} {
		if written, err := mark(kind, ""); written || !errors.Is(err, ErrNoBlock) ||
			len(b.memory.Objects()) > 0 {
			t.Fatalf("a missing block: got %v, %v, %d objects", written, err,
				len(b.memory.Objects()))
		}
	}
	b.put(id.String()+"/"+metaFile, smallMeta(id))
	f := func(kind MarkKind, file, want string) {
		t.Helper()
		if written, err := mark(kind, "a <b>"); !written || err != nil {
			t.Errorf("%s: got %v, %v", file, written, err)
		}
		// An existing mark stays, because the delay counts from the first mark.
		if written, err := mark(kind, "again"); written || err != nil {
			t.Errorf("%s again: got %v, %v", file, written, err)
		}
		if got := string(b.memory.Objects()[id.String()+"/"+file]); got != want {
			t.Errorf("%s: got %s, want %s", file, got, want)
		}
	}
	f(
		MarkDeletion, "deletion-mark.json",
		`{"id":"`+id.String()+`","version":1,"details":"a \u003cb\u003e","deletion_time":1800000000}`,
	)
	f(
		MarkNoCompaction, "no-compact-mark.json",
		`{"id":"`+id.String()+`","version":1,"details":"a \u003cb\u003e","no_compact_time":1800000000,"reason":"manual"}`,
	)
	at, err := parseMark(id, b.memory.Objects()[id.String()+"/deletion-mark.json"])
	if err != nil || at != now.Unix() {
		t.Errorf("larder reads its mark as %d, %v", at, err)
	}

	b.uploadErr = io.ErrClosedPipe
	id = testID(2)
	b.put(id.String()+"/"+metaFile, smallMeta(id))
	if written, err := mark(MarkDeletion, ""); written || !errors.Is(err, io.ErrClosedPipe) ||
		!strings.Contains(err.Error(), id.String()+"/deletion-mark.json") {
		t.Errorf("a bucket that denies access: got %v, %v", written, err)
	}
}
