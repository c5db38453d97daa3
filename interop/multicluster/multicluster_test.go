package multicluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/thanos/pkg/info/infopb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"larder/interop/internal/fleet"
	"larder/interop/internal/gateway"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/process"
	"larder/interop/internal/programs"
)

// sample is a float.
type sample struct {
	t int64
	v float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) F() float64                    { return s.v }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

// The bucket has 20 series. Each has the value 2 every 15 s for two hours.
const series = 20

func makeBucket(t *testing.T) string {
	t.Helper()
	var all []storage.Series
	for i := range series {
		var samples []chunks.Sample
		for at := fleet.From; at < fleet.From+fleet.BlockMillis; at += 15_000 {
			samples = append(samples, sample{at, 2})
		}
		all = append(
			all,
			storage.NewListSeries(
				labels.FromStrings("__name__", "shelf", "n", fmt.Sprint(i)), samples,
			),
		)
	}
	dir := t.TempDir()
	if _, err := tsdb.CreateBlock(all, dir, fleet.BlockMillis,
		slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	bucket := &fleet.Bucket{Dir: t.TempDir()}
	if _, err := bucket.Add(dir, map[string]string{"cluster": "eu"}); err != nil {
		t.Fatal(err)
	}
	return bucket.Dir
}

type closer interface {
	Log() string
	Close() error
}

func closeAtEnd(t *testing.T, name string, c closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if t.Failed() {
			t.Logf("the log of %s:\n%s", name, c.Log())
		}
	})
}

// startProxy runs nginx as the gRPC proxy of a cluster. It requires client certificates of the
// authority and presents its own to larder.
func startProxy(t *testing.T, a *authority, larder string) (addr string) {
	t.Helper()
	bin := programs.Debian(t, "nginx", "nginx-light")
	addrs, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	dir, id := t.TempDir(), a.issue("proxy.test")
	conf := fmt.Sprintf(`
daemon off;
pid %[1]s/pid;
error_log stderr warn;
worker_processes 1;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]s ssl http2;
    ssl_protocols TLSv1.3;
    ssl_certificate %[3]s;
    ssl_certificate_key %[4]s;
    ssl_client_certificate %[5]s;
    ssl_verify_client on;
    location / {
      grpc_pass grpcs://%[6]s;
      grpc_ssl_protocols TLSv1.3;
      grpc_ssl_certificate %[3]s;
      grpc_ssl_certificate_key %[4]s;
      grpc_ssl_trusted_certificate %[5]s;
      grpc_ssl_verify on;
      grpc_ssl_name larder.test;
    }
  }
}
`, dir, addrs[0], id.cert, id.key, a.ca, larder)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := process.Start(context.Background(), process.Options{
		Name: "nginx", Bin: bin, Args: []string{"-p", dir, "-e", "stderr", "-c", file},
		Ready: process.Listening(addrs[0]),
	})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, "nginx", p)
	return addrs[0]
}

// clientFlags returns a Querier's flags for TLS; id may be nil.
func clientFlags(a *authority, server string, id *identity) []string {
	flags := []string{
		"--grpc-client-tls-secure",
		"--grpc-client-tls-ca=" + a.ca,
		"--grpc-client-server-name=" + server,
	}
	if id != nil {
		flags = append(flags, "--grpc-client-tls-cert="+id.cert, "--grpc-client-tls-key="+id.key)
	}
	return flags
}

func TestQuerierBehindAProxy(t *testing.T) {
	ctx := context.Background()
	thanos := programs.Thanos(t)
	bin, err := gateway.BuildLarder(ctx, "../..")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := newAuthority(t), newAuthority(t)
	server := ours.issue("larder.test")
	larder, err := gateway.StartLarder(
		ctx, bin, gateway.Bucket{Dir: makeBucket(t), DataDir: t.TempDir()},
		"--grpc-server-tls-cert="+server.cert, "--grpc-server-tls-key="+server.key,
		"--grpc-server-tls-client-ca="+ours.ca,
	)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, "larder", larder)
	proxy := startProxy(t, ours, larder.Addr)
	querierID, strangerID := ours.issue("querier.test"), theirs.issue("stranger.test")

	for _, way := range []struct{ name, addr, server string }{
		{"directly", larder.Addr, "larder.test"}, {"through the proxy", proxy, "proxy.test"}} {
		t.Run(way.name, func(t *testing.T) {
			q, err := neighbour.StartQuerier(
				ctx,
				thanos,
				[]string{way.addr},
				clientFlags(ours, way.server, &querierID)...)
			if err != nil {
				t.Fatal(err)
			}
			closeAtEnd(t, "thanos query", q)
			at := fleet.From + fleet.BlockMillis/2
			r, err := q.Instant(
				ctx, `sum by (cluster) (sum_over_time(shelf[5m]))`, at, neighbour.Params{},
			)
			if err != nil {
				t.Fatal(err)
			}
			want := []neighbour.Series{
				{
					Labels: `{cluster="eu"}`,
					Points: []neighbour.Point{{Time: at, Value: fmt.Sprint(series * 2 * 5 * 4)}},
				},
			}
			if !r.OK() || len(r.Warnings) > 0 || fmt.Sprint(r.Series) != fmt.Sprint(want) {
				t.Errorf("got %+v, want %+v", r, want)
			}
			names, err := q.LabelNames(ctx, nil, fleet.From, at, neighbour.Params{})
			if err != nil || strings.Join(names.Items, " ") != "__name__ cluster n" {
				t.Errorf("label names: got %+v, %v", names, err)
			}

			info := func(what string, conf *tls.Config, ok bool) {
				t.Helper()
				conf.ServerName = way.server
				c, err := gateway.Dial(
					way.addr, grpc.WithTransportCredentials(credentials.NewTLS(conf)),
				)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Info.Info(ctx, &infopb.InfoRequest{}); (err == nil) != ok {
					t.Errorf("%s: got error %v, want one: %v", what, err, !ok)
				}
			}
			info("with a certificate", ours.client(&querierID), true)
			info("without a certificate", ours.client(nil), false)
			info("with a certificate of another authority", ours.client(&strangerID), false)
			info("a client that trusts another authority", theirs.client(&querierID), false)
			plain, err := gateway.Dial(way.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			if _, err := plain.Info.Info(ctx, &infopb.InfoRequest{}); err == nil {
				t.Error("plain text: no error")
			}

			for name, id := range map[string]*identity{"without a certificate": nil,
				"with a certificate of another authority": &strangerID} {
				args := append(
					[]string{"--endpoint=" + way.addr},
					clientFlags(ours, way.server, id)...)
				q, err := neighbour.Start(
					ctx, neighbour.Options{Bin: thanos, Name: "query", Args: args},
				)
				if err != nil {
					t.Fatal(err)
				}
				closeAtEnd(t, "thanos query "+name, q)
				if err := q.Wait(ctx, func(context.Context) bool {
					return strings.Contains(q.Log(), "update of endpoint failed")
				}); err != nil {
					t.Errorf("a Querier %s was not rejected: %v", name, err)
				}
				if r, err := q.Instant(ctx, "shelf", at, neighbour.Params{}); err != nil ||
					len(r.Series) > 0 {
					t.Errorf("a Querier %s: got %+v, %v, want nothing", name, r, err)
				}
			}
			t.Logf(
				"proved: %s a Querier with a certificate of the authority gets answers; others, and plain text, get none",
				way.name,
			)
		})
	}
}
