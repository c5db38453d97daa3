package inspection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"larder/internal/faultstore"
	"larder/store/catalog"
)

// TestTenThousandBlocks: reads are bounded, each block costs two, and progress ends at the total.
func TestTenThousandBlocks(t *testing.T) {
	const blocks, concurrency = 10_000, 32
	objects := map[string][]byte{}
	for n := range blocks {
		id := ulid.MustNew(uint64(n+1), strings.NewReader(fmt.Sprintf("%010d", n*7919)))
		objects[id.String()+"/meta.json"] = fmt.Appendf(nil, `{"ulid": %q, "version": 1,
			"minTime": %d, "maxTime": %d, "stats": {"numSeries": 10}, "thanos": {"labels": {},
			"files": [{"rel_path": "index", "size_bytes": 10},
			{"rel_path": "chunks/000001", "size_bytes": 90}]}}`, id, n, n+1)
	}
	bucket := faultstore.Wrap(faultstore.InMemory(objects), faultstore.New(1))
	most := make(chan int, 1)
	most <- 0
	bucket.Script(func(context.Context, faultstore.Call, int) (io.ReadCloser, error, bool) {
		n := <-most
		most <- max(n, bucket.OpenBodies())
		return nil, nil, false
	})
	last := map[string][2]int{}
	inv, err := catalog.TakeInventory(t.Context(),
		catalog.Options{Bucket: bucket, Concurrency: concurrency},
		catalog.InventoryOptions{Progress: func(stage string, done, total int) {
			if before := last[stage]; done < before[0] || total != before[1] && before[1] > 0 {
				t.Errorf("%s: progress %d of %d after %v", stage, done, total, before)
			}
			last[stage] = [2]int{done, total}
		}})
	if err != nil {
		t.Fatal(err)
	}
	r := Shards(inv, "test", ShardsOptions{Count: 12, To: 13})
	if r.Selected.Blocks != blocks || r.Selected.Bytes != 100*blocks || len(r.Bad) > 0 {
		t.Errorf("selected %+v, bad %v", r.Selected, r.Bad)
	}
	if got := r.Schemes[0].Imbalance.Blocks; got < 1 || got > 1.2 {
		t.Errorf("imbalance %v", got)
	}
	if got := r.Moves[0].Share; got < 0.9/13 || got > 1.1/13 {
		t.Errorf("moved share %v, want about 1/13", got)
	}
	want := [2]int{blocks, blocks}
	if last["reading meta.json"] != want || last["reading marks"] != want {
		t.Errorf("progress ends at %v", last)
	}
	if n := <-most; n > concurrency {
		t.Errorf("%d bodies at once, the limit is %d", n, concurrency)
	}
	if n := len(bucket.Calls()); n != 2*blocks+1 {
		t.Errorf("%d requests, want two for each block and a listing", n)
	}
}

// TestCanceled: an inventory and a check end with their context.
func TestCanceled(t *testing.T) {
	s := newScript(t)
	s.real()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("stop")
	inv, err := catalog.TakeInventory(ctx, catalog.Options{Bucket: s.bucket},
		catalog.InventoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i := s.inspector()
	defer i.Close()
	cancel(why)
	if _, _, err := i.Check(ctx, []*catalog.Block{inv.Entries[0].Block}, nil); !errors.Is(
		err,
		why,
	) {
		t.Errorf("check: %v", err)
	}
	if _, err := catalog.TakeInventory(ctx, catalog.Options{Bucket: s.bucket},
		catalog.InventoryOptions{}); !errors.Is(err, context.Canceled) && !errors.Is(err, why) {
		t.Errorf("inventory: %v", err)
	}
}

// TestVanishedBlock: a block that is deleted between the listing and the read of its meta.json is
// no partial upload.
func TestVanishedBlock(t *testing.T) {
	s := newScript(t)
	s.real()
	id := s.id("real").String()
	s.bucket.Script(func(
		_ context.Context, c faultstore.Call, _ int,
	) (io.ReadCloser, error, bool) {
		if strings.HasSuffix(c.Name, "/meta.json") {
			for name := range s.memory.Objects() {
				_ = s.memory.Delete(t.Context(), name)
			}
		}
		return nil, nil, false
	})
	inv, err := catalog.TakeInventory(t.Context(), catalog.Options{Bucket: s.bucket},
		catalog.InventoryOptions{})
	if err != nil || len(inv.Entries) != 0 {
		t.Errorf("block %s: got %+v, %v", id, inv, err)
	}
}
