package objectstores

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/thanos-io/objstore/client"

	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/query"
	"larder/interop/internal/settings"
)

// TestObjectStoreStalls: every 25th range of an S3 server stops half way for two seconds. Once
// larder has measured the usual time, another request continues such bodies, and the answers are
// those over a folder.
func TestObjectStoreStalls(t *testing.T) {
	ctx := t.Context()
	l, err := layout.Write(
		ctx, filepath.Join(t.TempDir(), "bucket"), settings.Seed(t), layout.Options{},
	)
	if err != nil {
		t.Fatal(err)
	}
	yaml := startS3(t, "-slow-every=25", "-slow=2s")
	bkt, err := client.NewBucket(log.NewNopLogger(), []byte(yaml), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bkt.Close() })
	upload(t, bkt, l.Dir)
	bin := larder(t)
	want := serve(t, bin, gateway.Bucket{Dir: l.Dir, MinTime: l.MinTime, MaxTime: l.MaxTime})
	got := serve(
		t,
		bin,
		gateway.Bucket{
			Config:  yaml + "hedging_config: {enabled: true}\n",
			MinTime: l.MinTime,
			MaxTime: l.MaxTime,
		},
	)

	const won = `larder_bucket_hedges_total{reason="stalled_body",result="won"} `
	g := query.NewGenerator(settings.Seed(t), l)
	for i := range 400 {
		compare(t, want, got, g.Next())
		metrics, _ := get(ctx, "http://"+got.HTTPAddr+"/metrics")
		_, value, ok := strings.Cut(metrics, won)
		if !ok {
			t.Fatal("no metric " + won)
		}
		if !strings.HasPrefix(value, "0") {
			t.Logf("proved: S3 with stalling bodies: a stalled body was continued within %d requests", i+1)
			return
		}
	}
	t.Error("no stalled body was continued in 400 requests")
}
