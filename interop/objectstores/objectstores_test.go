package objectstores

import (
	"context"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/client"
	"github.com/thanos-io/thanos/pkg/store/storepb"
	"google.golang.org/grpc/codes"

	"larder/interop/internal/answer"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/process"
	"larder/interop/internal/query"
	"larder/interop/internal/settings"
)

// noCaches makes every request read the bucket.
var noCaches = []string{"--index-cache-size=0", "--chunk-cache-size=0"}

// TestObjectStores: the same blocks behind a prefix give equal answers over each store and over a
// folder, also after a block has vanished from both.
func TestObjectStores(t *testing.T) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			ctx := t.Context()
			l, err := layout.Write(
				ctx, filepath.Join(t.TempDir(), "bucket"), settings.Seed(t), layout.Options{},
			)
			if err != nil {
				t.Fatal(err)
			}
			bin := larder(t)
			yaml := s.start(t)
			bkt, err := client.NewBucket(
				log.NewNopLogger(), []byte(yaml+"prefix: "+prefix+"\n"), "test", nil,
			)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { bkt.Close() })
			upload(t, bkt, l.Dir)

			want := serve(
				t, bin, gateway.Bucket{Dir: l.Dir, MinTime: l.MinTime, MaxTime: l.MaxTime},
			)
			got := serve(
				t,
				bin,
				gateway.Bucket{
					Config:  yaml + "prefix: /" + prefix + "/\nhedging_config: {enabled: true}\n",
					MinTime: l.MinTime,
					MaxTime: l.MaxTime,
				},
			)

			g := query.NewGenerator(settings.Seed(t), l)
			requests := settings.Choose(60, 800)
			for range requests {
				compare(t, want, got, g.Next())
			}
			everything := &query.Query{Series: &storepb.SeriesRequest{
				MinTime: l.Blocks[0].MinTime - 1<<40, MaxTime: l.Blocks[0].MaxTime + 1<<40,
				Matchers: []storepb.LabelMatcher{
					{Type: storepb.LabelMatcher_NEQ, Name: "no_such_label", Value: "x"},
				},
			}}
			before := compare(t, want, got, everything)
			if before.Code != codes.OK || len(before.Series) == 0 {
				t.Fatalf("%s, %d series", before.Code, len(before.Series))
			}
			id := l.Served()[0].ID.String()
			remove(t, bkt, id)
			if err := os.RemoveAll(filepath.Join(l.Dir, id)); err != nil {
				t.Fatal(err)
			}
			if after := compare(t, want, got, everything); after.Code != codes.OK {
				t.Errorf("after block %s has vanished: %s %s", id, after.Code, after.Message)
			}
			t.Logf(
				"proved: %s: %d random requests as over a folder, before and after a block vanished",
				s.name, requests,
			)
		})
	}
}

// TestObjectStoreCredentials: wrong credentials must not look like an empty bucket: larder is not
// ready, and reports the reason.
func TestObjectStoreCredentials(t *testing.T) {
	for _, s := range stores {
		if s.spoil == nil {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			yaml := s.start(t)
			p, url := launch(t, larder(t), s.spoil(yaml))
			if err := p.Wait(t.Context(), func(context.Context) bool {
				return strings.Contains(p.Log(), s.refusal)
			}); err != nil {
				t.Fatalf("larder does not report %q: %v", s.refusal, err)
			}
			if body, code := get(t.Context(),
				url+"/-/ready"); code != http.StatusServiceUnavailable {
				t.Errorf("/-/ready: %d %s", code, body)
			}
			t.Logf("proved: %s: wrong credentials do not look like an empty bucket", s.name)
		})
	}
}

func larder(t *testing.T) string {
	t.Helper()
	bin, err := gateway.BuildLarder(t.Context(), filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// gate is a running larder and its client.
type gate struct {
	*gateway.Larder
	client *gateway.Client
}

// serve runs larder over the bucket until it is ready.
func serve(t *testing.T, bin string, b gateway.Bucket) *gate {
	t.Helper()
	b.DataDir = t.TempDir()
	p, err := gateway.StartLarder(t.Context(), bin, b, noCaches...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := gateway.Dial(p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &gate{Larder: p, client: c}
}

// launch runs larder with a bucket's YAML and waits only until HTTP answers.
func launch(t *testing.T, bin, yaml string) (p *process.Process, url string) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "bucket.yml")
	mustWrite(t, conf, yaml)
	addrs, err := process.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	url = "http://" + addrs[1]
	p, err = process.Start(t.Context(), process.Options{
		Name: "larder", Bin: bin, Ready: process.HTTP(url + "/-/healthy"),
		Args: []string{
			"store",
			"--data-dir=" + dir,
			"--objstore.config-file=" + conf,
			"--grpc-address=" + addrs[0],
			"--http-address=" + addrs[1],
			"--drain-delay=0s",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, url
}

// compare asks both and returns the store's answer.
func compare(t *testing.T, want, got *gate, q *query.Query) *answer.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	w, err := answer.Ask(ctx, want.client, q.Clone())
	if err != nil {
		t.Fatal(err)
	}
	g, err := answer.Ask(ctx, got.client, q.Clone())
	if err != nil {
		t.Fatal(err)
	}
	opts := answer.Options{Mention: q.Mention}
	if q.Series != nil {
		opts.BatchSize, opts.AskedHints = q.Series.ResponseBatchSize, q.Series.Hints != nil
	}
	for _, d := range answer.Diff(w, g, opts) {
		if d.Field == answer.StatsSent { // they hold times
			continue
		}
		t.Errorf("%s\n%s\n%s", q, d, got.Log())
	}
	return g
}

// upload writes a folder's files into the bucket.
func upload(t *testing.T, bkt objstore.Bucket, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		return bkt.Upload(t.Context(), filepath.ToSlash(name), f)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// remove deletes a block's objects.
func remove(t *testing.T, bkt objstore.Bucket, id string) {
	t.Helper()
	var names []string
	err := bkt.Iter(
		t.Context(), id, func(name string) error { names = append(names, name); return nil },
		objstore.WithRecursiveIter(),
	)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 3 {
		t.Fatalf("block %s has only %v", id, names)
	}
	for _, name := range names {
		if err := bkt.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}
