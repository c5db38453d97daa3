package membership

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/config"

	"larder/internal/clienttls/tlstest"
	"larder/internal/localfs"
	"larder/shard"
)

// secured are two shards whose HTTP ports accept clients with a certificate of an authority only.
type secured struct {
	drivers [2]*Driver
	ready   [2]chan struct{}
	served  atomic.Int64 // requests that passed TLS
	urls    []string
}

// startSecured starts the shards, which ask each other as client says.
func startSecured(t *testing.T, servers *tlstest.Authority, client *ClientConfig) *secured {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(servers.PEM())
	pair, err := tls.X509KeyPair(servers.Issue(-time.Hour, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	s := &secured{}
	var handlers [2]atomic.Pointer[http.Handler]
	var peers []Peer
	for i := range handlers {
		server := httptest.NewUnstartedServer(http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				s.served.Add(1)
				if h := handlers[i].Load(); h != nil {
					(*h).ServeHTTP(w, r)
				}
			}))
		server.TLS = &tls.Config{
			Certificates: []tls.Certificate{pair}, ClientCAs: pool,
			ClientAuth: tls.RequireAndVerifyClientCert,
		}
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		server.StartTLS()
		t.Cleanup(server.Close)
		s.urls = append(s.urls, server.URL)
		peer, err := ParsePeer(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		peers = append(peers, peer)
	}
	ctx := t.Context() // ends before the functions of Cleanup run
	for i := range s.drivers {
		dir := localfs.At(t.TempDir(), "larder")
		if err := dir.Make(); err != nil {
			t.Fatal(err)
		}
		ready, changed := make(chan struct{}), make(chan struct{}, 1)
		d, err := New(Options{
			ID:     shard.ID{Zone: "a", Ordinal: i},
			Config: shard.Config{Epoch: 1, Count: 2, Zones: []string{"a"}},
			Peers:  peers, Client: client, Dir: dir, QuerierWait: 2 * time.Second,
			StartWait: time.Hour, // ready means that the other one has answered
			OnOwnership: func() {
				select {
				case changed <- struct{}{}:
				default:
				}
			},
			OnReady: func(ok bool, _ string) {
				if ok {
					close(ready)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		h := d.Handler(func(*http.Request) error { return nil })
		handlers[i].Store(&h)
		s.drivers[i], s.ready[i] = d, ready
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			d.Run(ctx)
		}()
		catalog := make(chan struct{})
		go func() {
			defer close(catalog)
			for ctx.Err() == nil {
				(&process{Driver: d}).publish(ctx, []ulid.ULID{{1}, {2}, {3}})
				select {
				case <-changed:
				case <-ctx.Done():
				}
			}
		}()
		t.Cleanup(func() { <-ended; <-catalog })
	}
	return s
}

// clientConfig trusts an authority, and sends a certificate of another one unless it is nil.
func clientConfig(trusts, ours *tlstest.Authority) *ClientConfig {
	c := config.DefaultHTTPClientConfig
	c.TLSConfig.CAFile = trusts.File()
	if ours != nil {
		c.TLSConfig.CertFile, c.TLSConfig.KeyFile = ours.Files(-time.Hour, time.Hour)
	}
	return &c
}

// TestPeersOverTLS: two shards find each other over TLS with certificates on both sides. A shard
// without a certificate, or with one of another authority, is refused before a request, and so is
// an operator. A peer with a certificate of another authority is not believed.
func TestPeersOverTLS(t *testing.T) {
	ours, theirs := tlstest.New(t), tlstest.New(t)
	s := startSecured(t, ours, clientConfig(ours, ours))
	for i := range s.drivers {
		select {
		case <-s.ready[i]:
		case <-time.After(time.Minute):
			t.Fatalf("shard %d is not ready: %s", i, s.drivers[i].Snapshot().Reason)
		}
	}
	status := func(client *ClientConfig) error {
		c, err := NewClient(client, "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		_, err = Admin{Client: c, URL: s.urls[0]}.Status(t.Context())
		return err
	}
	if err := status(clientConfig(ours, ours)); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	if err := status(clientConfig(ours, nil)); err == nil ||
		!strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v", err)
	}

	for name, client := range map[string]*ClientConfig{
		"without a certificate":              clientConfig(ours, nil),
		"a certificate of another authority": clientConfig(ours, theirs),
		"peers of another authority":         clientConfig(theirs, ours),
	} {
		s := startSecured(t, ours, client)
		questions := s.drivers[0].metrics.questions
		deadline := time.Now().Add(time.Minute)
		tick := time.NewTicker(10 * time.Millisecond)
		for testutil.ToFloat64(questions.WithLabelValues(failed)) < 4 { // two polls
			if <-tick.C; time.Now().After(deadline) {
				t.Fatalf("%s: no question fails", name)
			}
		}
		tick.Stop()
		if n := testutil.ToFloat64(questions.WithLabelValues(answered)); n > 0 ||
			s.served.Load() > 0 || s.drivers[0].Snapshot().Ready {
			t.Errorf("%s: %v questions answered, %d requests served, ready %t", name, n,
				s.served.Load(), s.drivers[0].Snapshot().Ready)
		}
	}
}
