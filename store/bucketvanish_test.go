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

// refreshEvery is how long the catalog's next look at the bucket may have to wait, for a gateway of
// the default options.
const refreshEvery = 10 * time.Second

// refreshFaults are what may keep a gateway from finding out what became of a block: the look for
// its meta.json, the listing, the meta.json of what replaced it.
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

// TestABlockThatIsListedIsNotGone: a bucket that denies all objects of a block and lists them all
// the same has not lost it. Requests that need the block fail, and none is answered without it.
func TestABlockThatIsListedIsNotGone(t *testing.T) {
	dir, metas := blocksOf(t, 20, 60_000)
	synctest.Test(t, func(t *testing.T) {
		p := startPatient(t, dir, metas, cold())
		denied := metas[0].ULID
		p.faults.Set(
			faultstore.Rule{
				Kind:  faultstore.Vanished,
				Match: func(_, name string) bool { return strings.HasPrefix(name, denied.String()) },
			},
		)
		for i, a := range p.asks {
			got, err := a.run(context.Background(), p.gateway)
			switch {
			case err == nil && got != p.want[i]:
				t.Errorf("%s: a wrong answer of %d bytes", a.name, len(got))
			case err != nil && (status.Code(err) != a.code || !strings.Contains(err.Error(), denied.String())):
				t.Errorf("%s: got %v, want %s for block %s", a.name, err, a.code, denied)
			}
		}
		if p.faults.Total() == 0 {
			t.Fatal("nothing was denied")
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

// TestABlockVanishesWhileTheBucketFails: a compactor replaces a block, or retention deletes one,
// and the bucket does not tell what became of it. Requests that need the block fail with its name;
// none is answered without it. When the bucket is well, the replacement answers, or what is left.
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
				var left []string // the answers of what is there in the end
				if !replaced {
					rest := t.TempDir()
					if err := os.CopyFS(filepath.Join(rest, metas[1].ULID.String()), os.DirFS(filepath.Join(dir, metas[1].ULID.String()))); err != nil {
						t.Fatal(err)
					}
					synctest.Test(
						t,
						func(t *testing.T) { left = startPatient(t, rest, metas, gatewayOptions{}).want },
					)
				}
				synctest.Test(t, func(t *testing.T) {
					p := startPatient(t, dir, metas, cold())
					if replaced {
						left = p.want
						if err := become(dir, old, replacement, func(meta []byte) []byte { return meta }); err != nil {
							t.Fatal(err)
						}
					} else if err := os.RemoveAll(filepath.Join(dir, old.String())); err != nil {
						t.Fatal(err)
					}
					p.faults.Set(rule)
					// Of a block that was deleted there is no new meta.json to be read.
					known := name == "no fault" ||
						!replaced && slices.Contains(rule.Ops, objstore.OpGet)
					for i, a := range p.asks {
						before := p.want[i]
						got, err := a.run(context.Background(), p.gateway)
						switch {
						case known && (err != nil || got != left[i]):
							t.Errorf(
								"%s: %d bytes, want %d: %v", a.name, len(got), len(left[i]), err,
							)
						case err == nil && got != before && got != left[i]:
							t.Errorf("%s: a wrong answer of %d bytes", a.name, len(got))
						case err == nil && got != before && !known:
							t.Errorf(
								"%s: answered without a block of which nobody knows what became of it",
								a.name,
							)
						case err != nil && (status.Code(err) != a.code || !strings.Contains(err.Error(), old.String())):
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
					// Nobody asks for it any more.
					p.faults.Set(
						faultstore.Rule{
							Kind:  faultstore.ServerError,
							Match: func(_, name string) bool { return strings.HasPrefix(name, old.String()) },
						},
					)
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

// midDeletion is a bucket of type FILESYSTEM that is asked while another process deletes a block:
// the client finds the block's folder, and it is gone when the client opens it.
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

// TestABlockVanishesWhileItsFolderIsListed: a request that misses an object looks whether its block
// is gone. The compactor deletes the folder during that look. The replacement answers all the same.
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
		if err := become(dir, old, replacement, func(meta []byte) []byte { return meta }); err != nil {
			t.Fatal(err)
		}
		for i, a := range p.asks {
			if got, err := a.run(context.Background(), p.gateway); err != nil || got != p.want[i] {
				t.Errorf("%s: %d bytes, want %d: %v", a.name, len(got), len(p.want[i]), err)
			}
		}
		if !racing.raced.Load() {
			t.Error("no request looked into the folder of the block")
		}
	})
}

// TestABlockVanishesBetweenFrames: half of an answer is sent when the block is replaced, and what
// became of it cannot be read. The call fails, the next one has the whole answer.
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
				opts := gatewayOptions{chunkBytes: -1, indexBytes: -1}
				opts.wrap = func(b objstore.Bucket) objstore.Bucket { return faultstore.Wrap(b, faults) }
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
						return body, become(
							dir, old, replacement, func(meta []byte) []byte { return meta },
						)
					},
				)
				a, err := g.query(context.Background(), req)
				switch {
				case name == "no fault" && err != nil:
					t.Errorf("got %v", err)
				case name != "no fault" && (status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), old.String())):
					t.Errorf("got %v, want Aborted with the block's name", err)
				case a.frames == 0:
					t.Error("the block was gone before the first frame")
				}
				faults.Heal()
				time.Sleep(2*time.Minute + refreshEvery)
				if got, err := seriesAsk("", req).run(context.Background(), g); err != nil ||
					got != want {
					t.Errorf("healed: %d bytes, want %d: %v", len(got), len(want), err)
				}
				if n := g.inUse(t); n != 0 {
					t.Errorf("%v bytes of the allowance are still held", n)
				}
			})
		})
	}
}

// TestAChunkFileVanishes: a block that lost one file is damaged. Requests that need the file fail,
// and list its folder but not the bucket, in the hope that something replaced the block.
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
