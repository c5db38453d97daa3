package store_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/internal/faultstore"
	"larder/store/catalog"
)

// aside writes a third block, with other external labels, outside the folder of blocksOf.
func aside(t *testing.T, dir string, m *dataset.Meta) (id ulid.ULID, path string) {
	t.Helper()
	id = m.ULID
	id[15] ^= 0x55
	path = filepath.Join(t.TempDir(), id.String())
	if err := os.CopyFS(path, os.DirFS(filepath.Join(dir, m.ULID.String()))); err != nil {
		t.Fatal(err)
	}
	damage(t, filepath.Join(path, "meta.json"), func(b []byte) []byte {
		b = bytes.ReplaceAll(b, []byte(m.ULID.String()), []byte(id.String()))
		return bytes.ReplaceAll(b, []byte("prometheus-0"), []byte("prometheus-1"))
	})
	return id, path
}

func (p *patient) served() []ulid.ULID {
	var ids []ulid.ULID
	for _, b := range p.Catalog.View().Blocks {
		ids = append(ids, b.ID)
	}
	return ids
}

// TestBucketFaultsDuringASync breaks syncs while a block appears and while it disappears. The view
// stays until a sync has seen the whole bucket. The first sync of a bucket that works again finds
// all blocks.
func TestBucketFaultsDuringASync(t *testing.T) {
	for _, how := range []catalog.Discovery{catalog.Concurrent, catalog.Recursive} {
		t.Run(string(how), func(t *testing.T) {
			dir, metas := blocksOf(t, 20, 60_000)
			third, away := aside(t, dir, metas[1])
			here := filepath.Join(dir, third.String())
			move := func(from, to string) {
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				opts := cold()
				opts.discovery = how
				p := startPatient(t, dir, metas, opts)
				ctx := context.Background()
				for _, k := range faultstore.Kinds() {
					// A meta.json has no checksum.
					ops := []string{objstore.OpIter, objstore.OpGet}
					match := func(op, name string) bool {
						return k != faultstore.FlippedBit || !strings.HasSuffix(name, "/meta.json")
					}

					move(away, here)
					p.faults.Set(faultstore.Rule{Kind: k, Ops: ops, Match: match})
					err := p.Catalog.Sync(ctx)
					has := slices.Contains(p.served(), third)
					for _, m := range metas {
						if !slices.Contains(p.served(), m.ULID) {
							t.Errorf("%s: block %s was lost: %v", k, m.ULID, err)
						}
					}
					if mended(k) && (err != nil || !has) {
						t.Errorf("%s: the new block is not there: %v", k, err)
					}
					var out outcome
					if p.check(t, ctx, 1, &out); out.right != 1 {
						t.Errorf("%s: a request for a block in the view failed", k)
					}
					p.faults.Heal()
					if err := p.Catalog.Sync(ctx); err != nil ||
						!slices.Contains(p.served(), third) {
						t.Errorf("%s, healed: the new block is not there: %v", k, err)
					}

					move(here, away)
					// listings break before or after their first entry
					for _, at := range []int64{-1, 0, 1, 2} {
						p.faults.Set(faultstore.Rule{Kind: k, Ops: ops, Match: match, At: at})
						before := p.faults.Total()
						err = p.Catalog.Sync(ctx)
						listed := !slices.Contains(p.served(), third)
						if broken := p.faults.Total() > before &&
							(k < faultstore.Vanished && !mended(k) ||
								k == faultstore.ListingError); broken &&
							(listed || err == nil) {
							t.Errorf("%s at %d: a listing that broke took a block away, error %v",
								k, at, err)
						}
						for _, m := range metas {
							if !slices.Contains(p.served(), m.ULID) {
								t.Errorf("%s at %d: block %s was lost: %v", k, at, m.ULID, err)
							}
						}
					}
					p.faults.Heal()
					if err := p.Catalog.Sync(ctx); err != nil || len(p.served()) != len(metas) {
						t.Errorf("%s, healed: serving %v: %v", k, p.served(), err)
					}
					p.recovered(t)
				}
			})
		})
	}
}

// TestBucketFaultsDuringTheFirstSync checks that a gateway is not ready until it has seen the
// bucket, that it retries, and that it is ready once the bucket works.
func TestBucketFaultsDuringTheFirstSync(t *testing.T) {
	dir, metas := blocksOf(t, 20, 60_000)
	var want []string
	synctest.Test(t,
		func(t *testing.T) { want = startPatient(t, dir, metas, gatewayOptions{}).want })
	for _, k := range faultstore.Kinds() {
		rule := faultstore.Rule{Kind: k}
		switch k {
		case faultstore.Vanished:
			continue // looks like an incomplete upload
		case faultstore.FlippedBit:
			continue // a meta.json has no checksum
		case faultstore.ShortListing:
			continue // the first listing of a bucket cannot be compared with a former one
		case faultstore.ShortBody, faultstore.LongBody:
			// a meta.json that is damaged twice counts as damaged, and its block as broken
			rule.Count = 1
		}
		t.Run(k.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPatient(t, dir, metas,
					gatewayOptions{firstSync: func(p *gateway) error { return nil }})
				p.want = want
				for _, m := range metas {
					p.ids = append(p.ids, m.ULID)
				}
				p.faults.Set(rule)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				done := make(chan error)
				go func() { done <- p.Catalog.Run(ctx) }()
				for range 3 {
					time.Sleep(time.Minute)
					for i, a := range p.asks {
						got, err := a.run(ctx, p.gateway)
						if err == nil && got != want[i] ||
							err != nil && status.Code(err) != codes.Unavailable {
							t.Errorf("%s: %d bytes, %v", a.name, len(got), err)
						}
						if err == nil && !mended(k) && rule.Count == 0 {
							t.Errorf("%s: answered before the first sync has succeeded", a.name)
						}
					}
				}
				p.faults.Heal()
				time.Sleep(3 * time.Minute) // a listing without an answer times out after two
				for i := range p.asks {
					var out outcome
					if p.check(t, ctx, i, &out); out.right != 1 {
						t.Errorf("%s, healed: not answered", p.asks[i].name)
					}
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				p.holdsNothing(t)
			})
		})
	}
}
