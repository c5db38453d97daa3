package indexheader

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/oklog/ulid/v2"

	"larder/internal/localfs"
)

// A block counts as opened once its header was built: not when it is requested, and not after a
// failed build.
func TestOpened(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		bkt := newBucket()
		src := bkt.add(1, tinyIndex(t))
		m, err := New(Options{Dir: localfs.At(dir), Bucket: bkt})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		bkt.setFault(func(context.Context, get, int) (io.ReadCloser, error, bool) {
			return nil, errors.New("bucket is down"), true
		})
		if m.Opened(src.ID) {
			t.Errorf("dir %q: opened before any request", dir)
		}
		m.Prefetch([]Source{src})
		if err := m.Wait(t.Context(), []ulid.ULID{src.ID}); err != nil {
			t.Fatal(err)
		}
		if m.Opened(src.ID) {
			t.Errorf("dir %q: opened after a failed build", dir)
		}
		bkt.setFault(nil)
		m.Prefetch([]Source{src})
		if err := m.Wait(t.Context(), []ulid.ULID{src.ID}); err != nil {
			t.Fatal(err)
		}
		if !m.Opened(src.ID) {
			t.Errorf("dir %q: not opened after a build", dir)
		}
		m.Forget(src.ID)
		if m.Opened(src.ID) {
			t.Errorf("dir %q: opened after it was forgotten", dir)
		}
	}
}
