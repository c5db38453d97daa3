package store_test

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/internal/faultstore"
)

// refreshEvery is how long a refresh of the catalog may be delayed with the default options.
const refreshEvery = 10 * time.Second

// refreshFaults are the calls whose failure hides the fate of a block: the check for its meta.json,
// the listing, and the read of its replacement's meta.json.
func refreshFaults() map[string]faultstore.Rule {
	return map[string]faultstore.Rule{
		"no fault":             {Kind: faultstore.SlowFirstByte, Ops: []string{objstore.OpIter}},
		"look for meta.json":   {Kind: faultstore.ServerError, Ops: []string{objstore.OpExists}},
		"listing":              {Kind: faultstore.SlowDown, Ops: []string{objstore.OpIter}},
		"listing, midway":      {Kind: faultstore.ListingError, At: 1},
		"listing, no answer":   {Kind: faultstore.Timeout, Ops: []string{objstore.OpIter}},
		"access to listing":    {Kind: faultstore.AccessDenied, Ops: []string{objstore.OpIter}},
		"new meta.json":        {Kind: faultstore.Reset, Ops: []string{objstore.OpGet}},
		"new meta.json stalls": {Kind: faultstore.StalledBody, Ops: []string{objstore.OpGet}},
	}
}

// TestABlockThatIsListedIsNotGone checks that a block is not considered deleted if the bucket lists
// its objects but denies reading them. Requests that need the block fail.
func TestABlockThatIsListedIsNotGone(t *testing.T) {
	dir, metas := blocksOf(t, 20, 60_000)
	synctest.Test(t, func(t *testing.T) {
		p := startPatient(t, dir, metas, cold())
		denied := metas[0].ULID
		p.faults.Set(faultstore.Rule{
			Kind:  faultstore.Vanished,
			Match: func(_, name string) bool { return strings.HasPrefix(name, denied.String()) },
		})
		for i, a := range p.asks {
			got, err := a.run(context.Background(), p.gateway)
			switch {
			case err == nil && got != p.want[i]:
				t.Errorf("%s: a wrong answer of %d bytes", a.name, len(got))
			case err != nil &&
				(status.Code(err) != a.code || !strings.Contains(err.Error(), denied.String())):
				t.Errorf("%s: got %v, want %s for block %s", a.name, err, a.code, denied)
			}
		}
		if p.faults.Total() == 0 {
			t.Fatal("no call was denied")
		}
		p.faults.Heal()
		time.Sleep(refreshEvery)
		for i := range p.asks {
			var out outcome
			if p.check(t, context.Background(), i, &out); out.right != 1 {
				t.Errorf("%s, healed: not answered", p.asks[i].name)
			}
		}
	})
}

