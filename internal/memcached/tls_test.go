package memcached

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"strings"
	"testing"
	"time"

	"larder/internal/clienttls/tlstest"
	"larder/internal/memcached/memcachedtest"
	"larder/internal/telemetry/telemetrytest"
)

func TestTLS(t *testing.T) {
	ours, theirs := tlstest.New(t), tlstest.New(t)
	serve := func(name string, clients *tlstest.Authority) *memcachedtest.Server {
		t.Helper()
		o := &memcachedtest.TLS{}
		o.Cert, o.Key = ours.Files(-time.Hour, time.Hour, name)
		if clients != nil {
			o.ClientCA = clients.File()
		}
		return memcachedtest.Start(t, memcachedtest.Options{TLS: o})
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
	f("server certificate", plain, ours.Anonymous(), "")
	f("client certificate", mutual, ours.Client(), "")
	byName := ours.Anonymous()
	byName.ServerName = "memcached.test"
	f("server name", named, byName, "")

	f("another authority", plain, theirs.Anonymous(), "unknown authority")
	f("no client certificate", mutual, ours.Anonymous(), "not read from")
	stranger := theirs.Client()
	stranger.RootCAs = ours.Anonymous().RootCAs
	f("client certificate of another authority", mutual, stranger, "not read from")
	f("another server name", named, ours.Anonymous(), "127.0.0.1")
	f("no TLS", plain, nil, "not read from")
	f("TLS to a server without", memcachedtest.Start(t, memcachedtest.Options{}),
		ours.Anonymous(), "tls")
}
