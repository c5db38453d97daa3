package pagecache

import (
	"context"
	"io"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"larder/internal/bucket/cost"
	"larder/internal/bucket/slots"
	"larder/internal/bytecache"
)

// TestPromotion: look-ahead leaves a slot free. A flight of look-ahead that waits begins once a
// request joins it, or once its own request needs it. It stays one read.
func TestPromotion(t *testing.T) {
	const page = 1 << 10
	f := func(name string, urge func(r *Reader, obj Object, need func())) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket := newTestBucket(map[string]int{"o": 16 * page})
				goOn := make(chan struct{})
				bucket.hook = func(
					context.Context, string, int64, int64,
				) (io.ReadCloser, error, bool) {
					<-goOn
					return nil, nil, false
				}
				r := New(bucket, bytecache.None{}, Options{
					PageSize: page, Costs: cost.Fixed(cost.Model{MaxGap: -1}),
					Limiter: slots.New(slots.Options{Max: 4}),
				})
				defer r.Close()
				obj := Object{ID: 1, Name: "o", Size: 16 * page}
				fetch := func(ctx context.Context, no int64) {
					go func() {
						span := Span{no * page, no*page + 1}
						if _, err := r.Fetch(ctx, obj, []Span{span}, nil); err != nil {
							t.Error(err)
						}
					}()
					synctest.Wait()
				}
				request := slots.WithRequest(t.Context(), "tenant")
				ahead, need := slots.LookAhead(request)
				for no := range int64(4) {
					fetch(ahead, 2*no)
				}
				if n := len(bucket.taken()); n != 3 {
					t.Errorf("%d reads of look-ahead run, want 3", n)
				}
				urge(r, obj, need)
				synctest.Wait()
				want := []string{"o [6144,7168)"}
				if diff := cmp.Diff(want, bucket.taken()); diff != "" {
					t.Errorf("reads (-want +got):\n%s", diff)
				}
				close(goOn)
				synctest.Wait()
				if more := bucket.taken(); len(more) > 0 {
					t.Errorf("more reads: %v", more)
				}
			})
		})
	}
	f("a request joins it", func(r *Reader, obj Object, _ func()) {
		ctx := slots.WithRequest(context.Background(), "other")
		go r.Fetch(ctx, obj, []Span{{6 * page, 6*page + 1}}, nil)
	})
	f("its request needs it", func(_ *Reader, _ Object, need func()) { need() })
}
