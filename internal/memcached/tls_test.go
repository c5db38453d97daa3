package memcached

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"larder/internal/memcached/memcachedtest"
	"larder/internal/telemetry/telemetrytest"
)

func TestTLS(t *testing.T) {
	ours, theirs := memcachedtest.NewAuthority(t), memcachedtest.NewAuthority(t)
	serve := func(name string, clients *memcachedtest.Authority) *memcachedtest.Server {
		t.Helper()
		o := &memcachedtest.TLS{}
		o.Cert, o.Key = ours.Issue(t, name)
		if clients != nil {
			o.ClientCA = clients.File
		}
		return memcachedtest.Start(t, memcachedtest.Options{TLS: o})
	}
	pool := func(a *memcachedtest.Authority) *x509.CertPool {
		t.Helper()
		pem, err := os.ReadFile(a.File)
		if err != nil {
			t.Fatal(err)
		}
		p := x509.NewCertPool()
		p.AppendCertsFromPEM(pem)
		return p
	}
	pair := func(a *memcachedtest.Authority) []tls.Certificate {
		t.Helper()
		cert, err := tls.LoadX509KeyPair(a.Issue(t, "larder"))
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{cert}
	}
	// f stores a value and reads it back. If trouble is not empty, that must fail and the log
	// contain it.
	f := func(name string, s *memcachedtest.Server, conf *tls.Config, trouble string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			var log telemetrytest.Buffer
			c := client(
				t, Options{TLS: conf, Timeout: 10 * time.Second,
					Logger: slog.New(slog.NewTextHandler(&log, nil))}, s)
			id := idOf("a")
			value := bytes.Repeat([]byte("x"), 500_000)
			store(t, c, map[ID][]byte{id: value})
			began := time.Now()
			got := get(t, c, id)
			if trouble == "" {
				if !bytes.Equal(got, value) {
					t.Errorf("got %d bytes: %s", len(got), log.String())
				}
				return
			}
			if got != nil {
				t.Errorf("got %d bytes", len(got))
			}
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
			if st := c.Stats(); st.ReadsOpen != 1 || !strings.Contains(log.String(), trouble) {
				t.Errorf("open: %d, want %q in the log:\n%s", st.ReadsOpen, trouble, log.String())
			}
		})
	}
	plain, mutual, named := serve("127.0.0.1", nil), serve("127.0.0.1", ours),
		serve("memcached.test", nil)
	f("server certificate", plain, &tls.Config{RootCAs: pool(ours)}, "")
	f("client certificate", mutual, &tls.Config{RootCAs: pool(ours), Certificates: pair(ours)}, "")
	f("server name", named, &tls.Config{RootCAs: pool(ours), ServerName: "memcached.test"}, "")

	f("another authority", plain, &tls.Config{RootCAs: pool(theirs)}, "unknown authority")
	f("no client certificate", mutual, &tls.Config{RootCAs: pool(ours)}, "not read from")
	f("client certificate of another authority", mutual,
		&tls.Config{RootCAs: pool(ours), Certificates: pair(theirs)}, "not read from")
	f("another server name", named, &tls.Config{RootCAs: pool(ours)}, "127.0.0.1")
	f("no TLS", plain, nil, "not read from")
	f("TLS to a server without", memcachedtest.Start(t, memcachedtest.Options{}),
		&tls.Config{RootCAs: pool(ours)}, "tls")
}
