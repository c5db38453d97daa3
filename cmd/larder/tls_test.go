package main

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"larder/internal/clienttls"
	"larder/internal/clienttls/tlstest"
	"larder/store/storepb"
)

// replace replaces a file atomically, same as a rotation.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	next := write(t, filepath.Base(path), string(content))
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

// ask sends a request over a new connection.
func (f *rpcFixture) ask(t *testing.T, conf *tls.Config) error {
	t.Helper()
	conn, err := grpc.NewClient(f.address, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = storepb.NewInfoClient(conn).Info(t.Context(), &storepb.InfoRequest{})
	return err
}

func TestTLS(t *testing.T) {
	ours, theirs := tlstest.New(t), tlstest.New(t)
	certFile, keyFile := ours.Files(-time.Hour, time.Hour)
	caFile := ours.File()
	f := startRPC(
		t,
		grpcConfig{
			tls: serverTLS{
				certFile:     certFile,
				keyFile:      keyFile,
				clientCAFile: caFile,
				minVersion:   "1.3",
			},
		},
		&fakeStore{},
		noTracing(t),
		nil,
	)
	ok := func(what string, conf *tls.Config) {
		t.Helper()
		if err := f.ask(t, conf); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused := func(what string, conf *tls.Config) {
		t.Helper()
		if err := f.ask(t, conf); err == nil {
			t.Errorf("%s: no error", what)
		}
	}

	ok("with a certificate", ours.Client())
	refused("without a certificate", ours.Anonymous())
	stranger := theirs.Client()
	stranger.RootCAs = ours.Anonymous().RootCAs
	refused("with a certificate of another authority", stranger)
	old := ours.Client()
	old.MaxVersion = tls.VersionTLS12
	refused("TLS 1.2", old)

	// The clients' authority rotates: both are accepted for a while, then only the new one.
	replace(t, caFile, append(ours.PEM(), theirs.PEM()...))
	ok("with a certificate of the old authority beside the new one", ours.Client())
	ok("with a certificate of the new authority", stranger)
	replace(t, caFile, theirs.PEM())
	refused("with a certificate of the authority that is gone", ours.Client())
	ok("with a certificate of the new authority alone", stranger)
	replace(t, caFile, []byte("nonsense"))
	ok("while the authority's file is broken", stranger)
	if err := os.Remove(caFile); err != nil {
		t.Fatal(err)
	}
	ok("while the authority's file is missing", stranger)
	replace(t, caFile, append(ours.PEM(), theirs.PEM()...))
	ok("with a certificate of the authority that is back", ours.Client())

	// The server's own certificate rotates.
	newCert, newKey := theirs.Issue(-time.Hour, time.Hour)
	replace(t, certFile, newCert)
	ok("half way through a rotation", ours.Client())
	replace(t, keyFile, newKey)
	refused("the old certificate after a rotation", ours.Client())
	ok("the new certificate after a rotation", theirs.Client())
	lateCert, lateKey := theirs.Issue(-time.Hour, -time.Minute)
	replace(t, certFile, lateCert)
	replace(t, keyFile, lateKey)
	ok("after a rotation to a certificate that has expired", theirs.Client())
}

// TestCertificateComesIntoForce checks that a certificate that is not yet valid is used once it is
// valid, without a change of the files.
func TestCertificateComesIntoForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tlstest.New(t)
		certFile, keyFile := a.Files(-time.Hour, time.Hour)
		c, err := newCertificates(
			&serverTLS{certFile: certFile, keyFile: keyFile, minVersion: "1.3"},
		)
		if err != nil {
			t.Fatal(err)
		}
		former := c.good
		cert, key := a.Issue(time.Minute, 2*time.Hour)
		replace(t, certFile, cert)
		replace(t, keyFile, key)
		if err := c.reload(); err == nil || !strings.Contains(err.Error(), "not valid before") ||
			c.good != former {
			t.Errorf("too early: got %v", err)
		}
		time.Sleep(2 * time.Minute)
		if err := c.reload(); err != nil || c.good == former {
			t.Errorf("in force: got %v", err)
		}
	})
}