// TestABlockVanishesWhileTheBucketFails replaces or deletes a block while the bucket fails, so that
// the fate of the block is unknown. Requests that need the block fail and name it. Once the bucket
// works, the replacement or the remaining blocks answer.
func TestABlockVanishesWhileTheBucketFails(t *testing.T) {
	for _, replaced := range []bool{true, false} {
		for name, rule := range refreshFaults() {
			if testing.Short() && !replaced && !strings.HasPrefix(name, "listing, ") {
				continue
			}
			what := map[bool]string{true: "replaced", false: "deleted"}[replaced]
			t.Run(what+", "+name, func(t *testing.T) {
				dir, metas := blocksOf(t, 20, 60_000)
				old, replacement := metas[0].ULID, metas[0].ULID
				replacement[15] ^= 0x55
				var left []string // the answers of the remaining blocks
				if !replaced {
					rest := t.TempDir()
					if err := os.CopyFS(filepath.Join(rest, metas[1].ULID.String()),
						os.DirFS(filepath.Join(dir, metas[1].ULID.String()))); err != nil {
						t.Fatal(err)
					}
					synctest.Test(
						t,
						func(t *testing.T) {
							left = startPatient(t, rest, metas, gatewayOptions{}).want
						},
					)
				}
				synctest.Test(t, func(t *testing.T) {
					p := startPatient(t, dir, metas, cold())
					if replaced {
						left = p.want
						if err := become(dir, old, replacement, func(meta []byte) []byte {
							return meta
						}); err != nil {
							t.Fatal(err)
						}
					} else if err := os.RemoveAll(filepath.Join(dir, old.String())); err != nil {
						t.Fatal(err)
					}
					p.faults.Set(rule)
					// After a deletion there is no new meta.json to read.
					known := name == "no fault" ||
						!replaced && slices.Contains(rule.Ops, objstore.OpGet)
					for i, a := range p.asks {
						before := p.want[i]
						got, err := a.run(context.Background(), p.gateway)
						switch {
						case known && (err != nil || got != left[i]):
							t.Errorf("%s: %d bytes, want %d: %v",
								a.name, len(got), len(left[i]), err)
						case err == nil && got != before && got != left[i]:
							t.Errorf("%s: a wrong answer of %d bytes", a.name, len(got))
						case err == nil && got != before && !known:
							t.Errorf(
								"%s: answered without a block whose state is unknown",
								a.name,
							)
						case err != nil &&
							(status.Code(err) != a.code ||
								!strings.Contains(err.Error(), old.String())):
							t.Errorf("%s: got %v, want %s for block %s", a.name, err, a.code, old)
						}
					}
					p.faults.Heal()
					// a listing that was not answered is given up after two
					time.Sleep(2*time.Minute + refreshEvery)
					p.want, p.ids = left, []ulid.ULID{metas[1].ULID}
					if replaced {
						p.ids = append(p.ids, replacement)
					}
					for i := range p.asks {
						var out outcome
						if p.check(t, context.Background(), i, &out); out.right != 1 {
							t.Errorf("%s, healed: not answered", p.asks[i].name)
						}
					}
					// No request reads the old block any more.
					p.faults.Set(faultstore.Rule{
						Kind: faultstore.ServerError,
						Match: func(_, name string) bool {
							return strings.HasPrefix(name, old.String())
						},
					})
					before := p.faults.Total()
					for i := range p.asks {
						p.check(t, context.Background(), i, &outcome{})
					}
					if n := p.faults.Total() - before; n > 0 || slices.Contains(p.served(), old) {
						t.Errorf(
							"the bucket was asked %d times for the block that is gone, serving %v",
							n, p.served(),
						)
					}
					p.faults.Heal()
					p.holdsNothing(t)
				})
			})
		}
	}
}

// midDeletion is a FILESYSTEM bucket in which a block is deleted during a listing: the client finds
// the block's folder, but cannot open it any more.
type midDeletion struct {
	objstore.Bucket
	folder string
	raced  atomic.Bool
}

// Iter implements objstore.Bucket.
func (b *midDeletion) Iter(
	ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption,
) error {
	if dir == b.folder && b.raced.CompareAndSwap(false, true) {
		return &fs.PathError{Op: "open", Path: dir, Err: syscall.ENOENT}
	}
	return b.Bucket.Iter(ctx, dir, f, options...)
}

// TestABlockVanishesWhileItsFolderIsListed deletes a block while a request that misses an object
// lists the block's folder. The replacement must answer.
func TestABlockVanishesWhileItsFolderIsListed(t *testing.T) {
	dir, metas := blocksOf(t, 20, 60_000)
	old, replacement := metas[0].ULID, metas[0].ULID
	replacement[15] ^= 0x55
	synctest.Test(t, func(t *testing.T) {
		racing := &midDeletion{folder: old.String() + "/"}
		opts := cold()
		opts.wrap = func(b objstore.Bucket) objstore.Bucket {
			racing.Bucket = b
			return retrying(racing)
		}
		p := startPatient(t, dir, metas, opts)
		if err := become(dir, old, replacement, func(meta []byte) []byte {
			return meta
		}); err != nil {
			t.Fatal(err)
		}
		for i, a := range p.asks {
			if got, err := a.run(context.Background(), p.gateway); err != nil || got != p.want[i] {
				t.Errorf("%s: %d bytes, want %d: %v", a.name, len(got), len(p.want[i]), err)
			}
		}
		if !racing.raced.Load() {
			t.Error("no request listed the folder of the block")
		}
	})
}