// TestWebConfigInOneFile checks that certificate and key of the HTTP port may be in one file, in
// either order.
func TestWebConfigInOneFile(t *testing.T) {
	cert, key := tlstest.New(t).Issue(-time.Hour, time.Hour)
	for _, text := range [][]byte{append(cert, key...), append(key, cert...)} {
		both := write(t, "both.pem", string(text))
		f := webFile(
			write(t, "web.yml", "tls_server_config: {cert_file: "+both+", key_file: "+both+"}"),
		)
		if fixed, err := f.check(time.Now()); err != nil || !fixed.tls {
			t.Errorf("got %t, %v", fixed.tls, err)
		}
	}
}

// TestClientCABundle checks that a bundle works if Go rejects one of its certificates.
func TestClientCABundle(t *testing.T) {
	good := tlstest.New(t).PEM()
	bad := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("of another age")})
	if _, err := clienttls.CAPool(append(bad, good...), time.Now()); err != nil {
		t.Errorf("beside a usable one: %v", err)
	}
	if _, err := clienttls.CAPool(bad, time.Now()); err == nil {
		t.Error("nothing else in the file: no error")
	}
}

func TestTLSCiphersAndCurves(t *testing.T) {
	a := tlstest.New(t)
	certFile, keyFile := a.Files(-time.Hour, time.Hour)
	f := startRPC(t, grpcConfig{tls: serverTLS{
		certFile: certFile, keyFile: keyFile, minVersion: "1.2",
		ciphers: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		}, curves: []tls.CurveID{tls.CurveP384},
	}}, &fakeStore{}, noTracing(t), nil)
	ask := func(change func(*tls.Config)) error {
		conf := a.Anonymous()
		change(conf)
		return f.ask(t, conf)
	}
	if err := ask(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
	if err := ask(func(c *tls.Config) {
		c.MaxVersion = tls.VersionTLS11
		c.MinVersion = tls.VersionTLS11
	}); err == nil {
		t.Error("TLS 1.1: no error")
	}
	if err := ask(func(c *tls.Config) {
		c.MaxVersion = tls.VersionTLS12
		c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	}); err == nil {
		t.Error("a cipher suite that is not allowed: no error")
	}
	if err := ask(func(c *tls.Config) {
		c.CurvePreferences = []tls.CurveID{tls.X25519}
	}); err == nil {
		t.Error("a curve that is not allowed: no error")
	}
	if err := ask(func(c *tls.Config) {
		c.CurvePreferences = []tls.CurveID{tls.CurveP384}
	}); err != nil {
		t.Errorf("the curve that is allowed: %v", err)
	}
}

// TestTLSFlags checks that names and repetition of the flags are the same as in Thanos.
func TestTLSFlags(t *testing.T) {
	var args []string
	for _, s := range tls.CipherSuites() {
		args = append(args, "--grpc-server-tls-ciphers="+s.Name)
	}
	curves := []string{
		"CurveP256",
		"CurveP384",
		"CurveP521",
		"X25519",
		"X25519MLKEM768",
		"SecP256r1MLKEM768",
		"SecP384r1MLKEM1024",
	}
	for _, c := range curves {
		args = append(args, "--grpc-server-tls-curves="+c)
	}
	conf, err := parseStore(args...)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(conf.grpc.tls.ciphers), len(tls.CipherSuites()); got != want {
		t.Errorf("got %d cipher suites, want %d", got, want)
	}
	if got, want := len(conf.grpc.tls.curves), len(curves); got != want {
		t.Errorf("got %d curves, want %d", got, want)
	}
	if conf.grpc.tls.curves[1] != tls.CurveP384 {
		t.Errorf("got curve %v second", conf.grpc.tls.curves[1])
	}
	for _, bad := range []string{"--grpc-server-tls-ciphers=TLS_RSA_WITH_RC4_128_SHA",
		"--grpc-server-tls-curves=P256"} {
		name, value, _ := strings.Cut(bad, "=")
		if _, err := parseStore(bad); err == nil || !strings.Contains(err.Error(), name) ||
			!strings.Contains(err.Error(), value) {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

// listenLocal occupies a port until the test ends.
func listenLocal(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}