// TestABlockVanishesBetweenFrames replaces a block after half of an answer was sent, while the
// bucket fails. The call fails, and the next call gets the whole answer.
func TestABlockVanishesBetweenFrames(t *testing.T) {
	series := 12_000
	if testing.Short() {
		series = 9000 // three windows
	}
	whole := wholeBlock(t, series)
	for name, rule := range refreshFaults() {
		if testing.Short() && name != "listing, midway" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				faults := faultstore.New(1)
				opts := gatewayOptions{chunkBytes: -1, indexBytes: -1, oneAhead: true}
				opts.wrap = func(b objstore.Bucket) objstore.Bucket {
					return faultstore.Wrap(b, faults)
				}
				g := startGateway(t, dir, opts)
				t.Cleanup(g.Catalog.Close)
				req := wholeMetric(64)
				want, err := seriesAsk("", req).run(context.Background(), g)
				if err != nil {
					t.Fatal(err)
				}
				old := g.Catalog.View().Blocks[0].ID
				replacement := old
				replacement[15] ^= 0x55
				var reads atomic.Int64
				g.bucket.setOnRead(
					func(name string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
						if objectKind(name) != "chunks" || reads.Add(1) != 3 {
							return body, nil
						}
						faults.Set(rule)
						return body, become(dir, old, replacement,
							func(meta []byte) []byte { return meta })
					},
				)
				a, err := g.query(context.Background(), req)
				switch {
				case name == "no fault" && err != nil:
					t.Errorf("got %v", err)
				case name != "no fault" && (status.Code(err) != codes.Aborted ||
					!strings.Contains(err.Error(), old.String())):
					t.Errorf("got %v, want Aborted with the block's name", err)
				case a.frames == 0:
					t.Error("the block was deleted before the first frame")
				}
				faults.Heal()
				time.Sleep(2*time.Minute + refreshEvery)
				if got, err := seriesAsk("", req).run(context.Background(), g); err != nil ||
					got != want {
					t.Errorf("healed: %d bytes, want %d: %v", len(got), len(want), err)
				}
				if n := g.inUse(t); n != 0 {
					t.Errorf("%v bytes of the allowance are still reserved", n)
				}
			})
		})
	}
}

// TestAChunkFileVanishes checks that a block without one of its files counts as damaged. Requests
// that need the file fail. They list the block's folder, but not the bucket.
func TestAChunkFileVanishes(t *testing.T) {
	dir, metas := blocksOf(t, 20, 60_000)
	synctest.Test(t, func(t *testing.T) {
		p := startPatient(t, dir, metas, cold())
		file := filepath.Join(dir, metas[0].ULID.String(), "chunks", "000001")
		if err := os.Rename(file, file+".away"); err != nil {
			t.Fatal(err)
		}
		listings := faultstore.Rule{
			Kind:  faultstore.ServerError,
			Ops:   []string{objstore.OpIter},
			Match: func(_, dir string) bool { return dir == "" },
		}
		p.faults.Set(listings)
		failed := 0
		for range 3 {
			for i := range p.asks {
				var out outcome
				p.check(t, context.Background(), i, &out)
				failed += out.failed
			}
		}
		if failed == 0 || p.faults.Total() > 0 {
			t.Errorf("%d requests failed, the bucket was listed %d times", failed, p.faults.Total())
		}
		if err := os.Rename(file+".away", file); err != nil {
			t.Fatal(err)
		}
		p.recovered(t)
	})
}
